"""The rows whose decisions are nearest to changing, for people to label: uncertainty sampling."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.rows.reader import RowError

# A float32 cannot say which logit beyond 17 a probability came from; so all of them count as this one.
_LEAST = 2.0**-24


class Margins:
    """How far a prediction is from another decision: for each label |logit(p) - logit(t)|, of which the least counts.

    p is the probability of the label, t its threshold, and logit(x) = log(x / (1 - x)). On that scale a probability of
    0.02 is as far from a threshold of 0.01 as 0.67 from 0.5. A label with a threshold of 0 or 1 is never in doubt.

    Taking what is nearest to the boundary is uncertainty sampling (Lewis and Gale, "A sequential algorithm for training
    text classifiers", SIGIR 1994); the least distance over all labels is its binary minimum for several labels
    (Brinker, "On active learning in multi-label classification", 2006).

    Args:
        labels: the L labels of the model.
        thresholds: (L,) in [0, 1].
    """

    def __init__(self, labels: tuple[str, ...], thresholds: npt.ArrayLike) -> None:
        self._labels = labels
        values = np.asarray(thresholds, dtype=np.float64)
        self._doubtful = (values > 0) & (values < 1)
        self._boundaries = _logit(values)

    def margin(self, prediction: Prediction) -> float:
        """Return the least distance, >= 0; infinity where no label can be in doubt.

        The prediction must have the probabilities of all labels (`top_k=None`).
        """
        found = (prediction.probabilities[label] for label in self._labels)
        probabilities = np.fromiter(found, dtype=np.float64, count=len(self._labels))
        distances = np.abs(_logit(probabilities) - self._boundaries)
        return float(distances.min(where=self._doubtful, initial=np.inf))


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A row that was chosen.

    Attributes:
        number: of the row, from 1 on.
        prediction: with the probabilities of all labels.
        margin: see `Margins`.
    """

    number: int
    prediction: Prediction
    margin: float

    @property
    def confidence(self) -> float:
        """Return the probability of the least certain decision if every threshold were 0.5, in [0.5, 1]."""
        return float(1 / (1 + np.exp(-self.margin)))


@dataclass(frozen=True, slots=True)
class Choice:
    """What `choose_uncertain` found: the rows that it chose, how many it read, and how many of these failed."""

    chosen: list[Uncertain]
    rows: int
    errors: int


def choose_uncertain(
    results: Iterable[Prediction | RowError],
    margins: Margins,
    count: int,
    *,
    on_error: Literal["record", "stop"] = "record",
    report: Callable[[int, RowError], object] = lambda number, error: None,
    tick: Callable[[int, int], object] = lambda rows, errors: None,
) -> Choice:
    """Choose the rows with the least margins, the least first; of equal ones those that come first.

    Only `count` rows are held, however many there are. A row that failed is never chosen.

    Args:
        results: of all rows, in their order.
        margins: of the model.
        count: how many rows, >= 1.
        on_error: "stop" raises the error of the first row that failed.
        report: called with the number of each row that failed, from 1 on, and its error.
        tick: called after each row with the numbers of rows and of errors so far.

    Raises:
        InputError: with on_error="stop", a row that failed; its message begins with the row's number.
    """
    # The root of the heap is what the next better row replaces: the largest margin, and of equal ones the last row.
    heap: list[tuple[float, int, Prediction]] = []
    rows = errors = 0
    for rows, result in enumerate(results, start=1):
        if isinstance(result, RowError):
            if on_error == "stop":
                raise type(result.error)(f"row {rows}: {result.error}")
            report(rows, result)
            errors += 1
        else:
            entry = (-margins.margin(result), -rows, result)
            (heapq.heappush if len(heap) < count else heapq.heappushpop)(heap, entry)
        tick(rows, errors)
    return Choice(list(_in_order(heap)), rows, errors)


def _in_order(heap: list[tuple[float, int, Prediction]]) -> Iterator[Uncertain]:
    for margin, number, prediction in sorted(heap, key=lambda entry: (-entry[0], -entry[1])):
        yield Uncertain(-number, prediction, -margin)


def _logit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return log(x / (1 - x)) of values in [0, 1], finite at both ends."""
    inside = np.clip(values, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(inside / (1 - inside)), dtype=np.float64)
