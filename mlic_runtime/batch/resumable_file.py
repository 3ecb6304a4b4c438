"""A result file that survives being killed: FILE.partial grows batch by batch, FILE appears when it is complete.

Beside FILE.partial lies FILE.partial.journal. Its first line says what the results are made from (model, options,
versions); each further line, written after a batch, is a JSON list

    [rows, bytes, errors, checksum of the bytes, checksum of the rows]

of everything so far. To resume, take the last line that agrees with FILE.partial, cut off what follows it, and go on
with the row after it. A killed process can lose what it had not written, and leave the last line of either file
incomplete; neither matters. The checksums (CRC-32) also find what a power failure can do to a file.
"""

import json
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from mlic_runtime.base.files import lock, os_error_reason, write_to
from mlic_runtime.base.override import override
from mlic_runtime.errors import OutputError
from mlic_runtime.limits import MAX_JOURNAL_LINE_BYTES

JobIdentity: TypeAlias = Mapping[str, str | int | float | bool | None]
"""What results are made from: everything that a row's result depends on, besides the row."""

_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Position:
    """The place that the results have reached.

    Attributes:
        rows: how many rows have a result.
        size: of the results, in bytes.
        errors: how many of the rows failed.
        checksum: CRC-32 of the results.
        rows_checksum: CRC-32 of the rows, see `Row.checksum`.
    """

    rows: int = 0
    size: int = 0
    errors: int = 0
    checksum: int = 0
    rows_checksum: int = 0

    def after(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> "Position":
        """Return the position after `data`, which holds `rows` more results with `errors` more errors."""
        checksum = zlib.crc32(data, self.checksum)
        return Position(self.rows + rows, self.size + len(data), self.errors + errors, checksum, rows_checksum)


class ResultWriter(ABC):
    """A place for results.

    Attributes:
        position: how far the results reach, those of an earlier run included.
        complete: an earlier run has written everything: nothing is left to do.
    """

    position: Position
    complete: bool

    @abstractmethod
    def append(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> None:
        """Write the results of `rows` rows; after it returns, they survive the death of this process.

        Args:
            data: the results.
            rows: how many there are.
            errors: how many of these rows failed.
            rows_checksum: CRC-32 of all rows up to the last of these, see `Row.checksum`.

        Raises:
            OutputError: the results cannot be written.
        """

    def finish(self) -> None:  # noqa: B027 # not every writer has something to do
        """Mark the results as complete.

        Raises:
            OutputError: the results cannot be written.
        """

    def close(self) -> None:  # noqa: B027 # not every writer has something to do
        """Close what is open."""


class StreamWriter(ResultWriter):
    """Results to a stream such as standard output, where nothing can be resumed; whoever opened it closes it."""

    complete = False

    def __init__(self, stream: BinaryIO) -> None:
        self.position = Position()
        self._stream = stream

    @override
    def append(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> None:
        write_to(self._stream, data)
        self.position = self.position.after(data, rows, errors, rows_checksum)


class ResumableFile(ResultWriter):
    """Results to a file; see the module. Closing it before `finish` keeps what is written, to resume.

    Args:
        output: FILE. An older one stays as it is until the new one is complete.
        identity: what the results are made from; to resume, it must be the same as in the earlier run.
        resume: go on with FILE.partial, or begin if there is none.

    Raises:
        OutputError: FILE.partial is in the way or cannot be resumed, or a file cannot be written.
    """

    def __init__(self, output: str | os.PathLike[str], identity: JobIdentity, *, resume: bool = False) -> None:
        # A link is followed: renaming onto it would replace the link itself.
        self._path = Path(output).resolve()
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._journal = self._path.with_name(self._path.name + ".partial.journal")
        self._identity = identity
        self.position = Position()
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

    @override
    def append(self, data: bytes, rows: int, errors: int, rows_checksum: int) -> None:
        position = self.position.after(data, rows, errors, rows_checksum)
        try:
            _write(self._results, data)
            _write(self._log, _line(astuple(position)))
        except OSError as error:
            raise self._failure(error) from error
        self.position = position

    @override
    def finish(self) -> None:
        try:
            if not self.complete:
                os.fsync(self._results)
                os.close(self._results)
                self._results = -1
                self._partial.replace(self._path)
            self._journal.unlink()
        except OSError as error:
            raise self._failure(error) from error

    @override
    def close(self) -> None:
        empty = self._results >= 0 and self._ready and self.position.rows == 0  # such files are removed
        if empty:
            os.ftruncate(self._results, 0)  # so that a run that is killed from here on can be resumed
        for descriptor in (self._results, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._results = self._log = -1
        if empty:
            self._remove()

    def _begin(self) -> None:
        for path in (self._partial, self._journal):
            if path.exists():
                raise OutputError(
                    f"{str(path)!r} is left from an interrupted run: go on with it (--resume), or delete it"
                )
        # In this order: a journal without FILE.partial then means that FILE.partial has become FILE.
        self._results = _open(self._partial, os.O_CREAT | os.O_EXCL)
        self._log = _open(self._journal, os.O_CREAT | os.O_EXCL)
        lock(self._log, self._journal)
        _write(self._log, _line(self._identity))
        os.fsync(self._log)  # nothing can be resumed without this line

    def _resume(self) -> None:
        if self._journal.exists():
            self._log = _open(self._journal)
            lock(self._log, self._journal)
        lines = _read_journal(self._journal)
        identity, end = next(lines, (None, 0))
        if identity is None:
            self._begin_if_nothing_is_left()
            return
        check_identity(identity, self._identity, self._partial)
        if not self._partial.exists() and self._path.exists():
            self._resume_complete(lines)
            return
        self._results = _open(self._partial, os.O_CREAT)
        self.position, end = _last_position(self._partial, lines, end)
        os.ftruncate(self._results, self.position.size)
        os.ftruncate(self._log, end)

    def _begin_if_nothing_is_left(self) -> None:
        """Begin where there is no journal, or an empty one, unless there are results."""
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

    def _resume_complete(self, lines: "_JournalLines") -> None:
        """Accept FILE without FILE.partial: the run was killed after it had renamed the file."""
        self.position, _ = _last_position(self._path, lines, 0)
        if self.position.size != self._path.stat().st_size:
            raise OutputError(
                f"{str(self._partial)!r} is missing: delete {str(self._journal)!r} to begin anew; "
                f"the new run replaces {str(self._path)!r} when it is complete"
            )
        self.complete = True

    def _remove(self) -> None:
        self._journal.unlink(missing_ok=True)  # first, see `_begin`
        self._partial.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {str(self._partial)!r}: {os_error_reason(error)}; solve that, then go on with --resume"
        )


def check_identity(found: object, identity: JobIdentity, path: Path) -> None:
    """Refuse to go on with results that were made from something else.

    Args:
        found: the identity that the earlier run wrote, as read from its file.
        identity: of this run.
        path: of the results.

    Raises:
        OutputError: they differ; the message names the first difference.
    """
    earlier = found if isinstance(found, dict) else {}
    for name in dict.fromkeys([*identity, *earlier]):
        was, now = earlier.get(name), identity.get(name)
        if was != now:
            raise OutputError(
                f"cannot resume {str(path)!r}: it was begun with {name} {json.dumps(was)}, and this run has "
                f"{json.dumps(now)}; repeat the first command line, or delete it to begin anew"
            )


_JournalLines: TypeAlias = Iterator[tuple[object, int]]


def _read_journal(path: Path) -> _JournalLines:
    """Yield (content, offset of its end) of each complete line."""
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


def _last_position(path: Path, lines: _JournalLines, end: int) -> tuple[Position, int]:
    """Return the last position that agrees with the results, and the offset of its end in the journal.

    Args:
        path: of the results.
        lines: of the journal that follow its first one.
        end: the offset to return if no line agrees.
    """
    last = Position()
    checksum = 0
    with path.open("rb") as stream:
        for line, line_end in lines:
            if not (isinstance(line, list) and len(line) == 5 and all(type(number) is int for number in line)):
                break
            position = Position(*line)
            missing = position.size - last.size
            while missing > 0 and (data := stream.read(min(missing, _CHUNK))):
                checksum = zlib.crc32(data, checksum)
                missing -= len(data)
            if missing or checksum != position.checksum:
                break
            last, end = position, line_end
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
