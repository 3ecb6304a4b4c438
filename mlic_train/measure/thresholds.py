"""Decision thresholds, one per label, fitted on the validation split only."""

import math

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Bools, Floats
from mlic_train.config import threshold_goal

from .scored import scored_rows

_GRID = np.round(np.arange(0.10, 0.901, 0.01), 2)  # (G,)
_FINE_GRID = np.round(np.arange(0.01, 0.991, 0.01), 2)  # for a precision or recall close to 1
_SHRINKAGE = 50.0  # the positives at which a label's own optimum and the global threshold have equal weight
_RESAMPLES = 200

Counts = npt.NDArray[np.integer]


def fit_thresholds(
    probabilities: Floats, targets: Bools, goal: str = "samples_f1", known: Bools | None = None
) -> npt.NDArray[np.float64]:
    """Fit thresholds (L) for a goal.

    First the best global threshold g is found, then the best threshold t of each label (for F1 with the other labels at
    g). F1 is flat around its optimum, and the optimum of the rows alone jumps between distant values that are equally
    good. So "best" is the mean of the optima of 200 bootstrap resamples of the rows (Breiman 1996, "Bagging
    Predictors"). For samples F1, t must gain more than one standard error of the gain over the rows, else it is g (the
    one-standard-error rule of Breiman et al. 1984, "Classification and Regression Trees"). The optimum of a label with
    few positives is mostly noise, so it is shrunk towards g by the number of positives n: g + n / (n + 50) * (t - g).

    For "precision=P", t is the lowest threshold from 0.01 to 0.99 that reaches P on these rows, or else the highest
    that still finds a positive. For "recall=R" it is the highest that reaches R, or else 0.01. After shrinking, a label
    with few positives may miss its goal on these rows. For "fixed=T" every threshold is T, and nothing is fitted.

    Unknown labels are left out of every count. A label that is unknown in all rows gets g, as one without positives.

    Args:
        probabilities: float (B, L) in 0..1.
        targets: bool (B, L); rows without any label are left out (see `scored_rows`).
        goal: "samples_f1", "micro_f1", "precision=P", "recall=R" or "fixed=T".
        known: bool (B, L), False where a label is unknown; None where none is.

    Raises:
        ConfigError: the goal is none of these.
    """
    name, level = threshold_goal(goal)
    if name == "fixed":
        return np.full(targets.shape[1], level)
    rows = scored_rows(targets, known)
    if known is not None:  # neither true nor predicted at any threshold, which no count sees
        probabilities, targets = np.where(known, probabilities, -1.0), targets & known
    probabilities, targets = probabilities[rows], targets[rows]
    if not targets.any():
        return np.full(probabilities.shape[1], 0.5)
    if level is None:
        overall, own = _fit_f1(probabilities, targets, by_row=name == "samples_f1")
    else:
        overall, own = _fit_level(probabilities, targets, name, level)
    positives = targets.sum(axis=0)
    fitted: npt.NDArray[np.float64] = overall + positives / (positives + _SHRINKAGE) * (own - overall)
    return np.round(fitted, 4)


def _count(decisions: Bools, targets: Bools) -> tuple[Counts, Counts]:
    """Count for every row (B) the labels that are predicted and true, and predicted + true; both bool (B, L)."""
    return (decisions & targets).sum(axis=1), decisions.sum(axis=1) + targets.sum(axis=1)


def _rows_f1(hits: Counts, total: Counts) -> npt.NDArray[np.float64]:
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


def _fit_f1(probabilities: Floats, targets: Bools, *, by_row: bool) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the best global threshold, and the best of each label with the others at the global one (L)."""
    counts = [_count(probabilities >= value, targets) for value in _GRID]
    overall = _best(np.stack([hits for hits, _ in counts]), np.stack([total for _, total in counts]), by_row=by_row)
    decisions = probabilities >= overall
    hits, total = _count(decisions, targets)
    own = np.full(targets.shape[1], overall)
    for label in range(targets.shape[1]):
        true, predicted = targets[:, label], decisions[:, label]
        other_hits, other_total = hits - (predicted & true), total - predicted
        by_value = probabilities[:, label] >= _GRID[:, None]  # (G, B)
        value = _best(other_hits + (by_value & true), other_total + by_value, by_row=by_row)
        changed = probabilities[:, label] >= value
        gain = _rows_f1(other_hits + (changed & true), other_total + changed) - _rows_f1(hits, total)
        if not by_row or gain.mean() > gain.std() / math.sqrt(len(gain)):
            own[label] = value
    return overall, own


def _best(hits: Counts, total: Counts, *, by_row: bool) -> float:
    """Average the best value of the grid over resamples of the rows (the middle one of equals); both (G, B)."""
    rng = np.random.default_rng(0)
    rows = hits.shape[1]
    by_value = _rows_f1(hits, total)
    best_values = []
    for _ in range(_RESAMPLES):
        weights = np.bincount(rng.integers(rows, size=rows), minlength=rows)
        scores = by_value @ weights / rows if by_row else _rows_f1(hits @ weights, total @ weights)
        best = np.flatnonzero(scores >= scores.max() - 1e-12)
        best_values.append(_GRID[best[len(best) // 2]])
    return float(np.mean(best_values))


def _fit_level(probabilities: Floats, targets: Bools, name: str, level: float) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the thresholds that reach a precision or recall: of all decisions together, and of each label (L)."""
    decisions = [probabilities >= value for value in _FINE_GRID]
    hits = np.stack([(predicted & targets).sum(axis=0) for predicted in decisions])  # (G, L)
    predicted = np.stack([predicted.sum(axis=0) for predicted in decisions])
    overall = _threshold_for(hits.sum(axis=1), predicted.sum(axis=1), int(targets.sum()), name, level)
    true = targets.sum(axis=0)
    own = [_threshold_for(hits[:, i], predicted[:, i], int(true[i]), name, level) for i in range(len(true))]
    return overall, np.asarray(own)


def _threshold_for(hits: Counts, predicted: Counts, true: int, name: str, level: float) -> float:
    """Return one threshold (see `fit_thresholds`) from the right and all positives at each value of the grid (G)."""
    if name == "recall":
        reached = np.flatnonzero(hits >= level * true)
        return float(_FINE_GRID[reached[-1] if len(reached) else 0])
    useful = np.flatnonzero(hits > 0)
    reached = useful[hits[useful] >= level * predicted[useful]]
    best = reached[:1] if len(reached) else useful[-1:]
    return float(_FINE_GRID[best[0]]) if len(best) else _FINE_GRID[-1]
