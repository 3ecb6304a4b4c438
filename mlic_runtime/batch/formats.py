"""Results of many rows as text: the formats of `mlic-infer --input`."""

from typing import Protocol

from mlic_runtime.base.override import override
from mlic_runtime.base.text import LIST_SEPARATOR, csv_line, to_json
from mlic_runtime.errors import InputError
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.rows.reader import RowError


class BatchFormat(Protocol):
    """A way to write the results of many rows into one file: a header, then a record for each result."""

    header: str

    def record(self, result: Prediction | RowError) -> str:
        """Return the record of one result, with its line end."""


class JsonLines(BatchFormat):
    """One JSON object per line: a prediction, or `{"image", "error": {"type", "message"}}`."""

    header = ""

    @override
    def record(self, result: Prediction | RowError) -> str:
        return to_json(result.to_dict(), indent=None)


def csv_columns(labels: tuple[str, ...]) -> list[str]:
    """Return the header of predictions as CSV."""
    # The prefix keeps a label with the name "image" apart from the column of that name.
    return ["image", "caption", "model", "labels", *(f"p_{label}" for label in labels)]


def csv_cells(prediction: Prediction, labels: tuple[str, ...]) -> list[object]:
    """Return a prediction in the columns of `csv_columns`."""
    probabilities = [prediction.probabilities.get(label, "") for label in labels]
    predicted = LIST_SEPARATOR.join(prediction.labels)
    return [prediction.image, prediction.caption, prediction.model, predicted, *probabilities]


class Csv(BatchFormat):
    """The columns of `csv_columns`, then `error`, which is empty unless the row failed."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self.header = csv_line([*csv_columns(labels), "error"])

    @override
    def record(self, result: Prediction | RowError) -> str:
        if isinstance(result, RowError):
            error = result.to_dict()["error"]
            cells = [result.image, *[""] * (3 + len(self._labels))]
            return csv_line([*cells, f"{error['type']}: {error['message']}"])
        return csv_line([*csv_cells(result, self._labels), ""])


class Submission(BatchFormat):
    """The competition's format: `ImageID,Labels`, the labels in the order of the model.

    Ids are separated by spaces, as in the competition's files, and names by LIST_SEPARATOR. A row that failed has no
    labels.

    Args:
        labels: the model's labels.
        ids: one id per label, or None to write the names.

    Raises:
        InputError: `ids` is None, and a label contains LIST_SEPARATOR.
    """

    header = "ImageID,Labels\n"

    def __init__(self, labels: tuple[str, ...], ids: tuple[str, ...] | None) -> None:
        broken = [label for label in labels if LIST_SEPARATOR in label]
        if ids is None and broken:
            raise InputError(
                f"the label {broken[0]!r} contains {LIST_SEPARATOR!r}, which separates labels: give label ids"
            )
        self._written = dict(zip(labels, labels if ids is None else ids, strict=True))
        self._separator = LIST_SEPARATOR if ids is None else " "

    @override
    def record(self, result: Prediction | RowError) -> str:
        chosen = frozenset() if isinstance(result, RowError) else frozenset(result.labels)
        cell = self._separator.join(written for label, written in self._written.items() if label in chosen)
        return csv_line([result.image, cell])
