"""A stream of rows into a stream of results: threads decode pictures while the graph runs on the batches before."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from mlic_runtime.base.arrays import Pixels
from mlic_runtime.errors import InputError
from mlic_runtime.rows.reader import Row, RowError

# How many batches are being decoded, or are decoded and wait, while the graph runs. One would be enough if every
# picture took the same time; the second one covers a batch of large pictures. Rows are read this far ahead, no further.
BATCHES_AHEAD = 2
# Runs of the graph at once. One run leaves CPUs idle wherever its threads wait for each other, and while its results
# become Python objects; the second one fills these gaps. A third one would cost memory and gain nothing.
RUNS_AT_ONCE = 2

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows whose pictures are being decoded into `pixels`, uint8 (B, H, W, 3); black where there is no picture."""

    rows: list[Row]
    pixels: Pixels
    decoding: list[Future[None]]


def stream_rows(
    rows: Iterable[Row],
    prepare: Callable[[Row, Pixels], None],
    run: Callable[[list[Row], Pixels], list[_Result]],
    *,
    size: tuple[int, int],
    batch_size: int,
    workers: int,
    stop_on_error: bool,
) -> Generator[_Result | RowError, None, None]:
    """Return one result for each row, in the order of the rows.

    The thread that takes the results reads the rows, in batches of `batch_size`. Rows that fail count, too: which rows
    share a batch depends only on their place.

    Args:
        rows: read at most BATCHES_AHEAD + 1 batches ahead of the results.
        prepare: checks a row and writes its picture, uint8 (H, W, 3); called in `workers` threads; raises InputError.
        run: returns the results of B rows that did not fail, from their `pixels` (B, H, W, 3); called in up to
            RUNS_AT_ONCE threads.
        size: (H, W).
        batch_size: >= 1.
        workers: >= 1; with one, there is also only one run at a time.
        stop_on_error: raise the first InputError instead of giving a RowError; its batch then has no results.
    """
    decoders = ThreadPoolExecutor(workers, thread_name_prefix="mlic-decode")
    runners = ThreadPoolExecutor(min(workers, RUNS_AT_ONCE), thread_name_prefix="mlic-run")
    iterator = iter(rows)
    waiting: deque[Future[list[_Result | RowError]]] = deque()
    try:
        while True:
            chunk = list(islice(iterator, batch_size))
            if chunk:
                pixels = np.zeros((len(chunk), *size, 3), dtype=np.uint8)
                decoding = [decoders.submit(prepare, row, out) for row, out in zip(chunk, pixels, strict=True)]
                waiting.append(runners.submit(_finish, _Batch(chunk, pixels, decoding), run, stop_on_error))
            if not waiting:
                return
            if not chunk or len(waiting) > BATCHES_AHEAD:
                yield from waiting.popleft().result()
    finally:
        decoders.shutdown(wait=False, cancel_futures=True)
        runners.shutdown(wait=True, cancel_futures=True)
        decoders.shutdown(wait=True)


def _finish(
    batch: _Batch, run: Callable[[list[Row], Pixels], list[_Result]], stop_on_error: bool
) -> list[_Result | RowError]:
    """Wait for the pictures of a batch, run the graph on it, and return one result for each row."""
    errors: list[InputError | None] = []
    for future in batch.decoding:
        try:
            future.result()
        except InputError as error:
            if stop_on_error:
                raise
            errors.append(error)
        else:
            errors.append(None)
    good = [index for index, error in enumerate(errors) if error is None]
    pixels = batch.pixels if len(good) == len(errors) else batch.pixels[good]
    results = iter(run([batch.rows[index] for index in good], pixels) if good else [])
    return [
        next(results) if row_error is None else RowError(row.title, row_error)
        for row, row_error in zip(batch.rows, errors, strict=True)
    ]
