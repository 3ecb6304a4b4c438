"""Lines of a text file: UTF-8 or UTF-16, ended by LF, CR LF or CR."""

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from mlic_runtime.base.override import override
from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_ROW_BYTES

_CHUNK = 1 << 16
_END = re.compile(r"\r\n|\n|\r")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Lines(Iterator["str | None"]):
    """The lines of a stream with their ends, read as they are asked for; None in the place of one that is too long.

    A byte order mark says the encoding, and is no part of the first line; without one it is UTF-8. Bytes that are not
    UTF-8 become lone surrogates, so that they cost one row, not the file: `not_utf8` finds them.

    Attributes:
        encoding: "utf-8", "utf-16-le" or "utf-16-be"; known once a line was read.
    """

    def __init__(self, stream: BinaryIO) -> None:
        # What is there is taken at once, so that rows from a pipe are not held back.
        self._read = getattr(stream, "read1", stream.read)
        self._lines = self._split()
        self._pending = self._taken = 0
        self.encoding = "utf-8"

    @override
    def __next__(self) -> str | None:
        return next(self._lines)

    @property
    def position(self) -> int:
        """About how many bytes the lines so far have; exact for ASCII."""
        return self._taken - self._pending * (1 if self.encoding == "utf-8" else 2)

    def _texts(self) -> Iterator[str]:
        start = b""
        while len(start) < len(codecs.BOM_UTF8) and (more := self._read(_CHUNK)):
            start += more
        self._taken = len(start)
        mark, self.encoding = next((each for each in _MARKS if start.startswith(each[0])), (b"", "utf-8"))
        errors = "surrogateescape" if self.encoding == "utf-8" else "surrogatepass"
        decoder = codecs.getincrementaldecoder(self.encoding)(errors)
        chunk = start.removeprefix(mark)
        try:
            while chunk or start:
                yield decoder.decode(chunk)
                start, chunk = b"", self._read(_CHUNK)
                self._taken += len(chunk)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise InputError(f"found UTF-16 that is cut off or damaged ({error.reason}): save it again") from error

    def _split(self) -> Iterator[str | None]:
        text, searched, long = "", 0, False
        for more in self._texts():
            text += more
            start = 0
            # A CR at the very end may be the first half of a CR LF.
            for match in _END.finditer(text, searched, len(text) - text.endswith("\r")):
                line, start = text[start : match.end()], match.end()
                self._pending = len(text) - start
                yield None if long or len(line) > MAX_ROW_BYTES else line
                long = False
            text = text[start:]
            if len(text) > MAX_ROW_BYTES:
                text, long = text[-1:], True
            self._pending, searched = len(text), max(0, len(text) - 1)
        self._pending = 0
        if text:
            yield None if long else text
