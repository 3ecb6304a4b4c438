"""What `mlic-infer --input` does: the job that its options describe."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from mlic_runtime.base.far_files import absolute
from mlic_runtime.base.progress import Progress
from mlic_runtime.base.text import printable
from mlic_runtime.batch.formats import BatchFormat, Csv, JsonLines, Submission
from mlic_runtime.batch.label_ids import read_label_ids
from mlic_runtime.batch.local import identify, predict_to, require_names
from mlic_runtime.batch.resumable_file import PartialFile, Sink, StreamSink
from mlic_runtime.errors import InputError, OutputError
from mlic_runtime.predict.prediction import Deciding
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.columns import STDIN
from mlic_runtime.rows.reader import RowError, RowReader, open_rows

from .batch_options import BatchOptions


def run_batch(predictor: Predictor, source: str, format_: str, deciding: Deciding, options: BatchOptions) -> None:
    """Predict the rows of `source` and write the results.

    Args:
        predictor: the model.
        source: what `--input` names.
        format_: one of BATCH_FORMATS.
        deciding: how to predict.
        options: everything else.

    Raises:
        MlicError: the job failed, or in the end a row had.
    """
    failed: list[str] = []

    def report(number: int, result: RowError) -> None:
        if format_ == "submission":  # has no place for it
            click.echo(f"Row {number}: {printable(str(result.error))}", err=True)
        if not failed:
            failed.append(f"row {number}: {result.error}")

    ids = None if options.label_ids is None else read_label_ids(Path(options.label_ids), predictor.labels)
    writer = _batch_format(format_, predictor.labels, ids)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(_open(source, options))
        if reader.note:
            click.echo(f"Note: {printable(reader.note)}", err=True)
        identity = {
            "format": format_,
            "label_ids": None if ids is None else " ".join(ids),
            "image_root": absolute(reader.root) if options.pictures else None,
            "pictures": options.pictures,
            "captions": options.captions,
            "batch_size": options.batch_size,
            **asdict(deciding),
        }
        sink: Sink = StreamSink(sys.stdout.buffer)
        if options.output is not None:
            _refuse_input_as_output(source, options.output)
            sink = PartialFile(options.output, identify(predictor, identity), resume=options.resume)
        stack.callback(sink.close)
        progress = Progress(sys.stderr, "row", reader.share)
        stack.callback(progress.close)
        rows = require_names(iter(reader)) if format_ == "submission" else iter(reader)
        mark = predict_to(
            sink,
            predictor,
            rows,
            writer,
            batch_size=options.batch_size,
            workers=options.workers,
            on_error=options.on_error,
            threshold=deciding.threshold,
            top_k=deciding.top_k,
            at_least_one=deciding.at_least_one,
            report=report,
            tick=lambda mark: progress.show(mark.rows, f"{mark.errors} failed" if mark.errors else ""),
        )
        sink.finish()
    if mark.errors:
        first = f", the first of this run: {failed[0]}" if failed else ""
        raise InputError(f"{mark.errors} of {mark.rows} rows failed{first}")


def _open(source: str, options: BatchOptions) -> RowReader:
    stream = sys.stdin.buffer if source == STDIN else source
    return open_rows(stream, image_root=options.image_root, pictures=options.pictures, captions=options.captions)


def _batch_format(name: str, labels: tuple[str, ...], ids: tuple[str, ...] | None) -> BatchFormat:
    formats: dict[str, Callable[[], BatchFormat]] = {
        "jsonl": JsonLines,
        "csv": lambda: Csv(labels),
        "submission": lambda: Submission(labels, ids),
    }
    return formats[name]()


def _refuse_input_as_output(source: str, output: str) -> None:
    if source != STDIN and Path(output).exists() and Path(output).samefile(source):
        raise OutputError(f"{output!r} is the input: choose another output")
