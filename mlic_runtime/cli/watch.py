"""`mlic-infer --watch`."""

import contextlib
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import click

from mlic_runtime.base.files import write_to
from mlic_runtime.base.text import encode, printable
from mlic_runtime.batch.appended_file import AppendedFile
from mlic_runtime.batch.watching import predict_arrivals
from mlic_runtime.predict.prediction import PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.row import RowError
from mlic_runtime.rows.watched_folder import WatchedFolder

from .batch import make_format, show_note
from .command import output_stream
from .options import BatchOptions


def run_watch(
    predictor: Predictor,
    folder: str,
    interval: float,
    format_name: str,
    options: PredictionOptions,
    batch: BatchOptions,
) -> None:
    """Predict the pictures that come into `folder`, until SIGTERM or Ctrl-C, and append the results to the output.

    Args:
        predictor: the model.
        folder: the value of `--watch`.
        interval: seconds between two looks at it.
        format_name: "jsonl" or "csv".
        options: how the model decides.
        batch: the values of the options of `--input`.

    Raises:
        MlicError: the folder cannot be read, or the results cannot be written.
    """
    format_ = make_format(format_name, predictor.labels, None)
    with _stop_signals() as stop, contextlib.ExitStack() as stack:
        done: set[str] = set()
        if batch.output is None:
            stream = output_stream()
            write_to(stream, encode(format_.header))

            def append(records: str) -> None:
                write_to(stream, encode(records))
        else:
            output = AppendedFile(batch.output, format_)
            stack.callback(output.close)
            _show_earlier(output, predictor.manifest.title)
            done, append = output.done, output.append
        watched = WatchedFolder(Path(folder), done, captions=batch.captions)
        click.echo(f"Watching {printable(folder)}; Ctrl-C ends it.", err=True)
        rows, errors = predict_arrivals(
            watched,
            predictor,
            format_,
            options,
            append,
            pause=lambda: stop.wait(interval),
            stopped=stop.is_set,
            batch_size=batch.batch_size,
            workers=batch.workers,
            report=_show_error,
        )
    show_note(watched.passed_over.note())
    if watched.waiting:
        show_note(f"pictures that were not complete and have no result: {watched.waiting}")
    click.echo(f"{rows} results, {errors} of them errors.", err=True)


def _show_earlier(output: AppendedFile, title: str) -> None:
    if output.cut:
        show_note(f"cut off a last result that was not complete ({output.cut} bytes)")
    if output.done:
        show_note(f"results are there already: {len(output.done)}")
    others = sum(count for model, count in output.models.items() if model != title)
    if others:
        show_note(f"{others} of these results are of another model than {title}; they stay as they are")


def _show_error(result: RowError) -> None:
    click.echo(f"{printable(result.image or '')}: {printable(str(result.error))}", err=True)


class _Stop:
    """Whether to end. Not a `threading.Event`: a signal that comes as one is asked would wait for itself."""

    def __init__(self) -> None:
        self._set = False
        self._reader, self._writer = socket.socketpair()

    def set(self) -> None:
        """Say so, from the handler of a signal."""
        self._set = True
        self._writer.send(b".")

    def is_set(self) -> bool:
        """Return whether it was said."""
        return self._set

    def wait(self, seconds: float) -> None:
        """Wait until it is said, or so long."""
        select.select([self._reader], [], [], seconds)

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()
        self._writer.close()


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Yield what SIGTERM and SIGINT set; a second one of them ends the process as usual."""
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(*_: object) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()
        stop.close()
