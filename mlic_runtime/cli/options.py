"""Options that commands share, or that belong together, under headings of their own in `--help`."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import click

from mlic_runtime.base.far_files import is_uri
from mlic_runtime.base.text import LIST_SEPARATOR
from mlic_runtime.package.manifest import PRECISIONS
from mlic_runtime.providers.names import AUTO, PROVIDERS
from mlic_runtime.tables.columns import CAPTION_COLUMNS, IMAGE_COLUMNS

_IMAGE_NAMES = ", ".join((*IMAGE_COLUMNS[:2], *IMAGE_COLUMNS[3:5]))
_CAPTION_NAMES = ", ".join((CAPTION_COLUMNS[0], *CAPTION_COLUMNS[2:4]))

COUNTS = "N,..."  # how help shows an option whose callback is `parse_counts`

_Command = TypeVar("_Command", bound=Callable[..., Any])


class HeadedOption(click.Option):
    """An option that `--help` shows under a heading; see `MlicCommand`.

    Args:
        heading: the heading.
        names: see `click.Option`.
        attributes: see `click.Option`.
    """

    def __init__(self, *names: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.heading = heading


_model_option = functools.partial(click.option, cls=HeadedOption, heading="Options of the model")
_input_option = functools.partial(click.option, cls=HeadedOption, heading="Options of --input")
_ray_option = functools.partial(click.option, cls=HeadedOption, heading="Options of --engine ray")


def add_options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds several options to a command, in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def parse_counts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse the value of an option: whole numbers from 1 on, separated by commas; each is kept once."""
    if value is None:
        return None
    one = click.IntRange(1)
    try:
        return tuple(dict.fromkeys(one(part.strip(), parameter, context) for part in value.split(",")))
    except click.BadParameter:
        raise click.BadParameter(
            f"found {value!r}; expected a whole number from 1 on, or several such as 1,2,4", context, parameter
        ) from None


def model_options(several_threads: bool = False) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options that say which model runs, and how.

    Args:
        several_threads: whether `--threads` takes several numbers (see `parse_counts`).
    """
    threads: dict[str, Any] = (
        {"metavar": COUNTS, "callback": parse_counts} if several_threads else {"type": click.IntRange(1)}
    )
    return add_options(
        _model_option(
            "--model",
            metavar="FOLDER|FILE|NAME",
            help="Model package: a folder, a .mlic file, or the name of an installed or bundled model.  "
            "[default: $MLIC_MODEL, else the model hybrid]",
        ),
        _model_option(
            "--precision",
            type=click.Choice([*PRECISIONS, AUTO]),
            default=AUTO,
            show_default=True,
            help="Which graph of the package runs. auto: the one that mlic-bench --choose found best on this "
            "machine, else the one that the package recommends for the provider, else the first one that it lists. "
            "Of two int8 graphs (int8-full: 8-bit weights, int8: 7-bit) the one that suits this processor runs.",
        ),
        _model_option(
            "--provider",
            type=click.Choice([*PROVIDERS, AUTO]),
            default="cpu",
            show_default=True,
            help="What runs the graph: an execution provider of ONNX Runtime, or the package openvino. auto: the one "
            "that mlic-bench --choose found best on this machine, else the best one that loads here.",
        ),
        _model_option(
            "--threads",
            **threads,
            help="Threads for one run.  [default: one per physical core that this process may use]",
        ),
        _model_option("--spin", is_flag=True, help="Let waiting threads spin: a little faster, but costs CPU time."),
        _model_option(
            "--cache/--no-cache",
            default=True,
            help="Keep optimised graphs in the user's cache folder and load them from there; or do not use that "
            "folder.  [default: cache]",
        ),
    )


class BatchOptions(NamedTuple):
    """The values of the options that need `--input`; see `batch_options` for their meaning."""

    image_root: str | None
    image_column: str | None
    caption_column: str | None
    pictures: bool
    captions: bool
    output: str | None
    resume: bool
    batch_size: int
    workers: int | None
    on_error: Literal["record", "stop"]
    label_ids: str | None
    uncertain: int | None
    engine: Literal["local", "ray"]
    address: str | None
    actors: int | None
    rows_per_file: int


# The options of `--input` that have no meaning with `--watch`.
NOT_WATCHED = (
    "image_root",
    "image_column",
    "caption_column",
    "pictures",
    "resume",
    "on_error",
    "label_ids",
    "uncertain",
)
RAY_OPTIONS = ("address", "actors", "rows_per_file")  # of BatchOptions, those that need `--engine ray`


class _FolderOrUri(click.Path):
    """A folder that exists, or a URI, which is not looked up here."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, str) and is_uri(value) else super().convert(value, param, ctx)


