"""Prediction of what comes into a folder, until it is stopped: `predict_arrivals`."""

from collections.abc import Callable, Generator
from itertools import islice

from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.row import Row, RowError
from mlic_runtime.rows.watched_folder import WatchedFolder

from .formats import BatchFormat


def predict_arrivals(
    folder: WatchedFolder,
    predictor: Predictor,
    format_: BatchFormat,
    options: PredictionOptions,
    append: Callable[[str], object],
    *,
    pause: Callable[[], object],
    stopped: Callable[[], bool],
    batch_size: int,
    workers: int | None = None,
    report: Callable[[RowError], object] = lambda error: None,
) -> tuple[int, int]:
    """Predict pictures as they become complete, a batch at a time, until `stopped` says so after one.

    Args:
        folder: gives the pictures.
        predictor: the model.
        format_: how a result is written.
        options: how the model decides.
        append: takes the records of a batch.
        pause: called between two looks at the folder.
        stopped: whether to end; what is predicted is written before.
        batch_size: rows per run of the graph, and per write.
        workers: see `Predictor.predict_rows`.
        report: called with each result that is an error.

    Returns:
        How many results were written, and how many of them are errors.

    Raises:
        InputError: the folder cannot be read.
        OutputError: the results cannot be written.
    """
    rows = errors = 0
    while not stopped():
        results: Generator[Prediction | RowError, None, None] = predictor.stream_rows(
            _until(stopped, folder.look()), options, batch_size=batch_size, workers=workers
        )
        try:
            while batch := list(islice(results, batch_size)):
                append("".join(map(format_.record, batch)))
                rows += len(batch)
                for result in batch:
                    if isinstance(result, RowError):
                        errors += 1
                        report(result)
        finally:
            results.close()
        if not stopped():
            pause()
    return rows, errors


def _until(stopped: Callable[[], bool], rows: list[Row]) -> Generator[Row, None, None]:
    for row in rows:
        if stopped():
            return
        yield row
