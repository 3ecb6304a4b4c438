"""What travels through Ray for `mlic-infer --engine ray`: rows in parts to the actors, what became of them back."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlic_runtime import errors
from mlic_runtime.batch.local import identify
from mlic_runtime.batch.resumable_file import Identity
from mlic_runtime.errors import InputError, MlicError, OutputError, PackageError
from mlic_runtime.predict.prediction import Deciding, Prediction
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, RowError, open_rows, picture_finder

from .folder import PartMark, digest, read_identity, write_part
from .results import result_table, writable

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of the input, one after the other.

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

    def agrees_with(self, mark: PartMark) -> bool:
        """Whether results that say this of themselves can be those of the rows."""
        return (mark.rows, mark.checksum, mark.last) == (len(self.rows), self.checksum, self.last)


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker has to know.

    Attributes:
        source: see `open_rows`.
        image_root: same.
        pictures: same.
        captions: same.
        folder: of the results.
        identity: what they are made from.
        model: see `Predictor.load`.
        loading: the other arguments of `Predictor.load`.
        deciding: see `Predictor.predict_rows`.
        batch_size: same.
        workers: same.
        stop: a row that fails ends the job.
        rows_per_part: a multiple of `batch_size`, so that rows share a run of the graph as they do without Ray.
        done: indices of the parts that are written.
    """

    source: str
    image_root: str | None
    pictures: bool
    captions: bool
    folder: Path
    identity: Identity
    model: str | None
    loading: Mapping[str, Any]
    deciding: Deciding
    batch_size: int
    workers: int
    stop: bool
    rows_per_part: int
    done: frozenset[int]


def cut(rows: Iterable[Row], size: int) -> Iterator[Part]:
    """The rows in parts of `size`; an input without rows is one part without rows."""
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
    """Read the input, for `map_batches`: a table with one row for each part that is not done.

    It is read by one task from beginning to end, for what a row is and which number it has depends on those before.
    A problem with the input as a whole travels as a row that says so: Ray would wrap an exception in its traces.
    """
    try:
        with open_rows(job.source, image_root=job.image_root, pictures=job.pictures, captions=job.captions) as reader:
            for part in cut(reader, job.rows_per_part):
                if part.index not in job.done:
                    yield _to_table(part)
    except MlicError as error:
        yield _to_table(Part(-1, 0, [], 0, last=False), error)


