"""Bootstrap intervals: how much the metrics of a split depend on its random choice of rows."""

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Bools, Floats

from .scored import scored_rows

_QUANTILES = (0.025, 0.975)
_MAX_VALUES = 4_000_000  # resamples x rows at a time, 32 MB an array; bounds memory, does not change the result


def bootstrap_intervals(
    probabilities: Floats,
    targets: Bools,
    thresholds: Floats,
    resamples: int = 1000,
    seed: int = 0,
    known: Bools | None = None,
) -> dict[str, float]:
    """Return 95 % percentile intervals (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife").

    Each resample draws with replacement as many rows as are scored (see `scored_rows`); model and thresholds stay.

    Args:
        probabilities: float (N, L) in 0..1.
        targets: bool (N, L).
        thresholds: float (L).
        resamples: R, the number of resamples.
        seed: of the random draws.
        known: bool (N, L), False where a label is unknown; None where none is.

    Returns:
        samples_f1_low and samples_f1_high, and the bounds of micro_f1, macro_f1 and map; empty without a labelled row.
    """
    labelled = scored_rows(targets, known)
    probabilities, targets = probabilities[labelled], targets[labelled]
    known = None if known is None else known[labelled]
    rows = len(targets)
    if not (targets if known is None else targets & known).any():
        return {}
    rng = np.random.default_rng(seed)
    chunk = max(1, _MAX_VALUES // rows)
    parts = [
        weighted_metrics(
            probabilities,
            targets,
            thresholds,
            rng.multinomial(rows, np.full(rows, 1 / rows), size=min(chunk, resamples - start)),
            known,
        )
        for start in range(0, resamples, chunk)
    ]
    result: dict[str, float] = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        low, high = np.quantile(values[~np.isnan(values)], _QUANTILES)
        result |= {f"{name}_low": round(float(low), 5), f"{name}_high": round(float(high), 5)}
    return result


def weighted_metrics(
    probabilities: Floats,
    targets: Bools,
    thresholds: Floats,
    weights: npt.NDArray[np.integer],
    known: Bools | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Compute samples_f1, micro_f1, macro_f1 and map, each float64 (R), for R sets of weights of the rows.

    They are those of `compute_metrics`, with arguments as there, for rows that are all scored. `weights` int (R, N)
    says how often each row counts, 0 included. Where no label is true in a set of rows that count, its map is NaN.
    """
    if known is not None:
        targets = targets & known
    counts = weights.astype(np.float64)
    decisions = probabilities >= thresholds if known is None else (probabilities >= thresholds) & known
    hits = (decisions & targets).astype(np.float64)  # (N, L)
    total = decisions.astype(np.float64) + targets  # F1 = 2 hits / total
    per_label = 2 * (counts @ hits) / np.maximum(counts @ total, 1)  # (R, L); an absent label has 0
    scores, by_row = probabilities.astype(np.float32), np.ascontiguousarray(counts.T)
    rows = [slice(None) if known is None else known[:, i] for i in range(targets.shape[1])]
    precisions = np.stack(
        [average_precision(scores[row, i], targets[row, i], by_row[row]) for i, row in enumerate(rows)]
    )
    occurs = ~np.isnan(precisions)  # (L, R)
    of_row = total.sum(axis=1)
    by_known = np.divide(2 * hits.sum(axis=1), of_row, out=np.ones(len(of_row)), where=of_row > 0)
    area = np.where(occurs, precisions, 0).sum(axis=0)
    return {
        "samples_f1": counts @ by_known / counts.sum(axis=1),
        "micro_f1": 2 * (counts @ hits.sum(axis=1)) / np.maximum(counts @ of_row, 1),
        "macro_f1": per_label.mean(axis=1),
        "map": np.divide(area, occurs.sum(axis=0), out=np.full(len(area), np.nan), where=occurs.any(axis=0)),
    }


def average_precision(
    scores: npt.NDArray[np.float32], truth: Bools, counts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Sum (gain in recall) * precision over distinct scores; scores (N), truth (N), counts (N, R) to (R).

    Rows of equal score are one step. Steps without a true row gain nothing and are skipped. The result is NaN where no
    counted row is true.
    """
    if not truth.any():
        return np.full(counts.shape[1], np.nan)
    order = np.argsort(-scores, kind="stable")
    stops = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) + 1  # where each distinct score ends
    true = np.flatnonzero(truth[order])
    steps, first = np.unique(np.searchsorted(stops, true, side="right"), return_index=True)
    stops = stops[steps]
    seen = np.cumsum(np.add.reduceat(counts[order[: stops[-1]]], np.append(0, stops[:-1])), axis=0)
    gains = np.add.reduceat(counts[order[true]], first)
    area = (gains * np.cumsum(gains, axis=0) / np.maximum(seen, 1)).sum(axis=0)
    total = gains.sum(axis=0)
    return np.where(total > 0, area / np.maximum(total, 1), np.nan)
