"""Results as text: the formats of `mlic-infer` for one picture, and for lists of models."""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import ListedModel
    from .prediction import Prediction

BATCH_FORMATS = ("jsonl", "csv", "submission")
LIST_SEPARATOR = ";"  # between labels in one cell: a name may hold spaces, and mlic-train reads such cells

# Valid inside JSON strings, yet terminals obey them, or readers of lines split at them, or UTF-8 has no place for them.
_JSON_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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


def csv_columns(labels: tuple[str, ...]) -> list[str]:
    """The header of predictions as CSV."""
    # The prefix keeps a label that is called "image" apart from the column of that name.
    return ["image", "caption", "model", "labels", *(f"p_{label}" for label in labels)]


def csv_cells(prediction: "Prediction", labels: tuple[str, ...]) -> list[object]:
    """A prediction in the columns of `csv_columns`."""
    probabilities = [prediction.probabilities.get(label, "") for label in labels]
    chosen = LIST_SEPARATOR.join(prediction.labels)
    return [prediction.image, prediction.caption, prediction.model, chosen, *probabilities]


def csv_line(cells: list[Any]) -> str:
    """A record of CSV, with its line end."""
    import csv  # here, because most predictions are shown otherwise
    import io

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


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


def to_json(value: dict[str, Any], indent: int | None) -> str:
    """JSON in UTF-8 that terminals and readers of lines can take; with its line end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _JSON_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def printable(text: str) -> str:
    """The text on one line, its control characters escaped: file names can hold line breaks and terminal codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def encode(text: str) -> bytes:
    """Data as UTF-8, whatever the locale says.

    A file name may hold bytes that are not UTF-8: Python keeps them as lone surrogates, which are written escaped.
    """
    return text.encode("utf-8", "backslashreplace")
