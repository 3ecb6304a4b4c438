"""Decision thresholds, one per label, fitted on the validation split only."""

import numpy as np
import numpy.typing as npt

_GRID = np.round(np.arange(0.10, 0.901, 0.01), 2)
_SHRINKAGE = 50.0  # positives at which a label's own optimum and the global threshold weigh the same

Floats = npt.NDArray[np.floating]


def samples_f1(decisions: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> float:
    """Mean over rows of F1 = 2 TP / (predicted + true); a row with neither counts as 1. Both bool (B, L)."""
    hits = (decisions & targets).sum(axis=1)
    total = decisions.sum(axis=1) + targets.sum(axis=1)
    return float(np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0).mean())


def fit_thresholds(probabilities: Floats, targets: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Thresholds (L) for samples F1.

    First the best global threshold g; then, with the others at g, the best threshold t of each label. A label's own
    threshold is shrunk towards g by its number of positives n: g + n / (n + 50) * (t - g), because the optimum
    of a label with few positives is mostly noise.

    Args:
        probabilities: float (B, L) in 0..1.
        targets: bool (B, L).
    """
    rows = targets.any(axis=1)
    probabilities, targets = probabilities[rows], targets[rows]
    if len(targets) == 0:
        return np.full(probabilities.shape[1], 0.5)
    overall = _best([samples_f1(probabilities >= value, targets) for value in _GRID])
    decisions = probabilities >= overall
    fitted = np.full(targets.shape[1], overall)
    for label in range(targets.shape[1]):
        scores = []
        for value in _GRID:
            changed = decisions.copy()
            changed[:, label] = probabilities[:, label] >= value
            scores.append(samples_f1(changed, targets))
        positives = int(targets[:, label].sum())
        fitted[label] = overall + positives / (positives + _SHRINKAGE) * (_best(scores) - overall)
    return np.round(fitted, 4)


def _best(scores: list[float]) -> float:
    """The middle of the grid values that reach the best score: the least fragile of equals."""
    best = np.flatnonzero(np.asarray(scores) >= max(scores) - 1e-12)
    return float(_GRID[best[len(best) // 2]])
