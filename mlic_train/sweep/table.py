"""Results of a sweep as a table, CSV or JSON; the best trial comes first."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .space import Value

STATES = ("complete", "pruned", "failed", "running", "waiting")
_MEASURES = ("train_loss", "val_loss", "val_samples_f1", "seconds")


@dataclass(frozen=True)
class Row:
    """One trial.

    The losses are those of the epoch whose weights were kept: per batch in training, over all rows of val. Of a
    complete trial, `val_samples_f1` is the calibrated model's; of a pruned one, that of its best epoch. `seconds` is
    the time of all processes that worked on it. `metrics` holds a complete trial's metrics by split and mode, if its
    run folder can be read.
    """

    trial: int
    state: str
    run: str
    parameters: Mapping[str, Value]
    train_loss: float | None = None
    val_loss: float | None = None
    val_samples_f1: float | None = None
    seconds: float | None = None
    message: str | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as data for JSON."""
        return {**vars(self), "parameters": dict(self.parameters)}


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Sort by state, complete trials first, then by samples F1, the highest first, then by number."""
    return sorted(rows, key=lambda row: (STATES.index(row.state), -(row.val_samples_f1 or 0.0), row.trial))


def as_table(rows: Sequence[Row], names: Sequence[str], command: str | None) -> str:
    """Return columns for a terminal; the best trial's command line stands below them."""
    header = ["trial", "state", *names, *_MEASURES]
    lines = [header]
    for row in rows:
        numbers = (_decimals(row.train_loss, 4), _decimals(row.val_loss, 4), _decimals(row.val_samples_f1, 4))
        values = (_short(row.parameters.get(name)) for name in names)
        lines.append([str(row.trial), row.state, *values, *numbers, _decimals(row.seconds, 1)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = "\n".join(
        "  ".join(cell.ljust(width) if column == 1 else cell.rjust(width) for column, (cell, width) in cells)
        for cells in (enumerate(zip(line, widths, strict=True)) for line in lines)
    )
    return text + ("\n" if command is None else f"\n\n{command}\n")


def as_csv(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Return one line per trial, with one column per parameter; numbers are not rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "state", *names, *_MEASURES, "message"])
    for row in rows:
        values = (row.parameters.get(name) for name in names)
        writer.writerow([row.trial, row.state, *values, *(getattr(row, name) for name in _MEASURES), row.message])
    return stream.getvalue()


def as_json(rows: Sequence[Row], study: str, command: str | None) -> str:
    """Return {"study", "trials": [...], "best": {"trial", "run", "val_samples_f1", "command"} or null}."""
    first = rows[0] if command is not None else None
    best = None
    if first is not None:
        best = {"trial": first.trial, "run": first.run, "val_samples_f1": first.val_samples_f1, "command": command}
    result = {"study": study, "trials": [row.to_dict() for row in rows], "best": best}
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


def _decimals(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _short(value: Value | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
