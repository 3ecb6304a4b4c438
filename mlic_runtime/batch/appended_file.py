"""A result file that has no end: it grows while a folder is watched, and says itself what is done."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlic_runtime.base.files import lock, os_error_reason
from mlic_runtime.base.text import encode
from mlic_runtime.errors import OutputError
from mlic_runtime.limits import MAX_ROW_BYTES

from .formats import BatchFormat

# A record has a picture's name, a caption of at most MAX_ROW_BYTES, which JSON may write with six characters for one,
# and a number for each label.
_LONGEST = 16 * MAX_ROW_BYTES


class AppendedFile:
    """Results of pictures, appended to a file in the format JSON lines or CSV.

    What an earlier run wrote is read first. A last record that is not complete, because the process was killed as it
    wrote, is cut off: its picture has no result yet.

    Args:
        output: the file; made if it is missing.
        format_: how a result is written; its header begins the file.

    Attributes:
        done: the names of the pictures that have a result.
        models: how many results there are from each model ("name@version").
        cut: how many bytes of an incomplete record were cut off.

    Raises:
        OutputError: the file cannot be read or written, holds something else, or another process appends to it.
    """

    def __init__(self, output: str, format_: BatchFormat) -> None:
        self._path = Path(output)
        self.done: set[str] = set()
        self.models: dict[str, int] = {}
        try:
            if self._path.exists() and not self._path.is_file():
                raise OutputError(f"the output {output!r} is not a regular file")
            self._stream = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise self._failure(error) from error
        try:
            lock(self._stream.fileno(), self._path)
            self._stream.seek(0)
            end = self._read(format_)
            self.cut = self._stream.seek(0, os.SEEK_END) - end
            if self.cut:
                self._stream.truncate(end)
            if end == 0:
                self.append(format_.header)
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def append(self, records: str) -> None:
        """Write records; after it returns, they survive the death of this process.

        Raises:
            OutputError: they cannot be written.
        """
        view = memoryview(encode(records))
        try:
            while view:
                view = view[self._stream.write(view) or 0 :]
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _read(self, format_: BatchFormat) -> int:
        """Take note of the results that are there, and return the offset behind the last complete one."""
        end = 0
        for number, record in enumerate(_records(self._stream, quotes=bool(format_.header)), start=1):
            try:
                text = record.decode()
                if format_.header:
                    self._note_csv(text, format_.header, number)
                else:
                    self._note_json(text)
            except (ValueError, KeyError, TypeError, csv.Error):
                raise OutputError(
                    f"record {number} of {str(self._path)!r} is no result of this format: choose another output"
                ) from None
            end += len(record)
        return end

    def _note_json(self, text: str) -> None:
        result = json.loads(text)
        self._note(result["image"], result.get("model"))

    def _note_csv(self, text: str, header: str, number: int) -> None:
        if number == 1:
            if text != header:
                raise OutputError(
                    f"{str(self._path)!r} begins with other columns than this run writes: it is of another model or "
                    "format; choose another output"
                )
            return
        columns = next(csv.reader([header]))
        cells = next(csv.reader([text], strict=True))
        if len(cells) != len(columns):
            raise ValueError
        result = dict(zip(columns, cells, strict=True))
        self._note(result["image"], result["model"])

    def _note(self, image: object, model: object) -> None:
        if not isinstance(image, str):
            raise TypeError
        self.done.add(image)
        if isinstance(model, str) and model:
            self.models[model] = self.models.get(model, 0) + 1

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {str(self._path)!r}: {os_error_reason(error)}; solve that, then start again")


def _records(stream: BinaryIO, *, quotes: bool) -> Iterator[bytes]:
    """Yield the complete records: lines, or with `quotes` also several lines where a line end stands within quotes."""
    with open(os.dup(stream.fileno()), "rb") as lines:  # noqa: PTH123 # a descriptor
        record = b""
        while line := lines.readline(_LONGEST):
            record += line
            # A quote within quotes is doubled, so that outside of quotes their number is even.
            if line.endswith(b"\n") and not (quotes and record.count(b'"') % 2):
                yield record
                record = b""
            elif len(record) > _LONGEST:
                yield record  # no result: whoever reads it says so
                return
