"""A folder of Parquet files that survives being killed: results in parts, each complete or missing.

    _mlic.json              what the results are made from (model, options, versions), written first
    part-000000.parquet     the results of the first rows; its metadata hold its summary and the run it belongs to
    ...
    _SUCCESS                how many rows, parts and errors there are, written last

The name of a part says which rows are in it, and it gets its name when it is complete. So it does not matter if two
workers write a part because one of them seemed dead; and to resume, write the parts that are missing. Readers of
Parquet folders ignore names that begin with `_` or `.`.
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
from mlic_runtime.batch.resumable_file import JobIdentity, check_identity
from mlic_runtime.errors import OutputError

if TYPE_CHECKING:
    import pyarrow

IDENTITY_NAME = "_mlic.json"
SUCCESS_NAME = "_SUCCESS"

_METADATA = b"mlic"


@dataclass(frozen=True, slots=True)
class PartSummary:
    """A description of a part, which its file holds.

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
    """A folder of results, locked for the one process that is responsible for it.

    Attributes:
        path: of the folder.
        done: {index: summary} of the parts that an earlier run wrote.
        complete: an earlier run has written everything: nothing is left to do.

    Args:
        output: the folder; it is made if it is missing. Unless `resume`, it must be empty.
        identity: what the results are made from; to resume, it must be the same as in the earlier run.
        resume: go on with the parts of an earlier run, or begin if there is nothing.

    Raises:
        OutputError: the folder holds something else, or results that are made from something else, or it cannot be
            written.
    """

    def __init__(self, output: str | os.PathLike[str], identity: JobIdentity, *, resume: bool = False) -> None:
        self.path = Path(output).resolve()
        self.done: dict[int, PartSummary] = {}
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

    def finish(self, summaries: Mapping[int, PartSummary]) -> None:
        """Mark the results as complete, after checking that they are.

        Args:
            summaries: {index: summary} of all parts.

        Raises:
            OutputError: a part is missing, or the file _SUCCESS cannot be written.
        """
        missing = [index for index in summaries if not (self.path / part_name(index)).is_file()]
        ends = [index for index, summary in summaries.items() if summary.last]
        if missing or ends != [len(summaries) - 1] or set(summaries) != set(range(len(summaries))):
            raise OutputError(
                f"the results in {str(self.path)!r} are not complete, although all workers are done: "
                f"{len(summaries) - len(missing)} parts are there; go on with --resume"
            )
        total = {
            "rows": sum(summary.rows for summary in summaries.values()),
            "parts": len(summaries),
            "errors": sum(summary.errors for summary in summaries.values()),
            "rows_checksum": summaries[len(summaries) - 1].checksum,
        }
        if not self.complete:
            _write(self.path / SUCCESS_NAME, json.dumps(total).encode() + b"\n")

    def close(self) -> None:
        """Release the folder for other processes; if no part was written, leave it as it was before."""
        if self._begun and next(self.path.glob("part-*"), None) is None:
            (self.path / IDENTITY_NAME).unlink(missing_ok=True)
            if self._made:
                with contextlib.suppress(OSError):  # a worker is still writing to it
                    self.path.rmdir()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _open(self, identity: JobIdentity, resume: bool) -> None:
        if os.name != "nt":  # Windows cannot open a folder
            self._lock = os.open(self.path, os.O_RDONLY)
            lock(self._lock, self.path)
        names = sorted(entry.name for entry in self.path.iterdir() if not _is_temporary(entry.name))
        if not names:
            self._begun = True
            _write(self.path / IDENTITY_NAME, json.dumps(dict(identity)).encode() + b"\n")
        elif IDENTITY_NAME not in names:
            raise OutputError(
                f"the output {str(self.path)!r} holds {names[0]!r}, which is no result; expected an empty folder"
            )
        elif not resume:
            state = "the results of" if SUCCESS_NAME in names else "what is left from"
            raise OutputError(
                f"the output {str(self.path)!r} holds {state} another run: go on with it (--resume), or choose another"
            )
        else:
            check_identity(read_identity(self.path), identity, self.path)
            self.done = self._read_parts(names, identity_digest(identity))
            self.complete = SUCCESS_NAME in names

    def _read_parts(self, names: list[str], digest: str) -> dict[int, PartSummary]:
        """Return {index: summary} of the complete parts among the files `names`."""
        parts = {}
        for name in names:
            summary, run = _read_summary(self.path / name) if name.endswith(".parquet") else (None, None)
            if summary is None:  # such as a file that a power failure damaged: its part is written again
                continue
            if run != digest or name != part_name(summary.index):
                raise OutputError(
                    f"{str(self.path / name)!r} is not a part of these results: remove it, and go on with --resume"
                )
            parts[summary.index] = summary
        return parts


def write_part(folder: Path, table: "pyarrow.Table", summary: PartSummary, run: str) -> None:
    """Write a part of the run with this `identity_digest`; readers of the folder see all of it or nothing.

    Raises:
        OutputError: it cannot be written.
    """
    from pyarrow import parquet

    stream = BytesIO()
    metadata = json.dumps({"run": run, **asdict(summary)}).encode()
    parquet.write_table(table.replace_schema_metadata({_METADATA: metadata}), stream)
    try:
        _write(folder / part_name(summary.index), stream.getvalue())
    except OSError as error:
        raise _failure(folder, error) from error


def read_identity(folder: Path) -> object:
    """Read what the results in a folder are made from.

    Raises:
        OutputError: the file is missing or damaged.
    """
    path = folder / IDENTITY_NAME
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise OutputError(f"cannot read {str(path)!r}: {os_error_reason(error)}") from error
    except ValueError as error:
        raise OutputError(f"{str(path)!r} is damaged: delete {str(folder)!r} to begin anew") from error


def identity_digest(identity: JobIdentity) -> str:
    """Return the SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()


def part_name(index: int) -> str:
    """Return the name of a part's file."""
    return f"part-{index:06}.parquet"


def _read_summary(path: Path) -> tuple[PartSummary | None, str | None]:
    from pyarrow import parquet

    try:
        content = json.loads(parquet.read_metadata(path).metadata[_METADATA])
        run = content.pop("run")
        return PartSummary(**content), run
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's own errors are of the first two
        return None, None


def _write(path: Path, content: bytes) -> None:
    replace_file(path, content, mode=0o666)  # less the user's umask: others may read results


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")  # see `temporary_folder`


def _failure(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write to {str(folder)!r}: {os_error_reason(error)}; solve that, then go on with --resume"
    )
