"""`mlic-infer` and `mlic-bench`. Heavy imports wait until a command runs: `--help` loads none of them."""

import contextlib
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .batch_cli import BatchOptions, Deciding, batch_options, run_batch
from .errors import ImageError, MlicError
from .files import MAX_PIXELS
from .manifest import PRECISIONS
from .providers import AUTO, PROVIDERS
from .render import BATCH_FORMATS, FORMATS, MODEL_FORMATS, bench_table, choice_table, encode, printable, to_json
from .usage import check_choose, check_usage

if TYPE_CHECKING:
    from .choices import Choice
    from .predictor import Predictor

_COMMAND_LINE = f"{__name__}.command_line"

_Command = TypeVar("_Command", bound=Callable[..., Any])


class MlicCommand(click.Command):
    """Shows an `MlicError` as one line on stderr, exit code 1; usage errors keep click's exit code 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; keeps the command line, so that a result file can say how it was made."""
        ctx.meta[_COMMAND_LINE] = shlex.join([ctx.command_path, *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; an `MlicError` becomes a one-line `click.ClickException`."""
        with warnings.catch_warnings():
            # Pillow warns about broken metadata of good pictures; here, stderr is for progress and errors.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            try:
                return super().invoke(ctx)
            except MlicError as error:
                raise click.ClickException(printable(str(error))) from error


def _model_options(command: _Command) -> _Command:
    """The options that both commands share."""
    for option in reversed(
        (
            click.option(
                "--model",
                metavar="FOLDER|FILE|NAME",
                help="Model package: a folder, a .mlic file, or the name of an installed or bundled one.  "
                "[default: $MLIC_MODEL, else the model hybrid]",
            ),
            click.option(
                "--precision",
                type=click.Choice([*PRECISIONS, AUTO]),
                default=AUTO,
                show_default=True,
                help="Which graph of the package to run. auto: the one that mlic-bench --choose found best on this "
                "machine, else the one that the package recommends for the provider, else the first that it lists.",
            ),
            click.option(
                "--provider",
                type=click.Choice([*PROVIDERS, AUTO]),
                default="cpu",
                show_default=True,
                help="Execution provider of ONNX Runtime.",
            ),
            click.option(
                "--threads",
                type=click.IntRange(1),
                help="Threads for one run.  [default: as many as this process may use]",
            ),
            click.option("--spin", is_flag=True, help="Let waiting threads spin: a little faster, costs CPU time."),
        )
    ):
        command = option(command)
    return command


@click.command(
    cls=MlicCommand,
    context_settings={"max_content_width": 120},
    epilog='Example:  mlic-infer beach.jpg "A dog runs on the beach" --top-k 5',
)
@click.argument("image", required=False)
@click.argument("caption", required=False)
@batch_options
@_model_options
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
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what runs, and why in that precision.")
@click.version_option(__version__, prog_name="mlic-infer")
@click.pass_context
def infer(
    context: click.Context,
    /,
    image: str | None,
    caption: str | None,
    input_: str | None,
    model: str | None,
    precision: str,
    provider: str,
    threads: int | None,
    spin: bool,
    list_models: bool,
    verify: str | None,
    threshold: float | None,
    top_k: int | None,
    at_least_one: bool,
    format_: str | None,
    max_pixels: int,
    verbose: bool,
    **batch: Any,
) -> None:
    """Predict the labels of IMAGE, a picture file, with its optional CAPTION; or of many, with --input.

    IMAGE is a JPEG, PNG, WebP, GIF, BMP or TIFF file; "-" reads one from standard input. A label is predicted when
    its probability reaches its threshold; both are part of the model.

    With --input there is one result for each row, in their order. That of a row which fails is {"image", "error":
    {"type", "message"}}, and the exit code is then 1. A run that was interrupted, however hard, is completed by the
    same command with --resume.
    """
    check_usage(context, image, input_, format_)
    if list_models:
        _list_models(format_ or "table")
        return
    if verify is not None:
        _verify(verify)
        return
    from .predictor import Predictor

    predictor = Predictor.load(
        model, provider=provider, precision=precision, threads=threads, spin=spin, max_pixels=max_pixels
    )
    if verbose:
        _say_what_runs(predictor)
    if input_ is not None:
        deciding = Deciding(threshold, top_k, at_least_one, max_pixels)
        run_batch(predictor, input_, format_ or "jsonl", deciding, BatchOptions(**batch))
        return
    source = _read_stdin() if image == "-" else image
    prediction = predictor.predict(source, caption, threshold=threshold, top_k=top_k, at_least_one=at_least_one)
    _write(FORMATS[format_ or "table"](prediction, predictor.labels))


@click.command(
    cls=MlicCommand,
    context_settings={"max_content_width": 120},
    epilog="Example:  mlic-bench --runs 100 --threads 1",
)
@_model_options
@click.option("--image", metavar="FILE", help="Picture to run on.  [default: pseudo-random pixels]")
@click.option("--caption", help="Caption to run on.  [default: a fixed one]")
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Pictures per run.")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="Measured runs.")
@click.option("--warmup", type=click.IntRange(1), default=10, show_default=True, help="Runs before them.")
@click.option(
    "--against",
    metavar="NAME",
    multiple=True,
    help="Compare with this backend; may be repeated.  [default: every installed one that can run the model]",
)
@click.option("--checkpoint", metavar="FOLDER", help="Checkpoint for the backends that need one, such as pytorch.")
@click.option(
    "--choose",
    is_flag=True,
    help="Measure every precision of the model instead, and make the best one what --precision auto takes on this "
    "machine. A less exact one must be at least 5 % faster at the median.",
)
@click.option(
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output."
)
@click.version_option(__version__, prog_name="mlic-bench")
@click.pass_context
def bench(
    context: click.Context,
    /,
    model: str | None,
    precision: str,
    provider: str,
    threads: int | None,
    spin: bool,
    image: str | None,
    caption: str | None,
    batch_size: int,
    runs: int,
    warmup: int,
    against: tuple[str, ...],
    checkpoint: str | None,
    choose: bool,
    format_: str,
) -> None:
    """Measure how fast a model runs on this machine.

    Measured is the graph alone, warm: from pixels and tokens in memory to logits. Other installed backends
    (mlic-train brings "pytorch") take turns with the runtime, and their logits are compared.
    """
    if choose:
        check_choose(context)
    from .package import load_package

    package = load_package(model)
    measuring: dict[str, Any] = {
        "image": image,
        "caption": caption,
        "runs": runs,
        "warmup": warmup,
        "threads": threads,
        "spin": spin,
        "provider": provider,
    }
    if choose:
        from .choosing import choose_precision

        with _progress(runs + warmup) as step:
            chosen = choose_precision(package, progress=step, **measuring)
        _save(chosen.choice)
        _report(context, chosen.to_dict(), choice_table(chosen), format_)
        return
    from .bench import benchmark

    with _progress(runs + warmup) as step:
        report = benchmark(
            package,
            batch_size=batch_size,
            precision=precision,
            against=against,
            checkpoint=checkpoint,
            progress=step,
            **measuring,
        )
    for note in report.notes:
        click.echo(f"Note: {printable(note)}", err=True)
    _report(context, report.to_dict(), bench_table(report), format_)


def _say_what_runs(predictor: "Predictor") -> None:
    session = predictor.session
    threads = "1 thread" if session.threads == 1 else f"{session.threads} threads"
    runs = f"{predictor.manifest.title}: {predictor.precision} on {session.provider}, {threads}"
    click.echo(f"{runs} (precision: {predictor.precision_reason})", err=True)


@contextlib.contextmanager
def _progress(length: int) -> Iterator[Callable[[], object]]:
    """What to call after every step: a progress bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=length, label="Measuring", file=sys.stderr) as progress_bar:
        yield lambda: progress_bar.update(1)


def _save(choice: "Choice") -> None:
    from .choices import save_choice

    path, broken = save_choice(choice)
    if broken is not None:
        click.echo(f"Note: replaced a file that {printable(broken)}", err=True)
    takes = f"from now on --precision auto takes {choice.precision} for {choice.model} on {choice.provider}"
    click.echo(f"Wrote {printable(str(path))}: {takes}.", err=True)


def _report(context: click.Context, content: dict[str, Any], table: str, format_: str) -> None:
    command = {"command": context.meta[_COMMAND_LINE]}
    _write(to_json({**command, **content}, indent=2) if format_ == "json" else table)


def _list_models(format_: str) -> None:
    from .catalog import list_models

    _write(MODEL_FORMATS[format_](list_models()))


def _verify(path_or_name: str) -> None:
    from .package import load_package

    package = load_package(path_or_name)
    width = max(map(len, package.manifest.files))
    for name, spec in package.verified():
        _write(f"{name:{width}}  {spec.bytes:>10}  {spec.sha256[:12]}\n")
    _write("ok\n")


def _read_stdin() -> bytes:
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError("cannot read a picture from standard input: it is empty")
    return data


def _write(text: str) -> None:
    sys.stdout.buffer.write(encode(text))
    sys.stdout.buffer.flush()
