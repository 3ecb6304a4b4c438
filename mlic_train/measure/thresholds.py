"""Decision thresholds, one per label, fitted on the validation split only."""

import math

import numpy as np
import numpy.typing as npt

from mlic_train.config import threshold_goal

_GRID = np.round(np.arange(0.10, 0.901, 0.01), 2)  # (G,)
_FINE_GRID = np.round(np.arange(0.01, 0.991, 0.01), 2)  # for a precision or recall close to 1
_SHRINKAGE = 50.0  # positives at which a label's own optimum and the global threshold weigh the same
_RESAMPLES = 200

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.integer]
Decisions = npt.NDArray[np.bool_]


def samples_f1(decisions: Decisions, targets: Decisions) -> float:
    """Mean over the rows of F1 = 2 TP / (predicted + true); a row with neither counts as 1. Both bool (B, L)."""
    return float(_rows_f1(*_count(decisions, targets)).mean())


def micro_f1(decisions: Decisions, targets: Decisions) -> float:
    """F1 = 2 TP / (predicted + true) of all decisions together; 1 where there is neither. Both bool (B, L)."""
    hits, total = _count(decisions, targets)
    return float(_rows_f1(hits.sum(), total.sum()))


def fit_thresholds(probabilities: Floats, targets: Decisions, goal: str = "samples_f1") -> npt.NDArray[np.float64]:
    """Thresholds (L) for a goal.

    First the best global threshold g, then the best threshold t of each label (for F1 with the others at g). F1 is
    flat around its optimum, so "best" is the mean of the optima of 200 bootstrap resamples of the rows (Breiman 1996,
    "Bagging Predictors"): the optimum of the rows alone jumps between far values that are equally good. For samples F1
    t must gain more than one standard error of the gain over the rows, else it is g (the one-standard-error rule of
    Breiman et al. 1984, "Classification and Regression Trees"). A label's own threshold is shrunk towards g by its
    number of positives n: g + n / (n + 50) * (t - g), because the optimum of a label with few positives is mostly
    noise.

    Of "precision=P" t is the lowest threshold from 0.01 to 0.99 that reaches P on these rows; where none does, the
    highest that still finds a positive. Of "recall=R" it is the highest that reaches R; where none does, 0.01. Shrunk,
    a label with few positives may miss its goal on these very rows. Of "fixed=T" every threshold is T: nothing is
    fitted.

    Args:
        probabilities: float (B, L) in 0..1.
        targets: bool (B, L); rows without any label are left out.
        goal: "samples_f1", "micro_f1", "precision=P", "recall=R" or "fixed=T".

    Raises:
        ConfigError: another goal.
    """
    name, wanted = threshold_goal(goal)
    if name == "fixed":
        return np.full(targets.shape[1], wanted)
    rows = targets.any(axis=1)
    probabilities, targets = probabilities[rows], targets[rows]
    if len(targets) == 0:
        return np.full(probabilities.shape[1], 0.5)
    if wanted is None:
        overall, own = _for_f1(probabilities, targets, by_row=name == "samples_f1")
    else:
        overall, own = _for_level(probabilities, targets, name, wanted)
    positives = targets.sum(axis=0)
    fitted: npt.NDArray[np.float64] = overall + positives / (positives + _SHRINKAGE) * (own - overall)
    return np.round(fitted, 4)


def _count(decisions: Decisions, targets: Decisions) -> tuple[Counts, Counts]:
    """Of every row (B): labels that are predicted and true, and predicted + true; both bool (B, L)."""
    return (decisions & targets).sum(axis=1), decisions.sum(axis=1) + targets.sum(axis=1)


def _rows_f1(hits: Counts, total: Counts) -> npt.NDArray[np.float64]:
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


def _for_f1(probabilities: Floats, targets: Decisions, *, by_row: bool) -> tuple[float, npt.NDArray[np.float64]]:
    """The best global threshold, and of each label the best with the others there (L)."""
    counts = [_count(probabilities >= value, targets) for value in _GRID]
    overall = _best(np.stack([hits for hits, _ in counts]), np.stack([total for _, total in counts]), by_row=by_row)
    decisions = probabilities >= overall
    hits, total = _count(decisions, targets)
    own = np.full(targets.shape[1], overall)
    for label in range(targets.shape[1]):
        true, given = targets[:, label], decisions[:, label]
        other_hits, other_total = hits - (given & true), total - given
        tried = probabilities[:, label] >= _GRID[:, None]  # (G, B)
        value = _best(other_hits + (tried & true), other_total + tried, by_row=by_row)
        moved = probabilities[:, label] >= value
        gain = _rows_f1(other_hits + (moved & true), other_total + moved) - _rows_f1(hits, total)
        if not by_row or gain.mean() > gain.std() / math.sqrt(len(gain)):
            own[label] = value
    return overall, own


def _best(hits: Counts, total: Counts, *, by_row: bool) -> float:
    """The mean over resamples of the rows of the grid's best value, of equals the middle one; both (G, B)."""
    rng = np.random.default_rng(0)
    rows = hits.shape[1]
    by_value = _rows_f1(hits, total)
    found = []
    for _ in range(_RESAMPLES):
        weights = np.bincount(rng.integers(rows, size=rows), minlength=rows)
        scores = by_value @ weights / rows if by_row else _rows_f1(hits @ weights, total @ weights)
        best = np.flatnonzero(scores >= scores.max() - 1e-12)
        found.append(_GRID[best[len(best) // 2]])
    return float(np.mean(found))


def _for_level(
    probabilities: Floats, targets: Decisions, name: str, wanted: float
) -> tuple[float, npt.NDArray[np.float64]]:
    """The thresholds that reach a precision or recall: of all decisions together, and of each label (L)."""
    decisions = [probabilities >= value for value in _FINE_GRID]
    hits = np.stack([(given & targets).sum(axis=0) for given in decisions])  # (G, L)
    given = np.stack([given.sum(axis=0) for given in decisions])
    overall = _reaching(hits.sum(axis=1), given.sum(axis=1), int(targets.sum()), name, wanted)
    true = targets.sum(axis=0)
    own = [_reaching(hits[:, i], given[:, i], int(true[i]), name, wanted) for i in range(len(true))]
    return overall, np.asarray(own)


def _reaching(hits: Counts, given: Counts, true: int, name: str, wanted: float) -> float:
    """See `fit_thresholds`; `hits` and `given` (G) are the right and all decisions at each value of the grid."""
    if name == "recall":
        reached = np.flatnonzero(hits >= wanted * true)
        return float(_FINE_GRID[reached[-1] if len(reached) else 0])
    found = np.flatnonzero(hits > 0)
    reached = found[hits[found] >= wanted * given[found]]
    useful = reached[:1] if len(reached) else found[-1:]
    return float(_FINE_GRID[useful[0]]) if len(useful) else _FINE_GRID[-1]
