"""From logits to decisions and predictions, in numpy; training tunes its thresholds with the same functions."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .prediction import Prediction


def sigmoid(logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The logistic function, for logits of any size without overflow.

    Args:
        logits: finite numbers, any shape.

    Returns:
        float32 in [0, 1], the same shape.
    """
    values = np.asarray(logits, dtype=np.float32)
    small = np.exp(-np.abs(values))  # in (0, 1], and so both quotients below are exact at their end of the range
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def decide(
    probabilities: npt.NDArray[np.floating[Any]], thresholds: npt.ArrayLike, *, at_least_one: bool = False
) -> npt.NDArray[np.bool_]:
    """Which labels are predicted: those whose probability reaches their threshold.

    Args:
        probabilities: (B, L) in [0, 1].
        thresholds: (L,) in [0, 1]. They are compared as float64, so that no threshold is rounded.
        at_least_one: where no label of a row reaches its threshold, predict the most probable one (of equal ones the
            first).

    Returns:
        bool (B, L).
    """
    chosen = np.asarray(probabilities >= np.asarray(thresholds, dtype=np.float64), dtype=np.bool_)
    if at_least_one:
        empty = np.flatnonzero(~chosen.any(axis=1))
        chosen[empty, probabilities[empty].argmax(axis=1)] = True
    return chosen


def make_prediction(
    image: str | None,
    caption: str | None,
    model: str,
    labels: tuple[str, ...],
    probabilities: npt.NDArray[np.float32],
    chosen: npt.NDArray[np.bool_],
    top_k: int | None,
) -> Prediction:
    """Put a row of probabilities into words.

    Args:
        image: see `Prediction`.
        caption: same.
        model: same.
        labels: L names.
        probabilities: float32 (L,).
        chosen: bool (L,), which labels are predicted.
        top_k: keep only the k most probable in `probabilities`; None keeps all.
    """
    order = np.argsort(-probabilities, kind="stable")  # equal ones stay in the manifest's order
    return Prediction(
        image=image,
        caption=caption,
        labels=tuple(labels[index] for index in order if chosen[index]),
        probabilities={labels[index]: float(probabilities[index]) for index in order[:top_k]},
        model=model,
    )
