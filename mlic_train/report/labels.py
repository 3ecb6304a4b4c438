"""Precision, recall, F1 and average precision of every label, with bootstrap intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mlic_runtime.base.arrays import Bools, Floats
from mlic_runtime.predict.prediction import decide
from mlic_train.measure.bootstrap import average_precision

from .html import table

RESAMPLES = 1000
NAMES = ("precision", "recall", "f1", "ap")
_CELLS = 4_000_000  # resamples x rows at a time; bounds memory, does not change the result


@dataclass(frozen=True)
class Number:
    """A metric with its 95 % interval; `low` and `high` are None where too few resamples define it."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        # No-break spaces: in a table an interval stays on one line.
        return f"{self.value:.4f}" + ("" if self.low is None else f"\u00a0[{self.low:.3f},\u00a0{self.high:.3f}]")


@dataclass(frozen=True)
class LabelNumbers:
    """One label: `support` rows are true, `predicted` rows are decided so; `ap` is None where none is true."""

    name: str
    threshold: float
    support: int
    predicted: int
    precision: Number
    recall: Number
    f1: Number
    ap: Number | None


def label_numbers(
    names: Sequence[str], probabilities: Floats, targets: Bools, thresholds: Floats
) -> list[LabelNumbers]:
    """The numbers of every label over the rows with at least one label, as `compute_metrics` averages them.

    Args:
        names: L of them.
        probabilities: float (N, L) in 0..1.
        targets: bool (N, L).
        thresholds: float (L).
    """
    labelled = targets.any(axis=1)
    probabilities, targets = probabilities[labelled], targets[labelled]
    decisions = decide(probabilities, thresholds)
    values = _values(probabilities, targets, decisions)
    intervals = _intervals(probabilities, targets, decisions)
    result = []
    for i, name in enumerate(names):
        numbers = {
            kind: Number(float(values[kind][i]), *intervals[kind][i]) for kind in NAMES if not np.isnan(values[kind][i])
        }
        result.append(
            LabelNumbers(
                name,
                float(thresholds[i]),
                int(targets[:, i].sum()),
                int(decisions[:, i].sum()),
                numbers["precision"],
                numbers["recall"],
                numbers["f1"],
                numbers.get("ap"),
            )
        )
    return result


def labels_table(numbers: Sequence[LabelNumbers]) -> str:
    """One row per label."""
    header = ("label", "true", "predicted", "threshold", "precision", "recall", "F1", "AP")
    rows = [
        (row.name, row.support, row.predicted, row.threshold, row.precision, row.recall, row.f1, row.ap)
        for row in numbers
    ]
    return table(header, rows)


def resampled(rows: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """How often each row is drawn, int (R, N) in parts: the very draws of `bootstrap_intervals`."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // rows)
    for start in range(0, resamples, chunk):
        yield rng.multinomial(rows, np.full(rows, 1 / rows), size=min(chunk, resamples - start))


def _values(probabilities: Floats, targets: Bools, decisions: Bools) -> dict[str, npt.NDArray[np.float64]]:
    """Each of NAMES to float64 (L); AP is NaN where no row is true, as it is left out of the mAP."""
    from torchmetrics.functional.classification import (
        binary_average_precision,
        multilabel_f1_score,
        multilabel_precision,
        multilabel_recall,
    )

    scores = torch.from_numpy(np.asarray(probabilities, dtype=np.float32))
    truth, given = torch.from_numpy(targets.astype(np.int64)), torch.from_numpy(decisions.astype(np.int64))
    count = truth.shape[1]
    areas = [
        float(binary_average_precision(scores[:, i], truth[:, i])) if truth[:, i].any() else np.nan
        for i in range(count)
    ]
    found = {
        "precision": multilabel_precision(given, truth, count, average="none"),
        "recall": multilabel_recall(given, truth, count, average="none"),
        "f1": multilabel_f1_score(given, truth, count, average="none"),
    }
    return {**{kind: tensor.numpy().astype(np.float64) for kind, tensor in found.items()}, "ap": np.array(areas)}


def _intervals(
    probabilities: Floats, targets: Bools, decisions: Bools
) -> dict[str, list[tuple[float, float] | tuple[()]]]:
    """Each of NAMES to L percentile intervals, empty where less than half of the resamples define the metric."""
    parts: dict[str, list[npt.NDArray[np.float64]]] = {kind: [] for kind in NAMES}
    hits, given, true = (
        (a & b).astype(np.float64) for a, b in ((decisions, targets), (decisions,) * 2, (targets,) * 2)
    )
    scores = probabilities.astype(np.float32)
    for weights in resampled(len(targets)):
        counts = weights.astype(np.float64)
        by_row = np.ascontiguousarray(counts.T)
        right, predicted, positive = counts @ hits, counts @ given, counts @ true  # (R, L)
        parts["precision"].append(_ratio(right, predicted))
        parts["recall"].append(_ratio(right, positive))
        parts["f1"].append(_ratio(2 * right, predicted + positive))
        areas = [average_precision(scores[:, i], targets[:, i], by_row) for i in range(targets.shape[1])]
        parts["ap"].append(np.stack(areas, axis=1))
    return {kind: [_interval(column) for column in np.concatenate(found).T] for kind, found in parts.items()}


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _interval(column: npt.NDArray[np.float64]) -> tuple[float, float] | tuple[()]:
    known = column[~np.isnan(column)]
    if 2 * len(known) < len(column):
        return ()
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
