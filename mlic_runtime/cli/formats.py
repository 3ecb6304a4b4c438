"""The formats of `mlic-infer` for one picture, and for lists of models."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlic_runtime.base.text import LIST_SEPARATOR, csv_line, printable, to_json

if TYPE_CHECKING:
    from mlic_runtime.package.catalog import ListedModel
    from mlic_runtime.predict.prediction import Prediction

LABEL_STUDIO = "label-studio"
BATCH_FORMATS = ("jsonl", "csv", "submission", LABEL_STUDIO)


def table_lines(columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a table.

    Args:
        columns: {title: format of its cells}; "" for text, which is aligned to the left.
        rows: a cell for each column.
    """
    cells = [[f"{cell:{spec}}" for cell, spec in zip(row, columns.values(), strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if spec else cell.ljust(width)
            for cell, width, spec in zip(row, widths, columns.values(), strict=True)
        ).rstrip()
        for row in [list(columns), *cells]
    ]


def _infer_table(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    chosen = set(prediction.labels)
    image = "" if prediction.image is None else f"image    {printable(prediction.image)}\n"
    caption = "" if prediction.caption is None else f"caption  {printable(prediction.caption)}\n"
    lines = table_lines(
        {"label": "", "probability": "11.4f", "predicted": ""},
        [(label, number, "yes" if label in chosen else "") for label, number in prediction.probabilities.items()],
    )
    return f"{image}{caption}model    {prediction.model}\n\n" + "\n".join(lines) + "\n"


def _infer_csv(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    from mlic_runtime.batch.formats import csv_cells, csv_columns  # here, because it loads numpy

    return csv_line(csv_columns(labels)) + csv_line(csv_cells(prediction, labels))


FORMATS: dict[str, Callable[["Prediction", tuple[str, ...]], str]] = {
    "table": _infer_table,
    "json": lambda prediction, labels: to_json(prediction.to_dict(), indent=2),
    "jsonl": lambda prediction, labels: to_json(prediction.to_dict(), indent=None),
    "csv": _infer_csv,
}


def _models_table(models: "list[ListedModel]") -> str:
    rows = []
    for model in models:
        size = "" if model.bytes is None else str(model.bytes)
        path = model.path or "" if model.error is None else f"cannot be used: {model.error}"
        row = (model.name, model.version or "", ",".join(model.precisions), size, model.source, path)
        rows.append([printable(cell) for cell in row])
    columns = {"name": "", "version": "", "precisions": "", "bytes": ">", "from": "", "path": ""}
    return "".join(f"{line}\n" for line in table_lines(columns, rows))


def _models_csv(models: "list[ListedModel]") -> str:
    columns = ("name", "source", "version", "precisions", "bytes", "path", "error")
    rows = [{**model.to_dict(), "precisions": LIST_SEPARATOR.join(model.precisions)} for model in models]
    return csv_line(list(columns)) + "".join(csv_line([row[column] for column in columns]) for row in rows)


MODEL_FORMATS: dict[str, Callable[["list[ListedModel]"], str]] = {
    "table": _models_table,
    "json": lambda models: to_json({"models": [model.to_dict() for model in models]}, indent=2),
    "jsonl": lambda models: "".join(to_json(model.to_dict(), indent=None) for model in models),
    "csv": _models_csv,
}
