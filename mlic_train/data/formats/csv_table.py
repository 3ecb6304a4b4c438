"""Clean CSV: the columns ImageID, Labels and Caption, quoted as the csv module writes them."""

import csv
import difflib
import io
from pathlib import Path

from mlic_train.data.problems import Problem
from mlic_train.data.source.text import Row, Rows, make_row, read_text
from mlic_train.errors import DataError

COLUMNS = ("ImageID", "Labels", "Caption")


def read_rows(file: Path) -> Rows:
    """Read a CSV file; see `check_header` for its columns.

    Records are counted without the header and without blank lines. After a record that breaks the CSV rules, reading
    goes on with the next line: a quote that is never closed costs one record, not the rest of the file.

    Raises:
        DataError: the file or its header cannot be used.
    """
    lines = list(io.StringIO(read_text(file), newline=""))
    start = 0
    header: list[str] | None = None
    number = 0
    while start < len(lines):
        reader = csv.reader(lines[start:] if start else lines, strict=True)
        used = 0  # lines of this reader that belong to whole records
        try:
            for cells in reader:
                used = reader.line_num
                if header is None:
                    header = check_header(file, cells)
                elif cells:
                    number += 1
                    yield _row(file, number, header, cells)
            return
        except csv.Error as error:
            if header is None:
                raise DataError(f"{file}: found a header that is not CSV: {error}; expected {_expected()}") from None
            number += 1
            found = lines[start + used].rstrip("\r\n")
            yield Problem(
                file,
                number,
                "bad-row",
                f"found {found[:60]!r}, which is not CSV ({error}); expected quotes inside a quoted cell to be doubled"
                + _competition_hint(header),
            )
            start += used + 1
    if header is None:
        check_header(file, [])


def check_header(file: Path, cells: list[str]) -> list[str]:
    """The column names of a header, in the file's order.

    ImageID, Labels and Caption are known, each at most once, in any order; ImageID or Caption must be there.

    Raises:
        DataError: there is another column, one twice, or neither ImageID nor Caption.
    """
    header = [cell.strip() for cell in cells]
    if not any(header):
        raise DataError(f"{file}: found no header; expected {_expected()}")
    if unknown := [name for name in header if name not in COLUMNS]:
        near = [
            difflib.get_close_matches(name.lower(), [column.lower() for column in COLUMNS], n=1) for name in unknown
        ]
        known = {column.lower(): column for column in COLUMNS}
        hints = [f"{known[match[0]]} for {name}" for name, match in zip(unknown, near, strict=True) if match]
        hint = f" (did you mean {', '.join(hints)}?)" if hints and len(header) > 1 else ""
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            hint = " (separate the columns with commas)"
        raise DataError(
            f"{file}: found the unknown column {', '.join(map(repr, unknown))}; expected {_expected()}{hint}"
        )
    if len(set(header)) != len(header):
        raise DataError(f"{file}: found a column twice in {','.join(header)}; expected {_expected()}")
    if "ImageID" not in header and "Caption" not in header:
        raise DataError(f"{file}: found only the column Labels; expected {_expected()}")
    return header


def row_of(file: Path, number: int, cells: dict[str, str]) -> Row | Problem:
    """A row from its cells by column name; a column that the file lacks is absent."""
    captions = [cells["Caption"]] if "Caption" in cells else []
    return make_row(file, number, cells.get("ImageID", ""), captions, cells.get("Labels"))


def _row(file: Path, number: int, header: list[str], cells: list[str]) -> Row | Problem:
    if len(cells) != len(header):
        message = f"found {len(cells)} columns; expected {len(header)} ({','.join(header)})"
        return Problem(file, number, "bad-row", message + _competition_hint(header))
    return row_of(file, number, dict(zip(header, cells, strict=True)))


def _expected() -> str:
    return "the columns ImageID (or none: captions without pictures), Labels and Caption"


def _competition_hint(header: list[str]) -> str:
    return "; for the competition's own files use --data-format competition" if header == list(COLUMNS) else ""
