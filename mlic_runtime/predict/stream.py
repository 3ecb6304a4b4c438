"""Rows to results without end: pictures are decoded in threads while the graph runs on the batch before them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from mlic_runtime.base.arrays import Pixels
from mlic_runtime.errors import InputError
from mlic_runtime.rows.reader import Row, RowError

# Batches that are being decoded or wait, decoded, while the graph runs. One would do if every picture took the same
# time; the second covers a batch of large ones. Rows are read this far ahead and no further.
BATCHES_AHEAD = 2

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
    """One result for each row, in the order of the rows.

    The rows are read by the thread that asks for results, in batches of `batch_size`, counting rows that fail: which
    rows share a batch depends on nothing but their place.

    Args:
        rows: read at most BATCHES_AHEAD + 1 batches ahead of the results.
        prepare: checks a row and writes its picture, uint8 (H, W, 3); called in `workers` threads; raises InputError.
        run: the results of B rows without fault, with their `pixels` (B, H, W, 3).
        size: (H, W).
        batch_size: >= 1.
        workers: >= 1.
        stop_on_error: raise the first InputError instead of giving a RowError; no row of its batch has a result then.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mlic-decode")
    iterator = iter(rows)
    waiting: deque[_Batch] = deque()
    try:
        while True:
            chunk = list(islice(iterator, batch_size))
            if chunk:
                pixels = np.zeros((len(chunk), *size, 3), dtype=np.uint8)
                decoding = [pool.submit(prepare, row, out) for row, out in zip(chunk, pixels, strict=True)]
                waiting.append(_Batch(chunk, pixels, decoding))
            if not waiting:
                return
            if not chunk or len(waiting) > BATCHES_AHEAD:
                yield from _finish(waiting.popleft(), run, stop_on_error)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(
    batch: _Batch, run: Callable[[list[Row], Pixels], list[_Result]], stop_on_error: bool
) -> Iterator[_Result | RowError]:
    faults: list[InputError | None] = []
    for future in batch.decoding:
        try:
            future.result()
        except InputError as error:
            if stop_on_error:
                raise
            faults.append(error)
        else:
            faults.append(None)
    good = [index for index, fault in enumerate(faults) if fault is None]
    pixels = batch.pixels if len(good) == len(faults) else batch.pixels[good]
    results = iter(run([batch.rows[index] for index in good], pixels) if good else [])
    for row, fault in zip(batch.rows, faults, strict=True):
        yield next(results) if fault is None else RowError(row.title, fault)
