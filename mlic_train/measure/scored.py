"""Which rows and entries of a split are scored, where some labels are unknown."""

import numpy as np

from mlic_runtime.base.arrays import Bools


def scored_rows(targets: Bools, known: Bools | None = None) -> Bools:
    """Return which rows thresholds, calibration and metrics are about, bool (N).

    They are the rows with at least one label. Rows with none of the labels are left out: they have no meaningful F1. A
    row without a label in which some labels are unknown may well have one of these, so what it lacks counts; else only
    positives would be left of data in which few labels of a row were looked at. A row in which all are unknown says
    nothing.

    Args:
        targets: bool (N, L).
        known: bool (N, L), False where a label is unknown; None where none is.
    """
    scored: Bools = np.any(targets if known is None else targets & known, axis=1)
    if known is not None:
        scored |= np.any(known, axis=1) & ~np.all(known, axis=1)
    return scored
