"""CSV with the columns ImageID, Labels and Caption, quoted as the csv module writes them."""

import difflib
import io
import re
from pathlib import Path

from mlic_runtime.base.override import override
from mlic_runtime.rows.csv_records import BrokenRecord, CsvRecords
from mlic_train.data.labels import LabelSet
from mlic_train.data.problems import Problem
from mlic_train.data.source.files import read_text
from mlic_train.errors import DataError

from .format import Format, Row, Rows, clean_row

COLUMNS = ("ImageID", "Labels", "Caption")
_EXPECTED = "the columns ImageID (or none: captions without pictures), Labels and Caption"
# The first column of a table that pandas wrote with its row numbers, and once more for each time it was read again.
_INDEX = re.compile(r"(Unnamed: 0(\.\d+)*)?")


class CsvTable(Format):
    """CSV; see `check_header` for its columns.

    Row numbers that pandas put into columns before them are ignored, with a warning.
    Records are counted without the header and without blank lines.
    """

    name = "csv"
    title = "CSV table"
    file_names = ("*.csv",)
    split_files = ("{split}.csv",)

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        text = read_text(file)
        records = CsvRecords(io.StringIO(text, newline=""))
        first = [] if text[:1] in "\r\n" else next(records, [])  # a blank first line is no header
        if isinstance(first, BrokenRecord):
            raise DataError(f"{file}: found a header that is not CSV: {first.reason}; expected {_EXPECTED}")
        index = next((place for place, name in enumerate(first) if not _INDEX.fullmatch(name.strip())), 0)
        header = check_header(file, first[index:])
        if index:
            message = f"found the column {', '.join(map(repr, first[:index]))}; its row numbers are not read"
            yield Problem(file, None, "ignored", message, "warning")
        for number, record in enumerate(records, start=1):
            if isinstance(record, BrokenRecord):
                found = f"found {record.line!r}, which is not CSV ({record.reason})"
                message = f"{found}; expected quotes inside a quoted cell to be doubled{_competition_hint(header)}"
                yield Problem(file, number, "bad-row", message)
            else:
                yield _row(file, number, header, record, index)


def check_header(file: Path, cells: list[str]) -> list[str]:
    """Return the column names of a header, in the file's order.

    They are ImageID, Labels and Caption, each at most once, in any order; ImageID or Caption must be there.

    Raises:
        DataError: there is another column, one twice, or neither ImageID nor Caption.
    """
    header = [cell.strip() for cell in cells]
    if not any(header):
        raise DataError(f"{file}: found no header; expected {_EXPECTED}")
    if unknown := [name for name in header if name not in COLUMNS]:
        known = {column.lower(): column for column in COLUMNS}
        near = {name: difflib.get_close_matches(name.lower(), known, n=1) for name in unknown}
        hints = [f"{known[match[0]]} for {name}" for name, match in near.items() if match]
        hint = f" (did you mean {', '.join(hints)}?)" if hints and len(header) > 1 else ""
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            hint = " (separate the columns with commas)"
        raise DataError(f"{file}: found the unknown column {', '.join(map(repr, unknown))}; expected {_EXPECTED}{hint}")
    if len(set(header)) != len(header):
        raise DataError(f"{file}: found a column twice in {','.join(header)}; expected {_EXPECTED}")
    if "ImageID" not in header and "Caption" not in header:
        raise DataError(f"{file}: found only the column Labels; expected {_EXPECTED}")
    return header


def row_of(file: Path, number: int, cells: dict[str, str]) -> Row | Problem:
    """Return the row of a record.

    Args:
        file: the file.
        number: of the record.
        cells: by column, without columns that the file lacks.
    """
    captions = [cells["Caption"]] if "Caption" in cells else []
    return clean_row(file, number, cells.get("ImageID", ""), captions, cells.get("Labels"))


def _row(file: Path, number: int, header: list[str], cells: list[str], index: int) -> Row | Problem:
    """Return the row of a record, without its first `index` cells: they are row numbers."""
    numbers, cells = cells[:index], cells[index:]
    if len(cells) != len(header):
        message = f"found {len(numbers) + len(cells)} columns; expected {index + len(header)} ({','.join(header)})"
        return Problem(file, number, "bad-row", message + _competition_hint(header))
    if other := [cell for cell in numbers if not cell.strip().isdecimal()]:
        message = f"found {other[0]!r} in a column without a name; expected a row number, or a name in the header"
        return Problem(file, number, "bad-row", message)
    return row_of(file, number, dict(zip(header, cells, strict=True)))


def _competition_hint(header: list[str]) -> str:
    return "; for the competition's own files use --data-format competition" if header == list(COLUMNS) else ""
