"""What `--input` adds to `mlic-infer`: its options, and the job that they describe."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from .errors import InputError, OutputError
from .partial import PartialFile, Sink, StreamSink
from .progress import Progress
from .render import LIST_SEPARATOR, BatchFormat, Csv, JsonLines, Submission, printable
from .row_files import CAPTION_COLUMNS, IMAGE_COLUMNS
from .rows import STDIN, RowError, RowReader, open_rows

if TYPE_CHECKING:
    from .predictor import Predictor

_IMAGE, _CAPTION = ", ".join(IMAGE_COLUMNS[:-1]) + f" or {IMAGE_COLUMNS[-1]}", CAPTION_COLUMNS[0]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The options that only `--input` gives a meaning; see `batch_options` for what they are."""

    image_root: str | None
    pictures: bool
    captions: bool
    output: str | None
    resume: bool
    batch_size: int
    workers: int | None
    on_error: Literal["record", "stop"]
    label_ids: str | None


@dataclass(frozen=True, slots=True)
class Deciding:
    """The options of every prediction; see `Predictor.predict`."""

    threshold: float | None
    top_k: int | None
    at_least_one: bool
    max_pixels: int


def batch_options(command: _Command) -> _Command:
    """Add `--input` and the options of BatchOptions to a command."""
    for option in reversed(
        (
            click.option(
                "--input",
                "input_",
                metavar="ROWS|FOLDER|-",
                help=f"Predict many. ROWS: a .csv, .jsonl or .parquet file with a column {_IMAGE}, a column "
                f"{_CAPTION}, or both (upper or lower case; other columns are not read). FOLDER: its pictures, also "
                "those in subfolders, in the order of names, with the captions in .txt files of the same names. "
                "-: JSON lines from standard input.",
            ),
            click.option(
                "--image-root",
                type=click.Path(exists=True, file_okay=False),
                help="Where the pictures of ROWS lie; a name that leads out of it is an error.  "
                "[default: the folder of ROWS]",
            ),
            click.option("--pictures/--no-pictures", default=True, help="--no-pictures: captions only."),
            click.option("--captions/--no-captions", default=True, help="--no-captions: pictures only."),
            click.option(
                "--output", type=click.Path(dir_okay=False), help="Write to this file.  [default: standard output]"
            ),
            click.option(
                "--resume", is_flag=True, help="Go on where an interrupted run with the same options was stopped."
            ),
            click.option(
                "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Rows per run of the graph."
            ),
            click.option(
                "--workers",
                type=click.IntRange(1),
                help="Threads that decode pictures.  [default: one per CPU that this process may use]",
            ),
            click.option(
                "--on-error",
                type=click.Choice(["record", "stop"]),
                default="record",
                show_default=True,
                help="A row that fails: record the error and go on, or stop.",
            ),
            click.option(
                "--label-ids",
                metavar="FILE",
                help="CSV with LabelID,Name. A submission then has ids, separated by spaces.  "
                f"[default: names, separated by '{LIST_SEPARATOR}']",
            ),
        )
    ):
        command = option(command)
    return command


def run_batch(predictor: "Predictor", source: str, format_: str, deciding: Deciding, options: BatchOptions) -> None:
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
    from .batch import identify, predict_to, require_names
    from .label_ids import read_label_ids

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
            "image_root": str(Path(reader.root).absolute()) if options.pictures else None,
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
        progress = Progress(sys.stderr, reader.share)
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
            tick=progress,
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
