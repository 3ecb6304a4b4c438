"""What `mlic-train` prints at its end: the metrics, where the run is, and the next two commands."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from mlic_train.config import ModelConfig
from mlic_train.data import Record
from mlic_train.data.splits import Splits
from mlic_train.runs.find import default_package

_METRICS = {
    "rows": "rows",
    "samples_f1": "samples F1",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "map": "mAP",
    "false_labels_per_negative": "false labels per empty row",
}
_MODES = {"": "both", "-picture-only": "picture only", "-caption-only": "caption only"}
_LONGEST_CAPTION = 100  # characters of a caption in a command line


def metrics_table(metrics: Mapping[str, Mapping[str, float]], *, reads_captions: bool) -> str:
    """Return the metrics by split and mode, one row each. A column that no row has a value for is left out.

    Args:
        metrics: by split and mode: {"val": ..., "val-picture-only": ..., "test": ...}.
        reads_captions: False for a model that sees the picture only.
    """
    names = [name for name in _METRICS if any(name in found for found in metrics.values())]
    rows = [["split", "mode", *(_METRICS[name] for name in names)]]
    for split in ("val", "test"):
        for suffix, mode in _MODES.items():
            found = metrics.get(split + suffix)
            if found is not None:
                cells = (_cell(found[name]) if name in found else "" for name in names)
                rows.append([split, mode if reads_captions else "picture", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) if index < 2 else cell.rjust(width) for index, (cell, width) in enumerate(line))
        for line in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def next_commands(run: Path, model: ModelConfig, splits: Splits) -> list[str]:
    """Return the command lines that export the run and predict with the package, to be typed as they are.

    The picture and its caption are a row of test, or of val; without a caption that can be typed, the picture alone.
    Where no row's picture is a file of its own, as in data of captions alone, all rows of the file are predicted.
    PICTURE stands where there is no such file either.

    Args:
        run: the run folder.
        model: of the run.
        splits: the data.
    """
    records = (splits.test or splits.val).records
    typed = [found for record in records if (found := _typed(record, reads_captions=model.reads_captions))]
    file = next((record.file for record in records if record.file.is_file()), None)
    # The longest is the first of those that have both.
    arguments = max(typed, key=len, default=["PICTURE"] if file is None else ["--input", str(file)])
    return [
        shlex.join(["mlic-export", "--run", str(run)]),
        shlex.join(["mlic-infer", *arguments, "--model", str(default_package(run))]),
    ]


def _typed(record: Record, *, reads_captions: bool) -> list[str]:
    """Return the picture and the caption of a row as arguments; nothing where the picture cannot be typed."""
    if not isinstance(record.image, Path) or not _is_plain(str(record.image)):
        return []
    caption = record.captions[0] if record.captions and reads_captions else ""
    typed = bool(caption) and _is_plain(caption) and len(caption) <= _LONGEST_CAPTION
    return [str(record.image), *([caption] if typed else [])]


def _is_plain(text: str) -> bool:
    """Return whether a text can be an argument: it has no control characters, and is not taken for an option."""
    return text.isprintable() and not text.startswith("-")


def _cell(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and value > 1 else f"{value:.4f}"
