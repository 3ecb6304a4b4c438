"""The options that `--input` adds to `mlic-infer`; `batch_cli`, which is loaded with them, does what they ask for."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import click

from .columns import CAPTION_COLUMNS, IMAGE_COLUMNS
from .render import LIST_SEPARATOR

_IMAGE, _CAPTION = ", ".join(IMAGE_COLUMNS[:-1]) + f" or {IMAGE_COLUMNS[-1]}", CAPTION_COLUMNS[0]

_Command = TypeVar("_Command", bound=Callable[..., Any])


class BatchOptions(NamedTuple):
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
