"""Decision thresholds, one per label, fitted on the validation split only."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .config import threshold_goal

_GRID = np.round(np.arange(0.10, 0.901, 0.01), 2)
_FINE_GRID = np.round(np.arange(0.01, 0.991, 0.01), 2)  # for a precision or recall close to 1
_SHRINKAGE = 50.0  # positives at which a label's own optimum and the global threshold weigh the same

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.integer]


def rows_f1(decisions: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """F1 = 2 TP / (predicted + true) of every row (B); a row with neither counts as 1. Both bool (B, L)."""
    hits = (decisions & targets).sum(axis=1)
    total = decisions.sum(axis=1) + targets.sum(axis=1)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


def samples_f1(decisions: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> float:
    """Mean of `rows_f1`."""
    return float(rows_f1(decisions, targets).mean())


def micro_f1(decisions: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> float:
    """F1 = 2 TP / (predicted + true) of all decisions together; 1 where there is neither. Both bool (B, L)."""
    total = int(decisions.sum() + targets.sum())
    return 2 * int((decisions & targets).sum()) / total if total else 1.0


def fit_thresholds(
    probabilities: Floats, targets: npt.NDArray[np.bool_], goal: str = "samples_f1"
) -> npt.NDArray[np.float64]:
    """Thresholds (L) for a goal.

    First the best global threshold g, then the best threshold t of each label (for F1 with the others at g). For
    samples F1 t must gain more than one standard error of the gain over the rows, else it is g (the one-standard-error
    rule of Breiman et al. 1984, "Classification and Regression Trees"). A label's own threshold is shrunk towards g by
    its number of positives n: g + n / (n + 50) * (t - g), because the optimum of a label with few positives is mostly
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
        overall, own = _for_f1(probabilities, targets, samples_f1 if name == "samples_f1" else micro_f1)
    else:
        overall, own = _for_level(probabilities, targets, name, wanted)
    positives = targets.sum(axis=0)
    fitted: npt.NDArray[np.float64] = overall + positives / (positives + _SHRINKAGE) * (own - overall)
    return np.round(fitted, 4)


def _for_f1(
    probabilities: Floats,
    targets: npt.NDArray[np.bool_],
    score: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], float],
) -> tuple[float, npt.NDArray[np.float64]]:
    """The best global threshold, and of each label the best with the others there (L)."""
    overall = _best([score(probabilities >= value, targets) for value in _GRID])
    decisions = probabilities >= overall
    own = np.full(targets.shape[1], overall)
    for label in range(targets.shape[1]):
        scores = []
        for value in _GRID:
            changed = decisions.copy()
            changed[:, label] = probabilities[:, label] >= value
            scores.append(score(changed, targets))
        own[label] = _best(scores)
        if score is samples_f1 and not _is_clear(probabilities, targets, overall, label, own[label]):
            own[label] = overall
    return overall, own


def _is_clear(probabilities: Floats, targets: npt.NDArray[np.bool_], overall: float, label: int, value: float) -> bool:
    """Does this threshold of `label` gain more than one standard error of the gain over the rows?"""
    decisions = probabilities >= overall
    changed = decisions.copy()
    changed[:, label] = probabilities[:, label] >= value
    gain = rows_f1(changed, targets) - rows_f1(decisions, targets)
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))


def _best(scores: list[float]) -> float:
    """The middle of the grid values that reach the best score: the least fragile of equals."""
    best = np.flatnonzero(np.asarray(scores) >= max(scores) - 1e-12)
    return float(_GRID[best[len(best) // 2]])


def _for_level(
    probabilities: Floats, targets: npt.NDArray[np.bool_], name: str, wanted: float
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
