"""Requests that arrive together share a run of the graph: `Batcher`."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from mlic_runtime.base.arrays import Pixels
from mlic_runtime.errors import InputError
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.row import Row

from .errors import RequestTooLargeError, ServerBusyError
from .settings import ServeSettings


@dataclass(eq=False, slots=True)
class _Waiting:
    """A row that is ready for the graph."""

    row: Row
    pixels: Pixels
    options: PredictionOptions
    answer: "asyncio.Future[Prediction]"


class Batcher:
    """Decodes rows in threads, and runs the graph on those that are ready, in other threads.

    A row that is alone runs at once. It waits for others, for at most `max_wait`, only while they are being decoded.
    Where one run is in progress, a second one begins: it uses the CPUs that the first one leaves idle.

    It is a context manager of one event loop, and all methods are called there.

    Args:
        predictor: the model.
        settings: batch size, waiting, queue and threads.
        on_batch: called with the number of rows of each run of the graph.

    Attributes:
        accepted: rows that are accepted and not yet answered.
    """

    def __init__(
        self, predictor: Predictor, settings: ServeSettings, on_batch: Callable[[int], object] = lambda rows: None
    ) -> None:
        self._predictor = predictor
        self._settings = settings
        self._batch_size = settings.largest_batch(predictor.session.provider)
        self._runs = settings.runs_at_once(predictor.session.provider)
        self._on_batch = on_batch
        self.accepted = 0
        self._decoding = 0
        self._ready: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Batcher":
        self._decoders = ThreadPoolExecutor(self._settings.decoding_threads, thread_name_prefix="mlic-decode")
        self._graph = ThreadPoolExecutor(self._runs, thread_name_prefix="mlic-graph")
        self._free = asyncio.Semaphore(self._runs)
        self._task = asyncio.get_running_loop().create_task(self._run_batches())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the threads. Whoever waits for an answer has to be done before."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.gather(*self._running)
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._graph.shutdown(wait=True, cancel_futures=True)

    async def predict(
        self, rows: Sequence[Row], options: PredictionOptions, *, evidence: bool = False
    ) -> list[Prediction | InputError]:
        """Predict rows; in the place of a row that cannot be predicted stands its error.

        Raises:
            ServerBusyError: the queue has no room for them; nothing was done.
            RequestTooLargeError: it never has room for as many.
        """
        with self._accept(len(rows)):
            return list(await asyncio.gather(*(self._predict(row, options, evidence) for row in rows)))

    @contextlib.contextmanager
    def _accept(self, rows: int) -> Iterator[None]:
        if rows > self._settings.max_queue:
            raise RequestTooLargeError(
                f"found {rows} inputs in a request; the queue of this server takes {self._settings.max_queue}"
            )
        if self.accepted + rows > self._settings.max_queue:
            raise ServerBusyError(
                f"the queue is full ({self.accepted} pictures of {self._settings.max_queue}): try again later"
            )
        self.accepted += rows
        try:
            yield
        finally:
            self.accepted -= rows

    async def _predict(self, row: Row, options: PredictionOptions, evidence: bool) -> Prediction | InputError:
        loop = asyncio.get_running_loop()
        self._decoding += 1
        try:
            pixels = await loop.run_in_executor(self._decoders, self._predictor.prepare, row)
        except InputError as error:
            return error
        finally:
            self._decoding -= 1
            self._changed.set()
        if evidence:
            return await loop.run_in_executor(self._graph, self._explain, row, pixels, options)
        # Without the bytes of the picture: they are not needed any more.
        waiting = _Waiting(Row(name=row.title, caption=row.caption), pixels, options, loop.create_future())
        self._ready.append(waiting)
        self._changed.set()
        return await waiting.answer

    def _explain(self, row: Row, pixels: Pixels, options: PredictionOptions) -> Prediction:
        return self._predictor.predict(
            None if row.image is None else pixels,  # resizing them to their own size changes nothing
            row.caption,
            threshold=options.threshold,
            top_k=options.top_k,
            at_least_one=options.at_least_one,
            evidence=True,
        )

    async def _run_batches(self) -> None:
        while True:
            await self._free.acquire()
            while not self._ready:
                self._changed.clear()
                await self._changed.wait()
            await self._wait_for_more()
            batch = [self._ready.popleft() for _ in range(min(len(self._ready), self._batch_size))]
            batch = [waiting for waiting in batch if not waiting.answer.done()]  # whoever asked may be gone
            if batch:
                run = asyncio.create_task(self._run_batch(batch))
                self._running.add(run)
                run.add_done_callback(self._running.discard)
            else:
                self._free.release()

    async def _wait_for_more(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.max_wait
        while len(self._ready) < self._batch_size and self._decoding:
            left = end - loop.time()
            if left <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                return

    async def _run_batch(self, batch: list[_Waiting]) -> None:
        self._on_batch(len(batch))
        rows, options = [waiting.row for waiting in batch], [waiting.options for waiting in batch]
        pixels = np.stack([waiting.pixels for waiting in batch])
        loop = asyncio.get_running_loop()
        try:
            predictions = await loop.run_in_executor(
                self._graph, self._predictor.predict_prepared, rows, pixels, options
            )
        except Exception as error:  # each of them gets it; the next batch may do
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        finally:
            self._free.release()
        for waiting, prediction in zip(batch, predictions, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(prediction)
