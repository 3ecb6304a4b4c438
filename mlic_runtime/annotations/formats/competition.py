"""The competition's files as published: quotes are not always escaped and captions contain line breaks."""

import re
from pathlib import Path

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_text
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError

from .format import Format, Row, Rows, clean_row

COLUMNS = ("ImageID", "Labels", "Caption")
_START = re.compile(r"^(?=\d+\.jpg,)", re.MULTILINE)
_LONE_QUOTE = re.compile(r'(?<!")"(?:"")*(?!")')


class Competition(Format):
    """The competition's CSV: the header ImageID,Labels,Caption, or without Labels, or without Caption.

    A record starts where a line begins with digits, `.jpg` and a comma; everything up to the next start belongs to it,
    line breaks included. Lines end in LF or CR LF; a lone CR is part of a caption. See `unquote` for quotes.
    As in every format, each run of whitespace in a caption, line breaks included, becomes one space.
    """

    name = "competition"
    title = "the competition's CSV"

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        text = read_text(file)
        first, _, body = text.partition("\n")
        header = [cell.strip() for cell in first.split(",")]
        if len(header) < 2 or header != [name for name in COLUMNS if name in header] or header[0] != "ImageID":
            raise DataError(f"{file}: found the header {first.strip()[:80]!r}; expected ImageID,Labels,Caption")
        before, *records = _START.split(body)
        if before.strip():
            found = before.strip()[:60]
            message = f"found {found!r} before the first record; expected a line such as '0.jpg,1,A caption'"
            yield Problem(file, None, "bad-row", message)
        for number, record in enumerate(records, start=1):
            yield _row(file, number, header, record)


def unquote(cell: str) -> str:
    """Remove the quotes around a cell, and make doubled quotes inside it single; any other cell stays as it is.

    With unescaped quotes it is unclear whether the first and the last one belong to the text. They do if the first lone
    quote inside closes a quotation (it follows a character and precedes none): `"Stop" is on the "sign"` stays as it
    is, but `"A "stop" sign"` becomes `A "stop" sign`.
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
        message = f"found {len(cells)} columns; expected {len(header)} ({','.join(header)})"
        return Problem(file, number, "bad-row", message)
    values = {name: unquote(cell.strip()) for name, cell in zip(header, cells, strict=True)}
    captions = [values["Caption"]] if "Caption" in values else []
    return clean_row(file, number, values["ImageID"], captions, values.get("Labels"))
