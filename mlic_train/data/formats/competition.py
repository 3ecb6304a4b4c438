"""The competition's files as published: quotes are not always escaped and captions contain line breaks."""

import re
from pathlib import Path

from mlic_train.data.problems import Problem
from mlic_train.data.source.text import Row, Rows, read_text
from mlic_train.errors import DataError

from .csv_table import COLUMNS, row_of

_START = re.compile(r"^(?=\d+\.jpg,)", re.MULTILINE)
_LONE_QUOTE = re.compile(r'(?<!")"(?:"")*(?!")')


def read_rows(file: Path) -> Rows:
    """Read a file with the header ImageID,Labels,Caption (or without Labels, or without Caption).

    A record starts where a line begins with digits, `.jpg` and a comma; everything up to the next start belongs to it,
    line breaks included. Lines end in LF or CR LF; a lone CR is part of a caption. See `unquote` for quotes.
    As in every format, each run of whitespace in a caption, line breaks included, becomes one space.

    Raises:
        DataError: the file or its header cannot be used.
    """
    text = read_text(file)
    first, _, body = text.partition("\n")
    header = [cell.strip() for cell in first.split(",")]
    if len(header) < 2 or header != [name for name in COLUMNS if name in header] or header[0] != "ImageID":
        raise DataError(f"{file}: found the header {first.strip()[:80]!r}; expected ImageID,Labels,Caption")
    before, *records = _START.split(body)
    if before.strip():
        message = f"found {before.strip()[:60]!r} before the first record; expected a line such as '0.jpg,1,A caption'"
        yield Problem(file, None, "bad-row", message)
    for number, record in enumerate(records, start=1):
        yield _row(file, number, header, record)


def unquote(cell: str) -> str:
    """Take the quotes around a cell off and make doubled quotes inside it single; any other cell stays as it is.

    Unescaped quotes leave open whether the first and the last one belong to the text. If the first lone quote inside
    closes a quotation (it follows a character and precedes none), they do: `"Stop" is on the "sign"` stays as it is,
    while `"A "stop" sign"` becomes `A "stop" sign`.
    """
    if len(cell) < 2 or not (cell.startswith('"') and cell.endswith('"')):
        return cell
    inside = cell[1:-1]
    lone = _LONE_QUOTE.search(inside)
    if lone is not None:
        before, after = inside[: lone.start()][-1:], inside[lone.end() :][:1]
        if before.strip() and not after.isalnum():
            return cell
    return inside.replace('""', '"')


def _row(file: Path, number: int, header: list[str], record: str) -> Row | Problem:
    cells = record.strip().split(",", len(header) - 1)
    if len(cells) != len(header):
        return Problem(
            file, number, "bad-row", f"found {len(cells)} columns; expected {len(header)} ({','.join(header)})"
        )
    return row_of(file, number, {name: unquote(cell.strip()) for name, cell in zip(header, cells, strict=True)})
