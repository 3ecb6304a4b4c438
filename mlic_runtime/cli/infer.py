"""`mlic-infer`. Its heavy imports are inside functions, so that `--help` loads none of them."""

import gc
import os
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.heap import use_large_pages
from mlic_runtime.base.text import printable
from mlic_runtime.limits import MAX_PIXELS
from mlic_runtime.version import __version__

from .checks import check_infer
from .command import MlicCommand, write
from .formats import BATCH_FORMATS, FORMATS, MODEL_FORMATS
from .options import BatchOptions, batch_options, model_options
from .single_input import read_caption, read_picture

if TYPE_CHECKING:
    from mlic_runtime.predict.predictor import Predictor


@click.command(
    cls=MlicCommand,
    # More than two arguments come to `checks`, which says how to give several pictures.
    context_settings={"allow_extra_args": True},
    epilog='Example:  mlic-infer beach.jpg "A dog runs on the beach" --top-k 5',
)
@click.argument("image", required=False)
@click.argument("caption", required=False)
@click.option(
    "--sidecar", is_flag=True, help="Read the caption from the .txt file (UTF-8) with the same name beside IMAGE."
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Replace the threshold of every label.")
@click.option("--top-k", type=click.IntRange(1), help="Give the probabilities of only the K most probable labels.")
@click.option("--at-least-one", is_flag=True, help="Where no label reaches its threshold, predict the most probable.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(dict.fromkeys([*FORMATS, *BATCH_FORMATS]))),
    help="json: one indented object. jsonl: the same on one line. csv: the columns image, caption, model, labels "
    "(separated by ';'), p_LABEL with the probability of each label, and with --input error. submission: the columns "
    "ImageID and Labels, only with --input. label-studio: tasks with the predictions for Label Studio, only with "
    "--uncertain; pictures of this machine are /data/local-files/?d=FOLDER/NAME.  [default: table; with --input jsonl]",
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
    help="Decode a picture file without its end as far as it goes (not WebP).  [default: refuse it]",
)
@click.option(
    "--explain",
    metavar="FILE",
    help="Also write where in the picture, and which words, the labels come from: a page that needs no other file "
    "(.html) or a picture (.png). JSON then has the numbers, too.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show on standard error which graph runs, and why.")
@click.option("--list-models", is_flag=True, help="List the models that can be used by name, and stop.")
@click.option(
    "--verify",
    metavar="PACKAGE",
    help="Check every file of a model package (see --model), list its name, bytes and start of its sha256, and stop.",
)
@model_options()
@batch_options
@click.version_option(__version__, prog_name="mlic-infer")
@click.pass_context
def infer(
    context: click.Context,
    /,
    image: str | None,
    caption: str | None,
    sidecar: bool,
    threshold: float | None,
    top_k: int | None,
    at_least_one: bool,
    format_: str | None,
    explain: str | None,
    verbose: bool,
    list_models: bool,
    verify: str | None,
    model: str | None,
    input_: str | None,
    watch: str | None,
    watch_interval: float,
    **more: Any,
) -> None:
    """Predict the labels of IMAGE, a picture file, with its optional CAPTION; or of many rows, with --input.

    IMAGE is a JPEG, PNG, WebP, GIF, BMP or TIFF file, or HEIC if pillow-heif is installed. If IMAGE or CAPTION is "-",
    it is read from standard input, a caption as UTF-8. A label is predicted when its probability reaches its threshold,
    which is part of the model.

    With --input there is one result for each row, in the order of the rows. The result of a row that fails is {"image",
    "error": {"type", "message"}}, and the exit code is then 1. After an interruption of any kind, the same command with
    --resume goes on. With --engine ray the results are Parquet files in a folder. With --watch a folder is predicted
    as pictures come into it.
    """
    check_infer(context, image, input_, format_)
    if list_models:
        _list_models(format_ or "table")
        return
    if verify is not None:
        _verify(verify)
        return
    if explain is not None:
        _check_explain(explain)
    if context.obj and input_ is None and watch is None:
        use_large_pages()
    from mlic_runtime.predict.predictor import Predictor

    batch = BatchOptions(**{name: more.pop(name) for name in BatchOptions._fields})
    loading = more  # the arguments of `Predictor.load`
    if batch.engine == "ray":
        loading["threads"] = loading["threads"] or 1  # of each worker
    predictor = Predictor.start(model, **loading)
    if verbose:
        _show_what_runs(predictor)
    if input_ is None and watch is None:
        try:
            text = read_caption(image, caption, sidecar)
            picture = read_picture(image)
            prediction = predictor.predict(  # the picture is decoded while the graph loads
                picture,
                text,
                threshold=threshold,
                top_k=top_k,
                at_least_one=at_least_one,
                evidence=explain is not None,
            )
        finally:
            predictor.wait()  # a damaged model is told before a bad picture
        if explain is not None:
            predictor.save_explanation(prediction, explain, threshold=threshold)
        write(FORMATS[format_ or "table"](prediction, predictor.labels))
        return
    from mlic_runtime.predict.prediction import PredictionOptions

    predictor.wait()
    gc.enable()  # `main` turned it off
    options = PredictionOptions(threshold, top_k, at_least_one)
    if watch is not None:
        from .watch import run_watch

        run_watch(predictor, watch, watch_interval, format_ or "jsonl", options, batch)
        return
    assert input_ is not None  # see `checks`
    if batch.engine == "ray":
        from .ray import run_on_ray

        run_on_ray(predictor, input_, model, loading, options, batch)
    elif batch.uncertain is not None:
        from .uncertain import run_uncertain

        run_uncertain(predictor, input_, format_ or "jsonl", options, batch)
    else:
        from .batch import run_batch

        run_batch(predictor, input_, format_ or "jsonl", options, batch)


def _check_explain(file: str) -> None:
    """Refuse a file before the model is loaded, rather than after."""
    from pathlib import Path

    from mlic_runtime.explain.file import check_explanation_file

    check_explanation_file(Path(file))


def _show_what_runs(predictor: "Predictor") -> None:
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
    """Run the console script `mlic-infer`, and end the process with it.

    The process ends as soon as everything is written: shutting down a Python interpreter with all these libraries takes
    an eighth of the time of a prediction, and MLIC needs none of it, because it closes its files itself. One prediction
    does not need the garbage collector, either: the libraries make tens of thousands of objects as they load, and keep
    them.
    """
    gc.disable()
    # numpy's OpenBLAS would start a thread for each CPU, in 80 ms of CPU time; nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        infer(prog_name="mlic-infer", obj=True)  # True: the process is the command's own
    except SystemExit as end:
        if not isinstance(end.code, int):  # a message, which Python itself writes
            raise
        os._exit(end.code)  # the command has flushed its streams
