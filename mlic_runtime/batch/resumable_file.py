"""A result file that survives being killed: FILE.partial grows batch by batch, FILE appears when it is complete.

Beside FILE.partial lies FILE.partial.journal. Its first line says what the results are made from (model, options,
versions); each further line, written after a batch, is a JSON list

    [rows, bytes, errors, checksum of the bytes, checksum of the rows]

of everything so far. To resume is to take the last line that FILE.partial bears out, to cut off what follows it, and
to go on with the row after it. A killed process can lose what it had not written, and leave the last line of either
file incomplete; neither matters. Checksums (CRC-32) also find what a power failure can do to a file.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from mlic_runtime.base.files import lock, os_error_reason, write_to
from mlic_runtime.errors import OutputError
from mlic_runtime.limits import MAX_JOURNAL_LINE_BYTES

Identity = Mapping[str, str | int | float | bool | None]

_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the results reach.

    Attributes:
        rows: how many rows have a result.
        size: how long the results are, in bytes.
        errors: how many of the rows failed.
        checksum: CRC-32 of the results.
        rows_checksum: CRC-32 of the rows, see `Row.checksum`.
    """

    rows: int = 0
    size: int = 0
    errors: int = 0
    checksum: int = 0
    rows_checksum: int = 0

    def after(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> "Mark":
        """The mark behind `data`, which holds `rows` more results with `errors` more errors."""
        checksum = zlib.crc32(data, self.checksum)
        return Mark(self.rows + rows, self.size + len(data), self.errors + errors, checksum, rows_checksum)


class Sink(Protocol):
    """Where results go."""

    mark: Mark
    complete: bool

    def append(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> None:
        """Write the results of `rows` rows; when it returns, they are safe from the death of this process."""

    def finish(self) -> None:
        """Everything is written."""

    def close(self) -> None:
        """Let go of what is open."""


class StreamSink:
    """Results to a stream such as standard output, where nothing can be resumed."""

    complete = False

    def __init__(self, stream: BinaryIO) -> None:
        self.mark = Mark()
        self._stream = stream

    def append(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> None:
        """See `Sink`."""
        write_to(self._stream, data)
        self.mark = self.mark.after(data, rows, errors, rows_checksum)

    def finish(self) -> None:
        """See `Sink`."""

    def close(self) -> None:
        """See `Sink`; the stream belongs to whoever opened it."""


class PartialFile:
    """Results to a file; see the module. Closing it without `finish` keeps what there is, to resume.

    Attributes:
        mark: how far the results reach, those of the earlier run included.
        complete: the earlier run was complete but for its last breath: nothing is left to do.

    Args:
        output: FILE. An older one stays as it is until the new one is complete.
        identity: what the results are made from; to resume, it must be the same as in the earlier run.
        resume: go on with FILE.partial, or begin if there is none.

    Raises:
        OutputError: FILE.partial is in the way or cannot be resumed, or a file cannot be written.
    """

    def __init__(self, output: str | os.PathLike[str], identity: Identity, *, resume: bool = False) -> None:
        # Where a link points to: there the results belong, and renaming onto the link would replace the link.
        self._path = Path(output).resolve()
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._journal = self._path.with_name(self._path.name + ".partial.journal")
        self._identity = identity
        self.mark = Mark()
        self.complete = False
        self._results = self._log = -1
        self._ready = False
        if self._path.exists() and not self._path.is_file():
            raise OutputError(f"the output {str(output)!r} is not a regular file: leave it out to write to stdout")
        try:
            if resume:
                self._resume()
            else:
                self._begin()
            self._ready = True
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> None:
        """Write the results of `rows` rows; when it returns, they are safe from the death of this process.

        Raises:
            OutputError: the disk is full or broken; what was written before can be resumed.
        """
        mark = self.mark.after(data, rows, errors, rows_checksum)
        try:
            _write(self._results, data)
            _write(self._log, _line(astuple(mark)))
        except OSError as error:
            raise self._failure(error) from error
        self.mark = mark

    def finish(self) -> None:
        """Everything is written: give the file its name, in one step.

        Raises:
            OutputError: the disk is full or broken; what was written can be resumed.
        """
        try:
            if not self.complete:
                os.fsync(self._results)
                os.close(self._results)
                self._results = -1
                self._partial.replace(self._path)
            self._journal.unlink()
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Let go of the files; without a single result in them they are removed."""
        useless = self._results >= 0 and self._ready and self.mark.rows == 0
        if useless:
            os.ftruncate(self._results, 0)  # killed from here on, there is still nothing that cannot be resumed
        for descriptor in (self._results, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._results = self._log = -1
        if useless:
            self._remove()

    def _begin(self) -> None:
        for path in (self._partial, self._journal):
            if path.exists():
                raise OutputError(
                    f"{str(path)!r} is left of an interrupted run: go on with it (--resume), or delete it to begin anew"
                )
        # In this order: a journal without FILE.partial then means that FILE.partial has become FILE.
        self._results = _open(self._partial, os.O_CREAT | os.O_EXCL)
        self._log = _open(self._journal, os.O_CREAT | os.O_EXCL)
        lock(self._log, self._journal)
        _write(self._log, _line(self._identity))
        os.fsync(self._log)  # without this line nothing can be resumed

    def _resume(self) -> None:
        if self._journal.exists():
            self._log = _open(self._journal)
            lock(self._log, self._journal)
        lines = _read_journal(self._journal)
        identity, end = next(lines, (None, 0))
        if identity is None:
            self._resume_nothing()
            return
        check_identity(identity, self._identity, self._partial)
        if not self._partial.exists() and self._path.exists():
            self._resume_complete(lines)
            return
        self._results = _open(self._partial, os.O_CREAT)
        self.mark, end = _last_mark(self._partial, lines, end)
        os.ftruncate(self._results, self.mark.size)
        os.ftruncate(self._log, end)

    def _resume_nothing(self) -> None:
        """There is no journal, or nothing in it: begin, unless there is something else."""
        if self._partial.exists() and self._partial.stat().st_size:
            raise OutputError(
                f"{str(self._partial)!r} cannot be resumed without {str(self._journal)!r}: delete it to begin anew"
            )
        if self._path.exists() and not self._partial.exists() and not self._journal.exists():
            raise OutputError(
                f"there is nothing to resume: {str(self._path)!r} is there and {str(self._partial)!r} is not; "
                "delete it, or leave out --resume to replace it"
            )
        self.close()
        self._remove()
        self._begin()

    def _resume_complete(self, lines: "_Lines") -> None:
        """Only FILE is there: killed between giving it its name and taking the journal away?"""
        self.mark, _ = _last_mark(self._path, lines, 0)
        if self.mark.size != self._path.stat().st_size:
            raise OutputError(
                f"{str(self._partial)!r} is missing: delete {str(self._journal)!r} to begin anew; "
                f"that replaces {str(self._path)!r} in the end"
            )
        self.complete = True

    def _remove(self) -> None:
        self._journal.unlink(missing_ok=True)  # first, see `_begin`
        self._partial.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {str(self._partial)!r}: {os_error_reason(error)}; once that is mended, go on with --resume"
        )


def check_identity(found: object, identity: Identity, path: Path) -> None:
    """Refuse to go on with results that are made from something else.

    Args:
        found: what an earlier run wrote down.
        identity: of this run.
        path: of the results.

    Raises:
        OutputError: they differ; the message names the first difference.
    """
    known = found if isinstance(found, dict) else {}
    for name in dict.fromkeys([*identity, *known]):
        was, now = known.get(name), identity.get(name)
        if was != now:
            raise OutputError(
                f"cannot resume {str(path)!r}: it was begun with {name} {json.dumps(was)}, and this is "
                f"{json.dumps(now)}; repeat the first command line, or delete it to begin anew"
            )


_Lines: TypeAlias = Iterator[tuple[object, int]]


def _read_journal(path: Path) -> _Lines:
    """(content, offset of its end) of the lines that are whole."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as stream:
        while (line := stream.readline(MAX_JOURNAL_LINE_BYTES)).endswith(b"\n"):
            try:
                content = json.loads(line)
            except ValueError:
                return
            end += len(line)
            yield content, end


def _last_mark(path: Path, lines: _Lines, end: int) -> tuple[Mark, int]:
    """The last mark that the results bear out, and the offset of its end in the journal (`end` if there is none)."""
    last = Mark()
    checksum = 0
    with path.open("rb") as stream:
        for line, line_end in lines:
            if not (isinstance(line, list) and len(line) == 5 and all(type(number) is int for number in line)):
                break
            mark = Mark(*line)
            missing = mark.size - last.size
            while missing > 0 and (data := stream.read(min(missing, _CHUNK))):
                checksum = zlib.crc32(data, checksum)
                missing -= len(data)
            if missing or checksum != mark.checksum:
                break
            last, end = mark, line_end
    return last, end


def _open(path: Path, flags: int = 0) -> int:
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o666
    )


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _line(content: object) -> bytes:
    return json.dumps(content).encode("ascii") + b"\n"
