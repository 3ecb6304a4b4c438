"""Batch prediction as a job: rows from a reader, results to a sink, batch by batch, resumable."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

from mlic_runtime.base.text import encode
from mlic_runtime.errors import InputError, OutputError
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, RowError

from .formats import BatchFormat
from .resumable_file import Identity, Mark, Sink

FORMAT_VERSION = 1  # of what a journal's identity means


def identify(predictor: Predictor, options: Identity) -> Identity:
    """What the bytes of a result file depend on: the model, the versions that compute, and the options."""
    import hashlib

    from mlic_runtime.package.manifest import dump_manifest
    from mlic_runtime.providers.library import onnxruntime
    from mlic_runtime.version import __version__

    manifest = predictor.manifest
    return {
        "format_version": FORMAT_VERSION,
        "model": manifest.title,
        "manifest_sha256": hashlib.sha256(dump_manifest(manifest).encode()).hexdigest(),
        "precision": predictor.precision,
        "provider": predictor.session.provider,
        "threads": predictor.session.threads,
        "mlic_runtime": __version__,
        "onnxruntime": onnxruntime.__version__,
        **options,
    }


def predict_to(
    sink: Sink,
    predictor: Predictor,
    rows: Iterator[Row],
    format_: BatchFormat,
    *,
    batch_size: int,
    workers: int | None = None,
    on_error: Literal["record", "stop"] = "record",
    threshold: float | None = None,
    top_k: int | None = None,
    at_least_one: bool = False,
    report: Callable[[int, RowError], object] = lambda number, error: None,
    tick: Callable[[Mark], object] = lambda mark: None,
) -> Mark:
    """Predict rows and write the results, a batch at a time.

    Rows that the sink's mark counts already are read and passed over. Batches are cut at multiples of `batch_size`
    from the first row on, so that the rows which share a run of the graph, and with it the last bits of a
    probability, are the same after resuming.

    Args:
        sink: where the results go.
        predictor: see `Predictor.predict_rows`, also for the options that follow.
        rows: all rows, from the first on.
        format_: how a result is written.
        batch_size: rows per run of the graph, and per write.
        workers: see `Predictor.predict_rows`.
        on_error: see `Predictor.predict_rows`; with "stop", the batch of the row that failed is not written.
        threshold: see `Predictor.predict`.
        top_k: see `Predictor.predict`.
        at_least_one: see `Predictor.predict`.
        report: called with the number of each row that failed, from 1 on, and its error.
        tick: called before the first batch and after each.

    Returns:
        How many rows and errors there are now, those of an earlier run included.

    Raises:
        OutputError: the rows are not those of the earlier run, or the results cannot be written.
        InputError: with on_error="stop", a row that failed; its message begins with the row's number.
    """
    if sink.complete:
        return sink.mark
    checksums: deque[int] = deque()  # of the rows that have been read and not written
    fed = _checked(_skip(rows, sink.mark), sink.mark.rows_checksum, checksums)
    results = predictor.predict_rows(
        fed,
        batch_size=batch_size,
        workers=workers,
        on_error="record",
        threshold=threshold,
        top_k=top_k,
        at_least_one=at_least_one,
    )
    if sink.mark.size == 0 and format_.header:
        sink.append(encode(format_.header), 0, 0, 0)
    tick(sink.mark)
    records: list[str] = []
    errors = 0

    def flush() -> None:
        nonlocal errors
        rows_checksum = [checksums.popleft() for _ in records][-1]
        sink.append(encode("".join(records)), len(records), errors, rows_checksum)
        tick(sink.mark)
        records.clear()
        errors = 0

    try:
        for result in results:
            if isinstance(result, RowError):
                number = sink.mark.rows + len(records) + 1
                if on_error == "stop":
                    raise type(result.error)(f"row {number}: {result.error}")
                report(number, result)
                errors += 1
            records.append(format_.record(result))
            if len(records) == batch_size:
                flush()
        if records:
            flush()
    finally:
        results.close()
    return sink.mark


def _skip(rows: Iterator[Row], mark: Mark) -> Iterator[Row]:
    """The rows behind the mark; those before it must be the ones that its results were made from."""
    checksum = 0
    for number in range(mark.rows):
        row = next(rows, None)
        if row is None:
            raise OutputError(f"cannot resume: the input has {number} rows, and {mark.rows} have results: not the same")
        checksum = row.checksum(checksum)
    if checksum != mark.rows_checksum:
        raise OutputError(
            f"cannot resume: the first {mark.rows} rows of the input are not those that have results; "
            "delete the .partial file to begin anew"
        )
    return rows


def _checked(rows: Iterator[Row], checksum: int, checksums: deque[int]) -> Iterator[Row]:
    """The same rows; the checksum up to each is added to `checksums`."""
    for row in rows:
        checksum = row.checksum(checksum)
        checksums.append(checksum)
        yield row


def require_names(rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows, but one without a name is an error: in a submission nobody could tell whose result it is."""
    for row in rows:
        if row.title is None and row.error is None:
            yield Row(error=InputError("found no name of a picture; a submission needs one in every row"))
        else:
            yield row
