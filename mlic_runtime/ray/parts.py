"""The work of `mlic-infer --engine ray` in a cluster: one task reads rows in parts, actors predict and write them."""

import pickle
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlic_runtime.batch.local import identify_job
from mlic_runtime.batch.resumable_file import JobIdentity
from mlic_runtime.errors import MlicError, OutputError, PackageError
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, RowError, RowReader, open_rows, picture_finder

from .folder import PartSummary, identity_digest, read_identity, write_part
from .results import result_table

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of the input.

    Attributes:
        index: its place, from 0 on.
        start: how many rows come before it.
        rows: at least one, unless the input has none.
        checksum: CRC-32 of all rows up to its end, see `Row.checksum`.
        last: whether the input ends with it.
    """

    index: int
    start: int
    rows: list[Row]
    checksum: int
    last: bool

    def matches(self, summary: PartSummary) -> bool:
        """Return whether results with this summary can be those of the rows."""
        return (summary.rows, summary.checksum, summary.last) == (len(self.rows), self.checksum, self.last)


@dataclass(frozen=True, slots=True)
class PartReport:
    """A part that is written.

    Attributes:
        summary: of the part.
        first_error: (number of the row, message) of its first row that failed; None if there is none.
    """

    summary: PartSummary
    first_error: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker has to know."""

    # See `open_rows`.
    source: str
    image_root: str | None
    pictures: bool
    captions: bool
    folder: Path  # of the results
    identity: JobIdentity
    # See `Predictor.load`; `loading` are its other arguments.
    model: str | None
    loading: Mapping[str, Any]
    # See `Predictor.stream_rows`.
    options: PredictionOptions
    batch_size: int
    workers: int
    stop: bool  # when a row fails
    rows_per_part: int  # a multiple of `batch_size`, so that rows share a run of the graph as they do without Ray
    done: frozenset[int]  # indices of the parts that are written

    def open_rows(self) -> RowReader:
        """Open the source.

        Raises:
            InputError: it cannot be read.
        """
        return open_rows(self.source, image_root=self.image_root, pictures=self.pictures, captions=self.captions)


def split_into_parts(rows: Iterable[Row], size: int) -> Iterator[Part]:
    """Yield the rows in parts of `size`; an input without rows is one part without rows."""
    iterator = iter(rows)
    chunk = list(islice(iterator, size))
    index = checksum = 0
    while True:
        following = list(islice(iterator, size))
        for row in chunk:
            checksum = row.checksum(checksum)
        yield Part(index, index * size, chunk, checksum, last=not following)
        if not following:
            return
        chunk = following
        index += 1


def read_parts(batch: Any, job: Job) -> "Iterator[pyarrow.Table]":
    """Read the input, for `map_batches`: a table for each part that is not done (see `pack`).

    One task reads it from beginning to end, because what a row is, and its number, depends on the rows before it. A
    problem with the input as a whole is packed as well: Ray would wrap an exception in its own traces.
    """
    try:
        with job.open_rows() as reader:
            for part in split_into_parts(reader, job.rows_per_part):
                if part.index not in job.done:
                    yield pack(replace(part, rows=[_with_picture_by_name(row) for row in part.rows]))
    except MlicError as error:
        yield pack(error)


class PartWriter:
    """Predicts parts and writes them, for `map_batches`; one in each actor."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._failure: MlicError | None = None
        try:
            self._start()
        except MlicError as error:  # raised here, it would be shown as the death of an actor, with Ray's traces
            self._failure = error

    def __call__(self, parts: "pyarrow.Table") -> "pyarrow.Table":
        """Write parts (see `pack`), and return a `PartReport`, or the error that ends the job, for each."""
        return pack(*(self._report(content) for content in unpack(parts)))

    def _start(self) -> None:
        job = self._job
        host = socket.gethostname()
        if read_identity(job.folder) != dict(job.identity):
            raise OutputError(f"{str(job.folder)!r} on {host} is not the folder of this run: choose one that all share")
        self._predictor = Predictor.load(job.model, **job.loading)
        for name, here in identify_job(self._predictor, job.options, {}).items():
            if job.identity[name] != here:
                raise PackageError(
                    f"{host} has {name} {here!r}, and the job was begun with {job.identity[name]!r}: "
                    "install the same model and versions everywhere"
                )
        self._identity_digest = identity_digest(job.identity)
        self._find_picture = picture_finder(str(job.identity["image_root"])) if job.pictures else None

    def _report(self, content: Part | MlicError) -> PartReport | MlicError:
        if isinstance(content, MlicError):
            return content
        if self._failure is not None:
            return self._failure
        try:
            return self._write(content)
        except MlicError as error:
            return error

    def _write(self, part: Part) -> PartReport:
        job = self._job
        results: list[Prediction | RowError] = []
        errors: list[tuple[int, str]] = []
        rows = [self._with_picture(row) for row in part.rows]
        for number, result in enumerate(
            self._predictor.stream_rows(rows, job.options, batch_size=job.batch_size, workers=job.workers),
            start=part.start + 1,
        ):
            results.append(result)
            if isinstance(result, RowError):
                if job.stop:
                    raise type(result.error)(f"row {number}: {result.error}")
                errors.append((number, str(result.error)))
        summary = PartSummary(part.index, len(results), len(errors), part.checksum, part.last)
        table = result_table(results, self._predictor.labels, part.start)
        write_part(job.folder, table, summary, self._identity_digest)
        return PartReport(summary, errors[0] if errors else None)

    def _with_picture(self, row: Row) -> Row:
        """Undo `_with_picture_by_name`."""
        if self._find_picture is None or not isinstance(row.image, str):
            return row
        return replace(row, image=self._find_picture(row.image))


def read_reports(table: "pyarrow.Table") -> Iterator[PartReport]:
    """Yield what `PartWriter` reports.

    Raises:
        MlicError: the job failed.
    """
    for report in unpack(table):
        if isinstance(report, MlicError):
            raise report
        yield report


def pack(*contents: Part | PartReport | MlicError) -> "pyarrow.Table":
    """Return a table with a row for each content: what Ray Data passes from task to task are tables."""
    import pyarrow as pa

    return pa.table({"content": pa.array([pickle.dumps(content) for content in contents], type=pa.large_binary())})


def unpack(table: "pyarrow.Table") -> Iterator[Any]:
    """Yield what `pack` was given."""
    return map(pickle.loads, table["content"].to_pylist())


def _with_picture_by_name(row: Row) -> Row:
    """Replace the place of a picture on this machine by its name: the worker looks it up where it runs."""
    return row if row.image is None or isinstance(row.image, bytes) else replace(row, image=row.name)
