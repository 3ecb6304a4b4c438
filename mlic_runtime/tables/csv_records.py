"""CSV records, read one at a time; a broken one costs no other."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mlic_runtime.base.override import override
from mlic_runtime.limits import MAX_ROW_BYTES

_SHOWN_CHARACTERS = 60  # characters of a line in a message
TOO_LONG = f"it has more than {MAX_ROW_BYTES} bytes"
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record that breaks the rules of CSV: the start of its first line, and the reason."""

    line: str
    reason: str


class CsvRecords(Iterator["list[str] | BrokenRecord"]):
    """The records of a CSV file without blank lines.

    What separates the cells is decided by the first record, the header: the separator that gives it the most cells.
    Where a space follows each separator of the header, spaces after separators are no part of a cell.

    After a broken record, reading goes on with its second line: a quote that is never closed costs one record, not the
    rest of the file.

    Attributes:
        separator: one of SEPARATORS; known once the first record was read.
        line: the 1-based number of the line that the last record began with; 0 before the first.

    Args:
        lines: with their line ends; None in the place of one that is too long.
    """

    def __init__(self, lines: Iterator[str | None]) -> None:
        self._lines = lines
        self._again: deque[str | None] = deque()  # lines after the first of a broken record
        self._used: list[str] = []
        self._started = self._skip_spaces = False
        self._taken = self.line = 0
        self.separator = ","

    @override
    def __next__(self) -> list[str] | BrokenRecord:
        while True:
            self._used = []
            if not self._started:
                self._choose_separator()
            self.line = self._taken - len(self._again) + 1
            try:
                cells = next(self._reader(self.separator, self._feed()))
            except csv.Error as error:
                self._again.extendleft(reversed(self._used[1:]))
                return BrokenRecord("".join(self._used[:1]).rstrip()[:_SHOWN_CHARACTERS], str(error))
            if cells:
                return cells

    def _reader(self, separator: str, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(lines, strict=True, delimiter=separator, skipinitialspace=self._skip_spaces)

    def _choose_separator(self) -> None:
        """Choose the separator by the first line that is not blank."""
        line: str | None = "\n"
        while line is not None and line.isspace():
            line = self._take()
        self._started = True
        self._again.append(line)
        if not line:
            return  # nothing more, or a line that is too long
        counts = {separator: len(self._cells(separator, line)) for separator in SEPARATORS}
        best = max(SEPARATORS, key=lambda separator: counts[separator])
        self.separator = best if counts[best] > 1 else ","
        cells = self._cells(self.separator, line)
        self._skip_spaces = len(cells) > 1 and all(cell.startswith(" ") for cell in cells[1:])

    def _take(self) -> str | None:
        """Return the next line; "" after the last."""
        line = next(self._lines, "")
        self._taken += line != ""
        return line

    def _cells(self, separator: str, line: str) -> list[str]:
        try:
            return next(self._reader(separator, iter([line])), [])
        except csv.Error:
            return []

    def _feed(self) -> Iterator[str]:
        size = 0
        while True:
            line = self._again.popleft() if self._again else self._take()
            if line == "":
                return
            if line is not None:
                self._used.append(line)
                size += len(line)
            if line is None or size > MAX_ROW_BYTES:
                raise csv.Error(TOO_LONG)
            yield line