# Adds `--input` and the options of BatchOptions to a command.
batch_options = add_options(
    _input_option(
        "--watch",
        type=click.Path(exists=True, file_okay=False),
        metavar="FOLDER",
        help="Predict what is in FOLDER and what comes into it, until Ctrl-C or SIGTERM: each picture once, by its "
        "name, when it and the .txt file beside it have not changed between two looks. Results are appended to "
        "--output; pictures that have one there, errors too, are not predicted again.",
    ),
    _input_option(
        "--watch-interval",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        show_default=True,
        metavar="SECONDS",
        help="Time between two looks at the folder of --watch.",
    ),
    _input_option(
        "--input",
        "input_",
        metavar="ROWS|FOLDER|-",
        help="Predict many rows. ROWS: a table (CSV, TSV, JSON lines or Parquet) with a column for pictures "
        f"({_IMAGE_NAMES}, ...), for captions ({_CAPTION_NAMES}, ...), or both (in upper or lower case; other columns "
        "are ignored). FOLDER: "
        "its pictures, also those in subfolders, in the order of their names, with the captions in .txt files "
        "of the same names. Both may be what mlic-train reads: annotations, a zip file, shards such as "
        "'train-{000..063}.tar'. -: JSON lines from standard input. ROWS and FOLDER may be URIs, such as "
        "s3://bucket/rows.csv.",
    ),
    _input_option(
        "--image-root",
        type=_FolderOrUri(),
        metavar="FOLDER",
        help="The folder of the pictures that ROWS names; a name that leads out of it is an error.  "
        "[default: the folder of ROWS]",
    ),
    _input_option(
        "--image-column", metavar="NAME", help="The column of ROWS with the pictures.  [default: by its name]"
    ),
    _input_option("--caption-column", metavar="NAME", help="The column of ROWS with captions.  [default: by its name]"),
    _input_option("--pictures/--no-pictures", default=True, help="--no-pictures: captions only."),
    _input_option("--captions/--no-captions", default=True, help="--no-captions: pictures only."),
    _input_option(
        "--output",
        type=click.Path(),
        help="Write to this file, or with --engine ray to this folder.  [default: standard output]",
    ),
    _input_option("--resume", is_flag=True, help="Go on with an interrupted run of the same command."),
    _input_option(
        "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Rows per run of the graph."
    ),
    _input_option(
        "--workers",
        type=click.IntRange(1),
        help="Threads that decode pictures; with 2 or more, the graph runs on two batches at once.  "
        "[default: one per CPU that this process may use]",
    ),
    _input_option(
        "--on-error",
        type=click.Choice(["record", "stop"]),
        default="record",
        show_default=True,
        help="When a row fails: record the error and go on, or stop.",
    ),
    _input_option(
        "--label-ids",
        metavar="FILE",
        help="CSV with LabelID,Name. A submission then has ids, separated by spaces.  "
        f"[default: names, separated by '{LIST_SEPARATOR}']",
    ),
    _input_option(
        "--uncertain",
        metavar="N",
        type=click.IntRange(1),
        help="Write only the N rows that the model is least certain of, the least certain first, once all are "
        "predicted: those with a label whose probability is nearest to its threshold (in logits). With --format "
        "label-studio these are tasks to correct, and FILE.xml beside --output FILE.json is the labelling "
        "configuration.",
    ),
    _input_option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="local: predict on this machine. ray: predict on a Ray cluster, and write Parquet files "
        "(pip install 'mlic-runtime[ray]'); --threads is then the CPUs of each worker, 1 by default.",
    ),
    _ray_option(
        "--address",
        help="The cluster, such as auto or HOST:PORT.  [default: $RAY_ADDRESS, else a cluster on this "
        "machine that ends with the command]",
    ),
    _ray_option(
        "--actors", type=click.IntRange(1), help="How many workers.  [default: as many as the cluster has CPUs for]"
    ),
    _ray_option(
        "--rows-per-file",
        type=click.IntRange(1),
        default=256,
        show_default=True,
        help="Rows that a worker takes and writes at a time; rounded up to whole batches.",
    ),
)
