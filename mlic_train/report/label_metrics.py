"""Precision, recall, F1 and average precision of every label, with bootstrap intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlic_runtime.predict.prediction import decide
from mlic_train.measure.bootstrap import average_precision
from mlic_train.measure.scored import scored_rows

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

_RESAMPLES = 1000
_CELLS = 4_000_000  # resamples x rows at a time; bounds memory, does not change the result


@dataclass(frozen=True)
class Number:
    """A metric with its 95 % interval; `low` and `high` are None where too few resamples define it.

    As text, a `difference` has a sign.
    """

    value: float
    low: float | None = None
    high: float | None = None
    difference: bool = False

    def __str__(self) -> str:
        sign = "+" if self.difference else ""
        # No-break spaces: in a table an interval stays on one line.
        interval = "" if self.low is None else f"\u00a0[{self.low:{sign}.3f},\u00a0{self.high:{sign}.3f}]"
        return f"{self.value:{sign}.4f}{interval}"


@dataclass(frozen=True)
class LabelMetrics:
    """One label: `support` rows are true, `predicted` rows are decided so; `ap` is None where none is true.

    `unknown` rows count nowhere else.
    """

    name: str
    threshold: float
    support: int
    predicted: int
    precision: Number
    recall: Number
    f1: Number
    ap: Number | None
    unknown: int = 0


def label_metrics(
    names: Sequence[str], probabilities: Floats, targets: Bools, thresholds: Floats, known: Bools | None = None
) -> list[LabelMetrics]:
    """Return the metrics of every label over the rows that are scored, as `compute_metrics` averages them.

    Args:
        names: L of them.
        probabilities: float (N, L) in 0..1.
        targets: bool (N, L).
        thresholds: float (L).
        known: bool (N, L), False where a label is unknown; None where none is.
    """
    labelled = scored_rows(targets, known)
    known = np.full(targets.shape, True)[labelled] if known is None else known[labelled]
    probabilities, targets = probabilities[labelled], targets[labelled] & known
    decisions = decide(probabilities, thresholds) & known
    arrays = (probabilities.astype(np.float32), targets, decisions, known)
    values = _weighted(*arrays, np.ones((1, len(targets)), dtype=np.int64))[:, 0]  # (4, L)
    samples = np.concatenate([_weighted(*arrays, weights) for weights in resampled(len(targets))], axis=1)  # (4, R, L)
    result = []
    for i, name in enumerate(names):
        *defined, ap = (_number(value, sample) for value, sample in zip(values[:, i], samples[:, :, i], strict=True))
        # As in `compute_metrics`, a ratio over no rows is 0; a label without rows has no average precision.
        precision, recall, f1 = (number or Number(0.0) for number in defined)
        support, predicted = int(targets[:, i].sum()), int(decisions[:, i].sum())
        unknown = int((~known[:, i]).sum())
        result.append(LabelMetrics(name, float(thresholds[i]), support, predicted, precision, recall, f1, ap, unknown))
    return result


def resampled(rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each row is drawn, int (R, N) in parts: the same draws as those of `bootstrap_intervals`."""
    rng = np.random.default_rng(0)
    chunk = max(1, _CELLS // rows)
    for start in range(0, _RESAMPLES, chunk):
        yield rng.multinomial(rows, np.full(rows, 1 / rows), size=min(chunk, _RESAMPLES - start))


def _weighted(
    probabilities: npt.NDArray[np.float32],
    targets: Bools,
    decisions: Bools,
    known: Bools,
    weights: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return precision, recall, F1 and AP, float64 (4, R, L), where row n counts weights[r, n] times; NaN over no rows.

    Args:
        probabilities: float32 (N, L).
        targets: bool (N, L), False where unknown.
        decisions: bool (N, L), False where unknown.
        known: bool (N, L).
        weights: int (R, N).
    """
    counts = weights.astype(np.float64)
    hits, predicted, positive = (counts @ rows for rows in (decisions & targets, decisions, targets))  # (R, L)
    by_row = np.ascontiguousarray(counts.T)
    areas = [
        average_precision(probabilities[row, i], targets[row, i], by_row if row.all() else by_row[row])
        for i, row in enumerate(known.T)
    ]
    ratios = ((hits, predicted), (hits, positive), (2 * hits, predicted + positive))
    return np.stack(
        [
            *(np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0) for part, whole in ratios),
            np.stack(areas, axis=1),
        ]
    )


def _number(value: np.float64, sample: npt.NDArray[np.float64]) -> Number | None:
    """Return a metric with the interval of its resamples (R); none where less than half of them define it."""
    known = sample[~np.isnan(sample)]
    if np.isnan(value):
        return None
    if 2 * len(known) < len(sample):
        return Number(float(value))
    low, high = np.quantile(known, (0.025, 0.975))
    return Number(float(value), float(low), float(high))
