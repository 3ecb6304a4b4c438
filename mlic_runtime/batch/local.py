"""Batch prediction on this machine: rows from a reader, results to a writer, batch by batch, resumable."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Literal

from mlic_runtime.base.text import encode
from mlic_runtime.errors import InputError, OutputError
from mlic_runtime.predict.prediction import PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, RowError

from .formats import BatchFormat
from .resumable_file import JobIdentity, Position, ResultWriter

FORMAT_VERSION = 1  # of the meaning of a job's identity


def identify_job(predictor: Predictor, options: PredictionOptions, more: JobIdentity) -> JobIdentity:
    """Return everything that the bytes of a result file depend on; `more` is such as the format and the batch size."""
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
        **({"library": predictor.session.library} if predictor.session.provider == "openvino" else {}),
        "onnxruntime": onnxruntime.__version__,
        **more,
        **asdict(options),
        "max_pixels": predictor.max_pixels,
        "allow_truncated": predictor.allow_truncated,
    }


def write_predictions(
    writer: ResultWriter,
    predictor: Predictor,
    rows: Iterator[Row],
    format_: BatchFormat,
    options: PredictionOptions,
    *,
    batch_size: int,
    workers: int | None = None,
    on_error: Literal["record", "stop"] = "record",
    report: Callable[[int, RowError], object] = lambda number, error: None,
    tick: Callable[[Position], object] = lambda position: None,
) -> Position:
    """Predict rows and write the results, a batch at a time.

    Rows before the writer's position are read and passed over. Batches are cut at multiples of `batch_size` from the
    first row on. So the rows that share a run of the graph, and with it the last bits of a probability, are the same
    after resuming.

    Args:
        writer: where the results go.
        predictor: the model.
        rows: all rows, from the first on.
        format_: how a result is written.
        options: how the model decides.
        batch_size: rows per run of the graph, and per write.
        workers: see `Predictor.predict_rows`.
        on_error: see `Predictor.predict_rows`; with "stop", the batch of the row that failed is not written.
        report: called with the number of each row that failed, from 1 on, and its error.
        tick: called before the first batch and after each.

    Returns:
        How many rows and errors there are now, those of an earlier run included.

    Raises:
        OutputError: the rows are not those of the earlier run, or the results cannot be written.
        InputError: with on_error="stop", a row that failed; its message begins with the row's number.
    """
    if writer.complete:
        return writer.position
    checksums: deque[int] = deque()  # of the rows that are read and not yet written
    remaining = _keep_checksums(_skip(rows, writer.position), writer.position.rows_checksum, checksums)
    results = predictor.stream_rows(remaining, options, batch_size=batch_size, workers=workers)
    if writer.position.size == 0 and format_.header:
        writer.append(encode(format_.header), 0, 0, 0)
    tick(writer.position)
    try:
        while batch := list(islice(results, batch_size)):
            errors = 0
            for number, result in enumerate(batch, start=writer.position.rows + 1):
                if isinstance(result, RowError):
                    if on_error == "stop":
                        raise type(result.error)(f"row {number}: {result.error}")
                    report(number, result)
                    errors += 1
            rows_checksum = [checksums.popleft() for _ in batch][-1]
            writer.append(encode("".join(map(format_.record, batch))), len(batch), errors, rows_checksum)
            tick(writer.position)
    finally:
        results.close()
    return writer.position


def require_names(rows: Iterator[Row]) -> Iterator[Row]:
    """Replace each row without a name by an error: in a submission its result could not be told from others."""
    for row in rows:
        if row.title is None and row.error is None:
            yield Row(error=InputError("found no name of a picture; a submission needs one in every row"))
        else:
            yield row


def _skip(rows: Iterator[Row], position: Position) -> Iterator[Row]:
    """Return the rows after the position, if the rows before it are those that its results were made from."""
    checksum = 0
    for number in range(position.rows):
        row = next(rows, None)
        if row is None:
            raise OutputError(
                f"cannot resume: the input has {number} rows, and {position.rows} have results; "
                "give the input of the earlier run, or delete the .partial file to begin anew"
            )
        checksum = row.checksum(checksum)
    if checksum != position.rows_checksum:
        raise OutputError(
            f"cannot resume: the first {position.rows} rows of the input are not those that have results; "
            "give the input of the earlier run, or delete the .partial file to begin anew"
        )
    return rows


def _keep_checksums(rows: Iterator[Row], checksum: int, checksums: deque[int]) -> Iterator[Row]:
    """Pass the rows on, and append the checksum of all rows up to each to `checksums`."""
    for row in rows:
        checksum = row.checksum(checksum)
        checksums.append(checksum)
        yield row
