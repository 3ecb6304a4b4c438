"""A folder of Parquet files that survives the death of who writes it: results in parts, each of them there or not.

    _mlic.json              what the results are made from (model, options, versions), written first
    part-000000.parquet     the results of the first rows; its metadata say what it is, and of which run
    ...
    _SUCCESS                how many rows, parts and errors there are, written last

The name of a part says which rows are in it, and it gets its name when it is whole. So a part that two workers write,
because one of them seemed dead, is the same part; and to resume is to write those that are not there. Readers of
Parquet folders pass over names that begin with `_` or `.`.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mlic_runtime.base.files import lock, os_error_reason, replace_file
from mlic_runtime.batch.resumable_file import Identity, check_identity
from mlic_runtime.errors import OutputError

if TYPE_CHECKING:
    import pyarrow

IDENTITY_NAME = "_mlic.json"
MARKER_NAME = "_SUCCESS"

_METADATA = b"mlic"


@dataclass(frozen=True, slots=True)
class PartMark:
    """What a part says of itself.

    Attributes:
        index: its place, from 0 on.
        rows: how many rows are in it.
        errors: how many of them failed.
        checksum: CRC-32 of all rows of the input up to its end, see `Row.checksum`.
        last: whether the input ends with it.
    """

    index: int
    rows: int
    errors: int
    checksum: int
    last: bool


class ResultFolder:
    """The folder, as the process sees it that is responsible for it; no other can be at the same time.

    Attributes:
        path: of the folder.
        done: {index: mark} of the parts that an earlier run left.
        complete: the earlier run left nothing to do.

    Args:
        output: the folder; it is made if it is missing, and must be empty otherwise, unless `resume`.
        identity: what the results are made from; to resume, it must be the same as in the earlier run.
        resume: go on with what an earlier run left, or begin if there is nothing.

    Raises:
        OutputError: the folder holds something else, or results that are made from something else, or it cannot be
            written.
    """

    def __init__(self, output: str | os.PathLike[str], identity: Identity, *, resume: bool = False) -> None:
        self.path = Path(output).resolve()
        self.done: dict[int, PartMark] = {}
        self.complete = False
        self._lock = -1
        self._made = self._begun = False
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"the output {str(output)!r} is a file; expected the name of a folder")
        try:
            self._made = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            self._open(identity, resume)
        except OSError as error:
            self.close()
            raise _failure(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def finish(self, marks: Mapping[int, PartMark]) -> None:
        """Everything is written: say so, if it is true.

        Args:
            marks: {index: mark} of all parts.

        Raises:
            OutputError: a part is missing, or the marker cannot be written.
        """
        missing = [index for index in marks if not (self.path / part_name(index)).is_file()]
        ends = [index for index, mark in marks.items() if mark.last]
        if missing or ends != [len(marks) - 1] or set(marks) != set(range(len(marks))):
            raise OutputError(
                f"the results in {str(self.path)!r} are not complete, although all workers are done: "
                f"{len(marks) - len(missing)} parts are there; go on with --resume"
            )
        total = {
            "rows": sum(mark.rows for mark in marks.values()),
            "parts": len(marks),
            "errors": sum(mark.errors for mark in marks.values()),
            "rows_checksum": marks[len(marks) - 1].checksum,
        }
        if not self.complete:
            _write(self.path / MARKER_NAME, json.dumps(total).encode() + b"\n")

    def close(self) -> None:
        """Let another process have the folder; without a single part in it, it is left as it was found."""
        if self._begun and next(self.path.glob("part-*"), None) is None:
            (self.path / IDENTITY_NAME).unlink(missing_ok=True)
            if self._made:
                with contextlib.suppress(OSError):  # a worker is still at it
                    self.path.rmdir()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _open(self, identity: Identity, resume: bool) -> None:
        if os.name != "nt":  # where a folder cannot be opened
            self._lock = os.open(self.path, os.O_RDONLY)
            lock(self._lock, self.path)
        names = sorted(entry.name for entry in self.path.iterdir() if not _is_temporary(entry.name))
        if not names:
            self._begun = True
            _write(self.path / IDENTITY_NAME, json.dumps(dict(identity)).encode() + b"\n")
        elif IDENTITY_NAME not in names:
            raise OutputError(
                f"the output {str(self.path)!r} holds {names[0]!r}, which is not ours; expected an empty folder"
            )
        elif not resume:
            state = "the results of" if MARKER_NAME in names else "what is left of"
            raise OutputError(
                f"the output {str(self.path)!r} holds {state} another run: go on with it (--resume), or choose another"
            )
        else:
            check_identity(read_identity(self.path), identity, self.path)
            self.done = dict(self._parts(names, digest(identity)))
            self.complete = MARKER_NAME in names

    def _parts(self, names: list[str], expected: str) -> list[tuple[int, PartMark]]:
        found = []
        for name in names:
            mark, run = _read_mark(self.path / name) if name.endswith(".parquet") else (None, None)
            if mark is None:  # such as a file that a power failure has garbled: its part is written anew
                continue
            if run != expected or name != part_name(mark.index):
                raise OutputError(
                    f"{str(self.path / name)!r} is not a part of these results: remove it, and go on with --resume"
                )
            found.append((mark.index, mark))
        return found


def write_part(folder: Path, table: "pyarrow.Table", mark: PartMark, run: str) -> None:
    """Write a part; whoever lists the folder sees all of it or nothing.

    Args:
        folder: of the results.
        table: the results.
        mark: what the part says of itself.
        run: `digest` of the identity.

    Raises:
        OutputError: it cannot be written.
    """
    from pyarrow import parquet

    stream = BytesIO()
    said = json.dumps({"run": run, **asdict(mark)}).encode()
    parquet.write_table(table.replace_schema_metadata({_METADATA: said}), stream)
    try:
        _write(folder / part_name(mark.index), stream.getvalue())
    except OSError as error:
        raise _failure(folder, error) from error


def read_identity(folder: Path) -> object:
    """What the results in a folder are made from.

    Raises:
        OutputError: the folder does not say.
    """
    path = folder / IDENTITY_NAME
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise OutputError(f"cannot read {str(path)!r}: {os_error_reason(error)}") from error
    except ValueError as error:
        raise OutputError(f"{str(path)!r} is damaged: delete {str(folder)!r} to begin anew") from error


def digest(identity: Identity) -> str:
    """The sha256 of an identity."""
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()


def part_name(index: int) -> str:
    """What the file of a part is called."""
    return f"part-{index:06}.parquet"


def _read_mark(path: Path) -> tuple[PartMark | None, str | None]:
    from pyarrow import parquet

    try:
        said = json.loads(parquet.read_metadata(path).metadata[_METADATA])
        run = said.pop("run")
        return PartMark(**said), run
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's own errors are of the first two
        return None, None


def _write(path: Path, content: bytes) -> None:
    replace_file(path, content, mode=0o666)  # less what the user's umask takes: results are for others too


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")  # see `temporary_folder`


def _failure(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write to {str(folder)!r}: {os_error_reason(error)}; once that is mended, go on with --resume"
    )
