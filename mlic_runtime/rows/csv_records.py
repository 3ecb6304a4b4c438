"""CSV records, read one at a time; a broken one costs no other."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mlic_runtime.base.override import override
from mlic_runtime.limits import MAX_ROW_BYTES

_SHOWN_CHARACTERS = 60  # characters of a line in a message
TOO_LONG = f"it has more than {MAX_ROW_BYTES} bytes"


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record that breaks the rules of CSV: the start of its first line, and the reason."""

    line: str
    reason: str


class CsvRecords(Iterator["list[str] | BrokenRecord"]):
    """The records of a CSV file without blank lines.

    After a broken record, reading goes on with its second line: a quote that is never closed costs one record, not the
    rest of the file.

    Args:
        lines: with their line ends; None in the place of one that is too long.
    """

    def __init__(self, lines: Iterator[str | None]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()  # lines after the first of a broken record
        self._used: list[str] = []

    @override
    def __next__(self) -> list[str] | BrokenRecord:
        while True:
            self._used = []
            try:
                cells = next(csv.reader(self._feed(), strict=True))
            except csv.Error as error:
                self._again.extendleft(reversed(self._used[1:]))
                return BrokenRecord("".join(self._used[:1]).rstrip()[:_SHOWN_CHARACTERS], str(error))
            if cells:
                return cells

    def _feed(self) -> Iterator[str]:
        size = 0
        while True:
            line = self._again.popleft() if self._again else next(self._lines, "")
            if line == "":
                return
            if line is not None:
                self._used.append(line)
                size += len(line)
            if line is None or size > MAX_ROW_BYTES:
                raise csv.Error(TOO_LONG)
            yield line
