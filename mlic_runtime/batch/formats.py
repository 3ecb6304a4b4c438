"""The results of many rows as text: the formats of `mlic-infer --input`."""

from typing import Protocol

from mlic_runtime.base.text import LIST_SEPARATOR, csv_line, to_json
from mlic_runtime.errors import InputError
from mlic_runtime.predict.csv_columns import csv_cells, csv_columns
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.rows.reader import RowError


class BatchFormat(Protocol):
    """How the results of many rows become one file: a header, then a record for each."""

    header: str

    def record(self, result: Prediction | RowError) -> str:
        """The record of one result, its line end included."""


class JsonLines:
    """One JSON object a line: a prediction, or `{"image", "error": {"type", "message"}}`."""

    header = ""

    def record(self, result: Prediction | RowError) -> str:
        """See `BatchFormat`."""
        return to_json(result.to_dict(), indent=None)


class Csv:
    """The columns of a single prediction, and behind them `error`, which is empty unless the row failed."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self.header = csv_line([*csv_columns(labels), "error"])

    def record(self, result: Prediction | RowError) -> str:
        """See `BatchFormat`."""
        if isinstance(result, RowError):
            error = result.to_dict()["error"]
            cells = [result.image, *[""] * (3 + len(self._labels))]
            return csv_line([*cells, f"{error['type']}: {error['message']}"])
        return csv_line([*csv_cells(result, self._labels), ""])


class Submission:
    """The competition's format: `ImageID,Labels`, the labels in the order of the model.

    With ids they are separated by spaces, as in the competition's files; names are separated by LIST_SEPARATOR. A row
    that failed has no labels.

    Args:
        labels: the model's labels.
        ids: an id for each label, or None to write the names.

    Raises:
        InputError: a name holds LIST_SEPARATOR.
    """

    header = "ImageID,Labels\n"

    def __init__(self, labels: tuple[str, ...], ids: tuple[str, ...] | None) -> None:
        broken = [label for label in labels if LIST_SEPARATOR in label]
        if ids is None and broken:
            raise InputError(
                f"the label {broken[0]!r} holds {LIST_SEPARATOR!r}, which separates labels: give label ids"
            )
        self._written = dict(zip(labels, labels if ids is None else ids, strict=True))
        self._separator = LIST_SEPARATOR if ids is None else " "

    def record(self, result: Prediction | RowError) -> str:
        """See `BatchFormat`."""
        chosen = frozenset() if isinstance(result, RowError) else frozenset(result.labels)
        cell = self._separator.join(written for label, written in self._written.items() if label in chosen)
        return csv_line([result.image, cell])
