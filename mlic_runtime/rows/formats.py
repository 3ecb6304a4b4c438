"""The files that rows are read from: CSV, JSON lines, Parquet.

All are streamed: only one row is held, however large the file. A row names its picture (`Row.name`), or has its bytes
(`Row.image`, from Parquet). A row that breaks the rules of its format has an `error`, and reading goes on with the next
line.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from mlic_runtime.base.text import normalize_whitespace, not_utf8
from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_ROW_BYTES

from .columns import CAPTION_COLUMNS, IMAGE_COLUMNS
from .csv_records import TOO_LONG, BrokenRecord, CsvRecords
from .row import Row

_EXPECTED = f"a column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, or {CAPTION_COLUMNS[0]}, or both"
_PARQUET_ROWS = 1024  # rows held at a time


def read_csv(stream: BinaryIO, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a CSV file in UTF-8: a header, then one row a record, without blank lines.

    Args:
        stream: the file.
        notes: a list that gets a line about the columns that are not read.

    Raises:
        InputError: the header has none of the columns, or two for the same, or the file is UTF-16.
    """
    records = CsvRecords(_read_lines(stream))
    header = next(records, None)
    if not isinstance(header, list):
        found = "" if header is None else f": is not CSV ({header.reason})"
        raise InputError(f"the input has no header{found}; expected {_EXPECTED}")
    columns = _find_columns([cell.strip() for cell in header], notes)
    for number, record in enumerate(records, start=1):
        if isinstance(record, BrokenRecord):
            found = f"row {number} is not CSV ({record.reason})"
            yield _bad_row(None, f"{found}; expected quotes inside a quoted cell to be doubled")
        elif len(record) != len(header):
            image = record[columns.image] if columns.image is not None and columns.image < len(record) else None
            found = f"row {number} has {len(record)} cells; expected {len(header)} ({','.join(header)})"
            yield _bad_row(image, one_line(found))
        else:
            yield columns.make_row(number, record)


def read_jsonl(stream: BinaryIO, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of JSON lines in UTF-8: an object a line, with the keys of IMAGE_COLUMNS and CAPTION_COLUMNS.

    Args:
        stream: the file.
        notes: a list that gets a line about the keys of the first row that are not read.

    Raises:
        InputError: the file is UTF-16.
    """
    number = 0
    for line in _read_lines(stream):
        if line is not None and not line.strip():
            continue
        number += 1
        try:
            entry = _parse_object(line)
            names = list(entry)
            columns = _find_columns(names, notes if number == 1 else [])
        except (InputError, ValueError, RecursionError) as error:
            yield _bad_row(None, one_line(f"row {number}: {error}"))
            continue
        yield columns.make_row(number, list(entry.values()))


def open_parquet(stream: BinaryIO, name: str, notes: list[str]) -> tuple[Iterator[Row], Callable[[], float]]:
    """Read a Parquet file; its column for pictures holds names, or the bytes of picture files.

    Args:
        stream: the file.
        name: of the file, for errors.
        notes: a list that gets a line about the columns that are not read.

    Returns:
        The rows, and how much of the file has been read, in [0, 1].

    Raises:
        InputError: pyarrow is not installed, the file is not Parquet, or it has none of the columns.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"cannot read {name!r}: Parquet needs pyarrow: pip install 'mlic-runtime[parquet]'") from error
    try:
        file = parquet.ParquetFile(stream)
    except (OSError, ValueError) as error:  # pyarrow's own errors are one or the other
        raise InputError(f"cannot read {name!r} as Parquet: {one_line(str(error))}") from error
    names, total = list(file.schema_arrow.names), file.metadata.num_rows
    columns = _find_columns(names, notes)
    wanted = [names[index] for index in (columns.image, columns.caption) if index is not None]
    columns = _find_columns(wanted, [])
    done = 0

    def rows() -> Iterator[Row]:
        nonlocal done
        try:
            for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    done += 1
                    yield columns.make_row(done, values)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {name!r} after row {done}: {one_line(str(error))}") from error

    return rows(), lambda: done / total if total else 1.0


def one_line(text: str) -> str:
    """Return a text on one line, with what is not Unicode escaped."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())


@dataclass(frozen=True, slots=True)
class _Columns:
    """The places of the picture's name and of the caption among the cells of a row; None without such a column."""

    image: int | None
    caption: int | None

    def make_row(self, number: int, cells: Sequence[Any]) -> Row:
        image = None if self.image is None else cells[self.image]
        caption = None if self.caption is None else cells[self.caption]
        name = image if isinstance(image, str) else None
        for what, value, kinds in (("picture", image, (str, bytes)), ("caption", caption, (str,))):
            if value is not None and not isinstance(value, kinds):
                found = f"row {number} has a {what} that is {type(value).__name__}; expected a text"
                return _bad_row(name, found)
            broken = not_utf8(value) if isinstance(value, str) else None
            if broken:
                return _bad_row(None if what == "picture" else name, f"row {number}, {what}: {broken}")
        return Row(None if isinstance(image, str) else image, normalize_whitespace(caption), _name(name))


def _find_columns(names: Sequence[str], notes: list[str]) -> _Columns:
    found: list[int | None] = []
    for kind in (IMAGE_COLUMNS, CAPTION_COLUMNS):
        known = {name.lower() for name in kind}
        places = [index for index, name in enumerate(names) if name.lower() in known]
        if len(places) > 1:
            listed = ", ".join(names[index] for index in places)
            raise InputError(f"the input has {listed}, which are the same; expected one of them")
        found.append(places[0] if places else None)
    if found == [None, None]:
        raise InputError(f"the input has {one_line(', '.join(names))[:200] or 'nothing'}; expected {_EXPECTED}")
    others = [name for index, name in enumerate(names) if index not in found]
    if others:
        notes.append(f"not read from the input: {one_line(', '.join(others))}")
    return _Columns(*found)


def _parse_object(line: str | None) -> dict[str, Any]:
    if line is None:
        raise ValueError(TOO_LONG)
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{line.strip()[:60]!r} is not JSON ({error}); expected one object a line") from None
    if not isinstance(entry, dict):
        raise ValueError(f'found {line.strip()[:60]!r}; expected an object such as {{"image": "1.jpg"}}')
    if "captions" in entry and "caption" not in entry:
        raise ValueError("found several captions; expected one: give each a row of its own")
    return entry


def _read_lines(stream: BinaryIO) -> Iterator[str | None]:
    """Yield lines with their ends; bytes that are not UTF-8 become lone surrogates, a line that is too long None."""
    first = True
    while line := stream.readline(MAX_ROW_BYTES + 1):
        if first:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError("the input is UTF-16; expected UTF-8: save it again as UTF-8")
            line = line.removeprefix(b"\xef\xbb\xbf") or b"\n"
            first = False
        if len(line) > MAX_ROW_BYTES:
            while not line.endswith(b"\n") and (line := stream.readline(MAX_ROW_BYTES)):
                pass
            yield None
        else:
            yield line.decode("utf-8", "surrogateescape")


def _name(text: str | None) -> str | None:
    return None if text is None else text.strip() or None


def _bad_row(name: str | None, message: str) -> Row:
    return Row(name=_name(name), error=InputError(message))
