"""Tables: CSV with any usual separator, JSON lines, a JSON array of objects, Parquet; a header and records.

It is the one reader of tables, of inference and of training. All but the JSON array are streamed: only one record is
held, however large the file. A record that breaks the rules of its format is a `BrokenRow`, and reading goes on.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_JSON_ARRAY_BYTES

from .csv_records import SEPARATORS, TOO_LONG, BrokenRecord, CsvRecords
from .lines import Lines

CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
JSON_SUFFIXES = (".json",)
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (*CSV_SUFFIXES, *JSON_LINES_SUFFIXES, *JSON_SUFFIXES, *PARQUET_SUFFIXES)

PARQUET_EXTRA = "Parquet needs pyarrow: pip install 'mlic-runtime[parquet]'"
_PARQUET_ROWS = 1024  # rows held at a time
_SHOWN_CHARACTERS = 60  # of a line in a message
# The first column of a table that pandas wrote with its row numbers, and once more for each time it was read again.
_INDEX = re.compile(r"(Unnamed: 0(\.\d+)*)?")
_PARQUET_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A record.

    Attributes:
        number: 1-based. The header and blank lines of CSV are not counted; in JSON lines it is the number of the line.
        cells: by column. Texts in CSV; what JSON and Parquet hold otherwise. JSON may lack some of the columns.
        line: the 1-based line that it begins with in a file of lines; else its number.
    """

    number: int
    cells: dict[str, Any]
    line: int


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A record that breaks the rules of its format.

    Attributes:
        number: see `TableRow`.
        message: what was found and what was expected.
        cells: those before the fault, where they are sure.
        line: see `TableRow`.
    """

    number: int
    message: str
    cells: dict[str, Any]
    line: int


@dataclass(frozen=True)
class Table:
    """A table; its rows can be read once.

    Attributes:
        title: the format, such as "CSV, separated by semicolons".
        header: the names of the columns; of JSON lines, the keys of the first object.
        rows: the records, in order.
        notes: what was decided or left out, a part of a sentence each.
        share: returns how much has been read, in [0, 1]; None where that is not known.
        declared: for columns of Hugging Face's class labels, the names of their numbers.
    """

    title: str
    header: tuple[str, ...]
    rows: Iterator[TableRow | BrokenRow]
    notes: tuple[str, ...] = ()
    share: Callable[[], float | None] = lambda: None
    declared: "dict[str, tuple[str, ...]] | None" = None


def open_table(
    stream: BinaryIO,
    suffix: str,
    size: int | None = None,
    columns: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> Table:
    """Open a table by the ending of its name.

    Args:
        stream: the file; Parquet has to seek in it.
        suffix: one of TABLE_SUFFIXES, in lower case.
        size: of the file in bytes, for `Table.share`.
        columns: chooses the columns of a Parquet file that are read, by their names; all by default. A name such as
            `image.path` reads a part of a column.

    Raises:
        InputError: it is no such table, has no header, or pyarrow is missing.
    """
    if suffix in PARQUET_SUFFIXES:
        return read_parquet(stream, columns)
    if suffix in JSON_SUFFIXES:
        return read_json(stream)
    return read_json_lines(stream, size) if suffix in JSON_LINES_SUFFIXES else read_csv(stream, size)


def read_csv(stream: BinaryIO, size: int | None = None) -> Table:
    """Read CSV: a header, then a record each, without blank lines.

    Row numbers that pandas put into columns before the others are left out.

    Raises:
        InputError: there is no header.
    """
    lines = Lines(stream)
    records = CsvRecords(lines)
    first = next(records, None)
    if isinstance(first, BrokenRecord):
        raise InputError(f"found a header that is not CSV ({first.reason})")
    names = [] if first is None else [cell.strip() for cell in first]
    if not any(names):
        raise InputError("found no header")
    index = next(place for place, name in enumerate(names) if not _INDEX.fullmatch(name))
    header = tuple(names[index:])
    notes = _text_notes(lines)
    if index:
        notes.append(f"the row numbers in the column {', '.join(map(repr, names[:index]))}")

    def rows() -> Iterator[TableRow | BrokenRow]:
        for number, record in enumerate(records, start=1):
            line = records.line
            if isinstance(record, BrokenRecord):
                message = f"found {record.line!r}, which is not CSV ({record.reason})"
                yield BrokenRow(number, f"{message}; expected quotes inside a quoted cell to be doubled", {}, line)
                continue
            cells = dict(zip(header, record[index:], strict=False))
            if len(record) != len(names):
                shown = ",".join(header)
                yield BrokenRow(number, f"found {len(record)} columns; expected {len(names)} ({shown})", cells, line)
            elif other := [cell for cell in record[:index] if not cell.strip().isdecimal()]:
                expected = "expected a row number, or a name in the header"
                yield BrokenRow(number, f"found {other[0]!r} in a column without a name; {expected}", cells, line)
            else:
                yield TableRow(number, cells, line)

    separated = "" if records.separator == "," else f", separated by {SEPARATORS[records.separator]}"
    return Table(f"CSV{separated}", header, rows(), tuple(notes), _share(lines, size))


def read_json_lines(stream: BinaryIO, size: int | None = None) -> Table:
    """Read JSON lines: an object a line; blank lines are passed over.

    Raises:
        InputError: the file is UTF-16 that is damaged at its beginning.
    """
    lines = Lines(stream)

    def rows() -> Iterator[TableRow | BrokenRow]:
        for number, line in enumerate(lines, start=1):
            if line is None or line.strip():
                yield _parse_line(number, line)

    found = rows()
    first = next(found, None)
    header = tuple(first.cells) if isinstance(first, TableRow) else ()

    def all_rows() -> Iterator[TableRow | BrokenRow]:
        if first is not None:
            yield first
        yield from found

    return Table("JSON lines", header, all_rows(), tuple(_text_notes(lines)), _share(lines, size))


def read_json(stream: BinaryIO) -> Table:
    """Read a JSON array of objects, such as pandas' `to_json(orient="records")` writes.

    Raises:
        InputError: it is something else, or has more than MAX_JSON_ARRAY_BYTES.
    """
    content = stream.read(MAX_JSON_ARRAY_BYTES + 1)
    if len(content) > MAX_JSON_ARRAY_BYTES:
        raise InputError(f"found more than {MAX_JSON_ARRAY_BYTES} bytes of JSON; expected JSON lines for so many rows")
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig", "strict" if utf16 else "surrogateescape")
        entries = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"found what is not JSON ({error}); expected an array of objects") from error
    if not isinstance(entries, list):
        raise InputError(f"found a JSON {_kind(entries)}; expected an array of objects, one a row")
    header = next((tuple(entry) for entry in entries if isinstance(entry, dict)), ())
    rows = (_check_entry(number, entry, "") for number, entry in enumerate(entries, start=1))
    return Table("JSON array", header, rows, ("it is UTF-16",) if utf16 else ())


def read_parquet(stream: BinaryIO, columns: Callable[[Sequence[str]], Sequence[str]] | None = None) -> Table:
    """Read a Parquet file; see `open_table`.

    Raises:
        InputError: it is no Parquet file, or pyarrow is not installed; while rows are read, it is damaged.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(PARQUET_EXTRA) from error
    try:
        file = parquet.ParquetFile(stream)
    except (OSError, ValueError) as error:  # pyarrow's own errors are one or the other
        raise InputError(f"found what is not Parquet: {_one_line(error)}") from error
    schema, total = file.schema_arrow, file.metadata.num_rows
    names = list(schema.names)
    index = [name for name in names if _PARQUET_INDEX.fullmatch(name)]
    header = tuple(name for name in names if name not in index)
    wanted = list(header if columns is None else columns(header))
    done = 0

    def rows() -> Iterator[TableRow | BrokenRow]:
        nonlocal done
        try:
            for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
                found = batch.schema.names
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    done += 1
                    yield TableRow(done, dict(zip(found, values, strict=True)), done)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read on after row {done}: {_one_line(error)}") from error

    notes = [f"the row numbers in the column {', '.join(map(repr, index))}"] if index else []
    share = lambda: done / total if total else 1.0  # noqa: E731 # as short as the others
    return Table("Parquet", header, rows(), tuple(notes), share, _class_names(schema.metadata))