class PartWriter:
    """Predicts parts and writes them, for `map_batches`; one in each actor."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._failure: MlicError | None = None
        try:
            self._start()
        except MlicError as error:  # raised here, it would be one of several deaths of actors, and their traces
            self._failure = error

    def __call__(self, parts: "pyarrow.Table") -> "pyarrow.Table":
        """Write the parts, and say what became of each."""
        import pyarrow as pa

        return pa.Table.from_pylist([self._report(entry) for entry in parts.to_pylist()], schema=_report_schema())

    def _start(self) -> None:
        job = self._job
        host = socket.gethostname()
        if read_identity(job.folder) != dict(job.identity):
            raise OutputError(f"{str(job.folder)!r} on {host} is not the folder of this run: choose one that all share")
        self._predictor = Predictor.load(job.model, **job.loading)
        for name, here in identify(self._predictor, {}).items():
            if job.identity[name] != here:
                raise PackageError(
                    f"{host} has {name} {here!r}, and the job was begun with {job.identity[name]!r}: "
                    "install the same model and versions everywhere"
                )
        self._run = digest(job.identity)
        self._find = picture_finder(str(job.identity["image_root"])) if job.pictures else None

    def _report(self, entry: dict[str, Any]) -> dict[str, Any]:
        try:
            if entry["failure_type"] is not None:
                raise _error(entry["failure_type"], entry["failure"])
            if self._failure is not None:
                raise self._failure
            return self._write(entry)
        except MlicError as error:
            return {"index": entry["index"], **_failure(error)}

    def _write(self, entry: dict[str, Any]) -> dict[str, Any]:
        job = self._job
        results: list[Prediction | RowError] = []
        first: dict[str, Any] = {}
        rows = [self._row(row) for row in entry["rows"]]
        for result in self._predictor.predict_rows(
            rows,
            batch_size=job.batch_size,
            workers=job.workers,
            threshold=job.deciding.threshold,
            top_k=job.deciding.top_k,
            at_least_one=job.deciding.at_least_one,
        ):
            results.append(result)
            if isinstance(result, RowError) and not first:
                number = entry["start"] + len(results)
                if job.stop:
                    raise type(result.error)(f"row {number}: {result.error}")
                first = {"first_error_row": number, "first_error": writable(str(result.error))}
        failed = sum(isinstance(result, RowError) for result in results)
        mark = PartMark(entry["index"], len(results), failed, entry["checksum"], entry["last"])
        write_part(job.folder, result_table(results, self._predictor.labels, entry["start"]), mark, self._run)
        return {**asdict(mark), **first}

    def _row(self, cells: dict[str, Any]) -> Row:
        name, caption = (None if cells[key] is None else _decode(cells[key]) for key in ("name", "caption"))
        if cells["error_type"] is not None:
            found = _error(cells["error_type"], _decode(cells["error"]))
            return Row(name=name, error=found if isinstance(found, InputError) else InputError(str(found)))
        if cells["content"] is not None:
            return Row(cells["content"], caption, name)
        if cells["found"] and name is not None and self._find is not None:
            return Row(self._find(name), caption, name)
        return Row(None, caption, name)


def mark_of(report: Mapping[str, Any]) -> PartMark:
    """What a worker says of a part.

    Raises:
        MlicError: what it says is that the job failed.
    """
    if report["failure_type"] is not None:
        raise _error(report["failure_type"], report["failure"])
    return PartMark(**{name: report[name] for name in ("index", "rows", "errors", "checksum", "last")})


def _to_table(part: Part, error: MlicError | None = None) -> "pyarrow.Table":
    import pyarrow as pa

    text = pa.binary()  # not string: a file name may hold bytes that are not UTF-8
    cells = pa.struct(
        [
            ("name", text),
            ("found", pa.bool_()),
            ("content", pa.large_binary()),
            ("caption", text),
            ("error_type", pa.string()),
            ("error", text),
        ]
    )
    schema = pa.schema(
        [
            ("index", pa.int64()),
            ("start", pa.int64()),
            ("checksum", pa.int64()),
            ("last", pa.bool_()),
            ("rows", pa.list_(cells)),
            ("failure_type", pa.string()),
            ("failure", pa.string()),
        ]
    )
    entry = {
        "index": part.index,
        "start": part.start,
        "checksum": part.checksum,
        "last": part.last,
        "rows": [_cells(row) for row in part.rows],
        **({} if error is None else _failure(error)),
    }
    return pa.Table.from_pylist([entry], schema=schema)


def _cells(row: Row) -> dict[str, Any]:
    content = row.image if isinstance(row.image, bytes) else None
    return {
        "name": _encode(row.name),
        "found": row.image is not None and content is None,
        "content": content,
        "caption": _encode(row.caption),
        "error_type": None if row.error is None else type(row.error).__name__,
        "error": None if row.error is None else _encode(str(row.error)),
    }


def _report_schema() -> "pyarrow.Schema":
    import pyarrow as pa

    numbers = [(name, pa.int64()) for name in ("index", "rows", "errors", "checksum", "first_error_row")]
    texts = [(name, pa.string()) for name in ("first_error", "failure_type", "failure")]
    return pa.schema([*numbers, ("last", pa.bool_()), *texts])


def _failure(error: MlicError) -> dict[str, Any]:
    return {"failure_type": type(error).__name__, "failure": writable(str(error))}


def _error(name: str, message: str) -> MlicError:
    kind = getattr(errors, name, MlicError)
    return kind(message) if isinstance(kind, type) and issubclass(kind, MlicError) else MlicError(message)


def _encode(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")
