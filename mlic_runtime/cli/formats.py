"""The formats of `mlic-infer` for one picture, and for lists of models."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlic_runtime.base.text import LIST_SEPARATOR, csv_line, printable, to_json
from mlic_runtime.predict.csv_columns import csv_cells, csv_columns

if TYPE_CHECKING:
    from mlic_runtime.package.catalog import ListedModel
    from mlic_runtime.predict.prediction import Prediction

BATCH_FORMATS = ("jsonl", "csv", "submission")


def _infer_table(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    chosen = set(prediction.labels)
    width = max(len("label"), *(len(label) for label in prediction.probabilities))
    rows = [f"{'label':{width}}  probability  predicted"]
    for label, probability in prediction.probabilities.items():
        rows.append(f"{label:{width}}  {probability:11.4f}  {'yes' if label in chosen else ''}".rstrip())
    image = "" if prediction.image is None else f"image    {printable(prediction.image)}\n"
    caption = "" if prediction.caption is None else f"caption  {printable(prediction.caption)}\n"
    return f"{image}{caption}model    {prediction.model}\n\n" + "\n".join(rows) + "\n"


def _infer_json(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    return to_json(prediction.to_dict(), indent=2)


def _infer_jsonl(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    return to_json(prediction.to_dict(), indent=None)


def _infer_csv(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    return csv_line(csv_columns(labels)) + csv_line(csv_cells(prediction, labels))


FORMATS: dict[str, Callable[["Prediction", tuple[str, ...]], str]] = {
    "table": _infer_table,
    "json": _infer_json,
    "jsonl": _infer_jsonl,
    "csv": _infer_csv,
}


def _models_table(models: "list[ListedModel]") -> str:
    rows: list[tuple[str, ...]] = [("name", "version", "precisions", "bytes", "from", "path")]
    for model in models:
        size = "" if model.bytes is None else str(model.bytes)
        last = model.path or "" if model.error is None else f"cannot be used: {model.error}"
        row = (model.name, model.version or "", ",".join(model.precisions), size, model.source, last)
        rows.append(tuple(map(printable, row)))
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, version, precisions, size, source, last in rows:
        cells = [f"{name:{widths[0]}}", f"{version:{widths[1]}}", f"{precisions:{widths[2]}}", f"{size:>{widths[3]}}"]
        lines.append("  ".join([*cells, f"{source:{widths[4]}}", last]) + "\n")
    return "".join(lines)


def _models_json(models: "list[ListedModel]") -> str:
    return to_json({"models": [model.to_dict() for model in models]}, indent=2)


def _models_jsonl(models: "list[ListedModel]") -> str:
    return "".join(to_json(model.to_dict(), indent=None) for model in models)


def _models_csv(models: "list[ListedModel]") -> str:
    columns = ("name", "source", "version", "precisions", "bytes", "path", "error")
    rows = [{**model.to_dict(), "precisions": LIST_SEPARATOR.join(model.precisions)} for model in models]
    return csv_line(list(columns)) + "".join(csv_line([row[column] for column in columns]) for row in rows)


MODEL_FORMATS: dict[str, Callable[["list[ListedModel]"], str]] = {
    "table": _models_table,
    "json": _models_json,
    "jsonl": _models_jsonl,
    "csv": _models_csv,
}
