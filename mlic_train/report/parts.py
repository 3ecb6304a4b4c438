"""What the reports on runs share: tables of metrics and of training, and the way into a file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlic_runtime.base.files import os_error_reason
from mlic_train.errors import TrainError

from .html import table, write_page
from .labels import Number

SCORES = {"samples_f1": "samples F1", "micro_f1": "micro F1", "macro_f1": "macro F1", "map": "mAP"}
_HISTORY = {
    "train_loss": "train loss",
    "val_loss": "val loss",
    **{f"val_{name}": f"val {title}" for name, title in SCORES.items()},
}

METRICS_NOTE = (
    "In brackets: 95 % bootstrap intervals over the rows. Rows with at least one label are scored; negatives are rows "
    "with none. ECE: expected calibration error over all decisions."
)


def metrics_table(first: Sequence[str], rows: Sequence[tuple[Sequence[object], Mapping[str, float]]]) -> str:
    """A table of metrics.

    Args:
        first: what the first columns are called.
        rows: the cells of these columns, and the metrics (see `collect.report`).
    """
    header = [*first, "rows", *SCORES.values(), "ECE"]
    negatives = any("negatives" in metrics for _, metrics in rows)
    if negatives:
        header += ["negatives", "false labels per negative"]
    cells = []
    for names, metrics in rows:
        line = [*names, metrics.get("rows", 0), *(score(metrics, name) for name in SCORES), metrics.get("ece")]
        if negatives:
            line += [metrics.get("negatives", 0), metrics.get("false_labels_per_negative")]
        cells.append(line)
    return table(header, cells)


def score(metrics: Mapping[str, float], name: str) -> Number | None:
    """A metric with its interval, None where it is not known."""
    if name not in metrics:
        return None
    return Number(metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))


def history_table(history: Sequence[Mapping[str, float]]) -> str:
    """One row per epoch."""
    rows = [
        [int(row["epoch"]), *(row.get(name) for name in _HISTORY), f"{row['seconds']:.1f}" if "seconds" in row else ""]
        for row in history
    ]
    return table(["epoch", *_HISTORY.values(), "seconds"], rows)


def check_writable(output: Path) -> None:
    """Refuse a file that could not be written, before the work and not after it.

    Raises:
        TrainError: a folder on its way is a file, or may not be written to.
    """
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise TrainError(f"{output}: cannot be written: {folder} is no folder to write to; choose another --output")


def save_page(output: Path, document: str) -> None:
    """Write the document.

    Raises:
        TrainError: the file cannot be written.
    """
    try:
        write_page(output, document)
    except OSError as error:
        raise TrainError(f"{output}: cannot be written: {os_error_reason(error)}; choose another --output") from None
