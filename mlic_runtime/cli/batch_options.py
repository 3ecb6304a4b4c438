"""The options that `--input` adds to `mlic-infer`; `batch_cli`, which is loaded with them, does what they ask for."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import click

from mlic_runtime.base.far_files import is_uri
from mlic_runtime.base.text import LIST_SEPARATOR
from mlic_runtime.rows.columns import CAPTION_COLUMNS, IMAGE_COLUMNS

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
    engine: Literal["local", "ray"]
    address: str | None
    actors: int | None
    rows_per_file: int


class _FolderOrUri(click.Path):
    """A folder that is there, or a URI, of which nobody knows before it is asked."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, str) and is_uri(value) else super().convert(value, param, ctx)


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
                "-: JSON lines from standard input. ROWS and FOLDER may be URIs, such as s3://bucket/rows.csv.",
            ),
            click.option(
                "--image-root",
                type=_FolderOrUri(),
                metavar="FOLDER",
                help="Where the pictures of ROWS lie; a name that leads out of it is an error.  "
                "[default: the folder of ROWS]",
            ),
            click.option("--pictures/--no-pictures", default=True, help="--no-pictures: captions only."),
            click.option("--captions/--no-captions", default=True, help="--no-captions: pictures only."),
            click.option(
                "--output",
                type=click.Path(),
                help="Write to this file, or with --engine ray to this folder.  [default: standard output]",
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
            click.option(
                "--engine",
                type=click.Choice(["local", "ray"]),
                default="local",
                show_default=True,
                help="ray: predict on a Ray cluster, and write Parquet files (pip install 'mlic-runtime[ray]'). "
                "--threads are then the CPUs of each worker.  [default there: 1]",
            ),
            click.option(
                "--address",
                help="With --engine ray: the cluster, such as auto or HOST:PORT.  [default: $RAY_ADDRESS, else one on "
                "this machine that ends with the command]",
            ),
            click.option(
                "--actors",
                type=click.IntRange(1),
                help="With --engine ray: how many workers.  [default: as many as the cluster has CPUs for]",
            ),
            click.option(
                "--rows-per-file",
                type=click.IntRange(1),
                default=256,
                show_default=True,
                help="With --engine ray: rows that a worker takes, and writes, at a time; rounded up to whole batches.",
            ),
        )
    ):
        command = option(command)
    return command
