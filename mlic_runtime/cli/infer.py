"""`mlic-infer`. Heavy imports wait until it runs: `--help` loads none of them."""

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.text import printable
from mlic_runtime.limits import MAX_PIXELS
from mlic_runtime.version import __version__

from .batch_options import BatchOptions, batch_options
from .command import MlicCommand, model_options, write
from .formats import BATCH_FORMATS, FORMATS, MODEL_FORMATS
from .single_input import caption_of, picture_of
from .usage import check_usage

if TYPE_CHECKING:
    from mlic_runtime.predict.predictor import Predictor


@click.command(
    cls=MlicCommand,
    context_settings={"max_content_width": 120},
    epilog='Example:  mlic-infer beach.jpg "A dog runs on the beach" --top-k 5',
)
@click.argument("image", required=False)
@click.argument("caption", required=False)
@click.option(
    "--sidecar", is_flag=True, help="The caption is the text of the .txt file of the same name beside IMAGE (UTF-8)."
)
@batch_options
@model_options()
@click.option(
    "--list-models", is_flag=True, help="List the models that have a name here, and where they come from; then stop."
)
@click.option(
    "--verify",
    metavar="PACKAGE",
    help="Check every file of a model package (see --model): name, bytes, start of its sha256; then stop.",
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Replace the threshold of every label.")
@click.option("--top-k", type=click.IntRange(1), help="Show only the K most probable labels.")
@click.option("--at-least-one", is_flag=True, help="Where no label reaches its threshold, predict the most probable.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(dict.fromkeys([*FORMATS, *BATCH_FORMATS]))),
    help="json: one indented object; jsonl: the same on one line; csv: image, caption, model, labels joined by ';', "
    "then the probability of each label in a column p_LABEL, and with --input a column error; submission: ImageID and "
    "Labels, only with --input; --list-models: table, json, jsonl or csv.  [default: table; with --input jsonl]",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse larger pictures (width x height).",
)
@click.option(
    "--allow-truncated",
    is_flag=True,
    help="Of a picture file whose end is missing, take what there is; not of WebP.  [default: refuse it]",
)
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what runs, and why in that precision.")
@click.version_option(__version__, prog_name="mlic-infer")
@click.pass_context
def infer(
    context: click.Context,
    /,
    image: str | None,
    caption: str | None,
    sidecar: bool,
    input_: str | None,
    model: str | None,
    precision: str,
    provider: str,
    threads: int | None,
    spin: bool,
    cache: bool,
    list_models: bool,
    verify: str | None,
    threshold: float | None,
    top_k: int | None,
    at_least_one: bool,
    format_: str | None,
    max_pixels: int,
    allow_truncated: bool,
    verbose: bool,
    **batch: Any,
) -> None:
    """Predict the labels of IMAGE, a picture file, with its optional CAPTION; or of many, with --input.

    IMAGE is a JPEG, PNG, WebP, GIF, BMP or TIFF file, or HEIC where pillow-heif is installed. "-" reads one of them,
    the picture or the caption (as UTF-8), from standard input. A label is predicted when its probability reaches its
    threshold; both are part of the model.

    With --input there is one result for each row, in their order. That of a row which fails is {"image", "error":
    {"type", "message"}}, and the exit code is then 1. A run that was interrupted, however hard, is completed by the
    same command with --resume. With --engine ray the results are Parquet files in a folder.
    """
    check_usage(context, image, input_, format_)
    if list_models:
        _list_models(format_ or "table")
        return
    if verify is not None:
        _verify(verify)
        return
    from mlic_runtime.predict.predictor import Predictor

    if batch["engine"] == "ray":
        threads = threads or 1  # of each worker: the cluster has many
    loading: dict[str, Any] = {"provider": provider, "precision": precision, "threads": threads, "spin": spin}
    loading |= {"max_pixels": max_pixels, "allow_truncated": allow_truncated, "cache": cache}
    predictor = Predictor.load(model, **loading)
    if verbose:
        _say_what_runs(predictor)
    if input_ is not None:
        from mlic_runtime.predict.prediction import Deciding

        from .batch import run_batch

        gc.enable()  # `main` turned it off
        deciding = Deciding(threshold, top_k, at_least_one, max_pixels, allow_truncated)
        options = BatchOptions(**batch)
        if options.engine == "ray":
            from .ray import run_on_ray

            run_on_ray(predictor, input_, model, loading, deciding, options)
        else:
            run_batch(predictor, input_, format_ or "jsonl", deciding, options)
        return
    text = caption_of(image, caption, sidecar)
    source = picture_of(image)
    prediction = predictor.predict(source, text, threshold=threshold, top_k=top_k, at_least_one=at_least_one)
    write(FORMATS[format_ or "table"](prediction, predictor.labels))


def _say_what_runs(predictor: "Predictor") -> None:
    session = predictor.session
    threads = "1 thread" if session.threads == 1 else f"{session.threads} threads"
    runs = f"{predictor.manifest.title}: {predictor.precision} on {session.provider}, {threads}"
    provider = "" if predictor.provider_reason == "as asked" else f"provider: {predictor.provider_reason}; "
    click.echo(
        printable(f"{runs} ({provider}precision: {predictor.precision_reason}; graph: {predictor.graph_origin})"),
        err=True,
    )


def _list_models(format_: str) -> None:
    from mlic_runtime.package.catalog import list_models

    write(MODEL_FORMATS[format_](list_models()))


def _verify(path_or_name: str) -> None:
    from mlic_runtime.package.model_package import load_package

    package = load_package(path_or_name)
    width = max(map(len, package.manifest.files))
    for name, spec in package.verified():
        write(f"{name:{width}}  {spec.bytes:>10}  {spec.sha256[:12]}\n")
    write("ok\n")


def main() -> None:
    """The console script `mlic-infer`: the process ends with the command.

    It ends as soon as everything is written. To take down a Python interpreter with all of its libraries in it is an
    eighth of the time of a prediction, and nothing of ours waits for that: files are closed by who opened them. Nor is
    garbage collected for one prediction: the libraries make tens of thousands of objects as they load, and keep them.
    """
    gc.disable()
    # numpy's OpenBLAS would start a thread for each CPU, in 80 ms of CPU time, for products of matrices that we lack.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        infer(prog_name="mlic-infer")
    except SystemExit as end:
        if not isinstance(end.code, int):  # a message, which Python writes
            raise
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # None: the process was started without it
                stream.flush()
        os._exit(end.code)