class _KeyTwice(dict[str, Any]):
    """Stands for a JSON object that has a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    return entry if len(entry) == len(pairs) else _KeyTwice()


def _parse_line(number: int, line: str | None) -> TableRow | BrokenRow:
    if line is None:
        return BrokenRow(number, TOO_LONG, {}, number)
    shown = line.strip()[:_SHOWN_CHARACTERS]
    try:
        entry = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return BrokenRow(
            number, f"found {shown!r}, which is not JSON ({error}); expected one object a line", {}, number
        )
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too many brackets
        return BrokenRow(
            number, f"found {shown!r}, which cannot be read ({error}); expected one object a line", {}, number
        )
    return _check_entry(number, entry, shown)


def _check_entry(number: int, entry: Any, shown: str) -> TableRow | BrokenRow:
    if isinstance(entry, _KeyTwice):
        return BrokenRow(number, "found a key twice in one object; expected each once", {}, number)
    if not isinstance(entry, dict):
        found = repr(shown or str(entry)[:_SHOWN_CHARACTERS])
        return BrokenRow(number, f'found {found}; expected an object such as {{"image": "1.jpg"}}', {}, number)
    return TableRow(number, entry, number)


def _text_notes(lines: Lines) -> list[str]:
    return ["it is UTF-16"] if lines.encoding != "utf-8" else []


def _share(lines: Lines, size: int | None) -> Callable[[], float | None]:
    return lambda: min(1.0, lines.position / size) if size else None


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else type(value).__name__


def _one_line(error: Exception) -> str:
    return " ".join(str(error).encode("utf-8", "backslashreplace").decode("utf-8").split())


def _class_names(metadata: "dict[bytes, bytes] | None") -> dict[str, tuple[str, ...]]:
    """Return the names of Hugging Face's class labels by column; see `datasets.Features`."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {}
        for column, feature in features.items():
            while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
                feature = feature[0] if isinstance(feature, list) else feature["feature"]
            if feature.get("_type") == "ClassLabel":
                found[str(column)] = tuple(map(str, feature["names"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return {}
    return found
