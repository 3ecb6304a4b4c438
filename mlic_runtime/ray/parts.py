"""The work of `mlic-infer --engine ray` in a cluster: one task reads rows in parts, actors predict and write them."""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlic_runtime.batch.local import identify_job
from mlic_runtime.batch.resumable_file import JobIdentity
from mlic_runtime.errors import InputError, MlicError, OutputError, PackageError
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
    image_column: str | None = None  # these two, see `open_rows`
    caption_column: str | None = None

    def open_rows(self) -> RowReader:
        """Open the source.

        Raises:
            InputError: it cannot be read.
        """
        return open_rows(
            self.source,
            image_root=self.image_root,
            pictures=self.pictures,
            captions=self.captions,
            image_column=self.image_column,
            caption_column=self.caption_column,
        )


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
    """Read the input, for `map_batches`: a table for each part that is not done.

    One task reads it from beginning to end, because what a row is, and its number, depends on the rows before it. A
    problem with the input as a whole is in the last table: Ray would wrap an exception in its own traces.
    """
    try:
        with job.open_rows() as reader:
            for part in split_into_parts(reader, job.rows_per_part):
                if part.index not in job.done:
                    yield part_to_table(part)
    except MlicError as error:
        yield _to_table({"failure": error.to_dict()}, [])


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
        """Write parts, and return a table for `read_reports`."""
        import pyarrow as pa

        return pa.table({"report": [json.dumps(self._report(entry)) for entry in parts.to_pylist()]})

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

    def _report(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Write a part, and return {"summary", "first_error"} as in `PartReport`, or {"failure": the error}."""
        content = json.loads(entry["content"])
        try:
            if "failure" in content:
                raise MlicError.from_dict(content["failure"])
            if self._failure is not None:
                raise self._failure
            return asdict(self._write(content, entry["pictures"]))
        except MlicError as error:
            return {"failure": error.to_dict()}

    def _write(self, part: dict[str, Any], pictures: list[bytes | None]) -> PartReport:
        job = self._job
        results: list[Prediction | RowError] = []
        errors: list[tuple[int, str]] = []
        rows = [self._row(cells, picture) for cells, picture in zip(part["rows"], pictures, strict=True)]
        for number, result in enumerate(
            self._predictor.stream_rows(rows, job.options, batch_size=job.batch_size, workers=job.workers),
            start=part["start"] + 1,
        ):
            results.append(result)
            if isinstance(result, RowError):
                if job.stop:
                    raise type(result.error)(f"row {number}: {result.error}")
                errors.append((number, str(result.error)))
        summary = PartSummary(part["index"], len(results), len(errors), part["checksum"], part["last"])
        table = result_table(results, self._predictor.labels, part["start"])
        write_part(job.folder, table, summary, self._identity_digest)
        return PartReport(summary, errors[0] if errors else None)

    def _row(self, cells: dict[str, Any], picture: bytes | None) -> Row:
        """Make a row of what `part_to_table` wrote; a picture that has only a name is found from this machine."""
        name, caption = cells["name"], cells["caption"]
        if cells["error"] is not None:
            error = MlicError.from_dict(cells["error"])
            return Row(name=name, error=error if isinstance(error, InputError) else InputError(str(error)))
        if cells["has_picture"] and picture is None and self._find_picture is not None:
            return Row(self._find_picture(name), caption, name)
        return Row(picture, caption, name)


def read_reports(table: "pyarrow.Table") -> Iterator[PartReport]:
    """Yield what `PartWriter` reports.

    Raises:
        MlicError: the job failed.
    """
    for content in map(json.loads, table["report"].to_pylist()):
        if "failure" in content:
            raise MlicError.from_dict(content["failure"])
        yield PartReport(PartSummary(**content["summary"]), content["first_error"] and tuple(content["first_error"]))


def part_to_table(part: Part) -> "pyarrow.Table":
    """Return a table with one row for a part, as plain data: Ray Data passes tables from task to task."""
    rows = [
        {
            "name": row.name,
            "caption": row.caption,
            "has_picture": row.image is not None,
            "error": None if row.error is None else row.error.to_dict(),
        }
        for row in part.rows
    ]
    pictures = [row.image if isinstance(row.image, bytes) else None for row in part.rows]
    place = {"index": part.index, "start": part.start, "checksum": part.checksum, "last": part.last}
    return _to_table({**place, "rows": rows}, pictures)


def _to_table(content: dict[str, Any], pictures: list[bytes | None]) -> "pyarrow.Table":
    import pyarrow as pa

    # JSON in ASCII, because a name may hold what is not UTF-8.
    column = pa.array([pictures], type=pa.list_(pa.large_binary()))
    return pa.table({"content": [json.dumps(content)], "pictures": column})
