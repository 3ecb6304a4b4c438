"""Results as Arrow columns: what `--engine ray` writes, and what `RayPredictor` adds to a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.rows.reader import RowError

if TYPE_CHECKING:
    import pyarrow

RESULT_COLUMNS = ("model", "labels", "probabilities", "error_type", "error_message")


def result_fields(labels: Sequence[str]) -> "list[pyarrow.Field]":
    """Return the names and types of RESULT_COLUMNS.

    The column `labels` holds the predicted labels, most probable first. `probabilities` has a field for each label of
    the model, in the order of its manifest; one that `top_k` left out is null. In a row that failed, everything but
    the error is null; in the other rows, the error is.
    """
    import pyarrow as pa

    types = (
        pa.string(),
        pa.list_(pa.string()),
        pa.struct([pa.field(label, pa.float32()) for label in labels]),
        pa.string(),
        pa.string(),
    )
    return [pa.field(name, kind) for name, kind in zip(RESULT_COLUMNS, types, strict=True)]


def result_columns(results: Sequence[Prediction | RowError], labels: Sequence[str]) -> "list[pyarrow.Array]":
    """Return RESULT_COLUMNS, each as long as `results`."""
    import pyarrow as pa

    rows = [_failed(result) if isinstance(result, RowError) else _predicted(result, labels) for result in results]
    return [
        pa.array([row[index] for row in rows], type=field.type) for index, field in enumerate(result_fields(labels))
    ]


def result_table(results: Sequence[Prediction | RowError], labels: Sequence[str], start: int) -> "pyarrow.Table":
    """Return the content of a result file: `row` (number, from 1 on), `image`, `caption` and RESULT_COLUMNS.

    Args:
        results: of consecutive rows.
        labels: of the model.
        start: how many rows come before them.
    """
    import pyarrow as pa

    captions = [result.caption if isinstance(result, Prediction) else None for result in results]
    columns = [
        pa.array(range(start + 1, start + 1 + len(results)), type=pa.int64()),
        pa.array([writable(result.image) for result in results], type=pa.string()),
        pa.array([writable(caption) for caption in captions], type=pa.string()),
    ]
    fields = [pa.field(name, column.type) for name, column in zip(("row", "image", "caption"), columns, strict=True)]
    schema = pa.schema(fields + result_fields(labels))
    return pa.Table.from_arrays([*columns, *result_columns(results, labels)], schema=schema)


def writable(text: str | None) -> str | None:
    """Return the text with what is not UTF-8 escaped: a file name may hold such bytes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _predicted(result: Prediction, labels: Sequence[str]) -> tuple[Any, ...]:
    probabilities = {label: result.probabilities.get(label) for label in labels}
    return result.model, list(result.labels), probabilities, None, None


def _failed(result: RowError) -> tuple[Any, ...]:
    error = result.error.to_dict()
    return None, None, None, error["type"], writable(error["message"])
