"""`mlic-infer --input` on this machine."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import click

from mlic_runtime.annotations.source.addresses import expand
from mlic_runtime.base.far_files import absolute, is_uri, without_file_scheme
from mlic_runtime.base.progress import Progress
from mlic_runtime.base.text import printable
from mlic_runtime.batch.formats import BatchFormat, Csv, JsonLines, Submission
from mlic_runtime.batch.label_ids import read_label_ids
from mlic_runtime.batch.local import identify_job, require_names, write_predictions
from mlic_runtime.batch.resumable_file import ResultWriter, ResumableFile, StreamWriter
from mlic_runtime.errors import InputError, OutputError
from mlic_runtime.predict.prediction import PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import RowError, RowReader, open_rows
from mlic_runtime.tables.columns import STDIN

from .command import output_stream
from .options import BatchOptions
from .single_input import input_stream


def run_batch(
    predictor: Predictor, source: str, format_name: str, options: PredictionOptions, batch: BatchOptions
) -> None:
    """Predict the rows of `source`, the value of `--input`, and write the results in one of BATCH_FORMATS.

    Raises:
        MlicError: the job failed; or it is complete, and at least one row failed.
    """
    report = FailedRows(show=format_name == "submission")  # it has no place for errors
    ids = None if batch.label_ids is None else read_label_ids(Path(batch.label_ids), predictor.labels)
    format_ = make_format(format_name, predictor.labels, ids)
    stream = input_stream("rows") if source == STDIN else source
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(
            open_rows(
                stream,
                image_root=batch.image_root,
                pictures=batch.pictures,
                captions=batch.captions,
                image_column=batch.image_column,
                caption_column=batch.caption_column,
            )
        )
        show_note(reader.note)
        more = {
            "format": format_name,
            "label_ids": None if ids is None else " ".join(ids),
            "image_root": absolute(reader.root) if batch.pictures else None,
            "pictures": batch.pictures,
            "captions": batch.captions,
            "batch_size": batch.batch_size,
        }
        writer: ResultWriter
        if batch.output is None:
            writer = StreamWriter(output_stream())
        else:
            refuse_input_as_output(source, batch.output)
            writer = ResumableFile(batch.output, identify_job(predictor, options, more), resume=batch.resume)
        stack.callback(writer.close)
        progress = Progress(sys.stderr, "row", reader.share)
        stack.callback(progress.close)
        position = write_predictions(
            writer,
            predictor,
            require_names(iter(reader)) if format_name == "submission" else iter(reader),
            format_,
            options,
            batch_size=batch.batch_size,
            workers=batch.workers,
            on_error=batch.on_error,
            report=report,
            tick=lambda reached: progress.show(reached.rows, f"{reached.errors} failed" if reached.errors else ""),
        )
        writer.finish()
        show_passed_over(reader)
    raise_failed_rows(position.errors, position.rows, report.first)


class FailedRows:
    """Called with the number of each row that failed, and its error.

    Args:
        show: whether each is shown on stderr.

    Attributes:
        first: the first of them, in a line; "" until one fails.
    """

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self.first = ""

    def __call__(self, number: int, result: RowError) -> None:
        """Take note of a row."""
        if self._show:
            click.echo(f"Row {number}: {printable(str(result.error))}", err=True)
        self.first = self.first or f"row {number}: {result.error}"


def show_note(note: str) -> None:
    """Show what a reader says about the source on stderr, a line each, if it says anything."""
    for line in note.split("\n") if note else ():
        click.echo(f"Note: {printable(line)}", err=True)


def show_passed_over(reader: RowReader) -> None:
    """Show on stderr which files of a folder were no pictures, once all its rows have been read."""
    if reader.passed_over is not None:
        show_note(reader.passed_over())


def raise_failed_rows(errors: int, rows: int, first: str) -> None:
    """Raise an InputError if rows failed; `first` is the first error of this run, or "" if it had none."""
    if errors:
        raise InputError(f"{errors} of {rows} rows failed{f', the first of this run: {first}' if first else ''}")


def make_format(name: str, labels: tuple[str, ...], ids: tuple[str, ...] | None) -> BatchFormat:
    """Return one of the formats that write a record for each result; `ids` are those of a submission's labels."""
    formats: dict[str, Callable[[], BatchFormat]] = {
        "jsonl": JsonLines,
        "csv": lambda: Csv(labels),
        "submission": lambda: Submission(labels, ids),
    }
    return formats[name]()


def refuse_input_as_output(source: str, output: str) -> None:
    """Raise an OutputError if the output is the input, or one of the shards that it names."""
    name = without_file_scheme(source)
    if source == STDIN or is_uri(name) or not Path(output).exists():
        return
    if any(Path(output).samefile(file) for file in expand(Path(name)) if file.exists()):
        raise OutputError(f"{output!r} is the input: choose another output")
