"""Files with many records of one picture, as those of Open Images and Vertex AI: a bad record costs no other."""

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_text
from mlic_runtime.tables.csv_records import BrokenRecord, CsvRecords

_Record = TypeVar("_Record")
_Parsed = TypeVar("_Parsed")


def csv_records(file: Path) -> CsvRecords:
    """Return the records of a CSV file, whether it has a header or not.

    Raises:
        DataError: it cannot be read.
    """
    return CsvRecords(io.StringIO(read_text(file), newline=""))


def parse_each(
    file: Path,
    records: Iterable[tuple[int, _Record | BrokenRecord]],
    parse: Callable[[int, _Record], _Parsed],
    expected: str,
) -> Iterator[_Parsed | Problem]:
    """Yield what records say, and a Problem in the place of each that cannot be read.

    Args:
        file: the file, for problems.
        records: with their numbers, from 1.
        parse: returns what a record says; it raises ValueError or RecursionError for one that is bad.
        expected: what a record should be, for the message about one that is not CSV.
    """
    for number, record in records:
        if isinstance(record, BrokenRecord):
            message = f"found {record.line!r}, which is not CSV ({record.reason}); expected {expected}"
            yield Problem(file, number, "bad-row", message)
            continue
        try:
            yield parse(number, record)
        except (ValueError, RecursionError) as error:
            yield Problem(file, number, "bad-row", str(error))
