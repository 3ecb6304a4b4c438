"""`mlic-infer` and `mlic-bench`. Heavy imports wait until a command runs: `--help` loads none of them."""

import contextlib
import csv
import io
import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import ImageError, MlicError
from .files import MAX_PIXELS
from .manifest import PRECISIONS
from .providers import AUTO, PROVIDERS

if TYPE_CHECKING:
    from .bench import BenchReport
    from .predictor import Prediction

# Valid inside JSON strings, yet terminals obey them, or readers of lines split at them, or UTF-8 has no place for them.
_JSON_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")

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
                raise click.ClickException(_printable(str(error))) from error


def _model_options(command: _Command) -> _Command:
    """The options that both commands share."""
    for option in reversed(
        (
            click.option(
                "--model",
                metavar="FOLDER|NAME",
                help="Model package: a folder or a bundled name.  [default: $MLIC_MODEL, else the bundled one]",
            ),
            click.option(
                "--precision",
                type=click.Choice(PRECISIONS),
                help="Which graph of the package to run.  [default: the first one it lists]",
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
@click.argument("image")
@click.argument("caption", required=False)
@_model_options
@click.option("--threshold", type=click.FloatRange(0, 1), help="Replace the threshold of every label.")
@click.option("--top-k", type=click.IntRange(1), help="Show only the K most probable labels.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "jsonl", "csv"]),
    default="table",
    show_default=True,
    help="json: one indented object; jsonl: the same on one line; csv: image, caption, model, labels joined by ';', "
    "then the probability of each label in a column p_LABEL.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse larger pictures (width x height).",
)
@click.version_option(__version__, prog_name="mlic-infer")
def infer(
    image: str,
    caption: str | None,
    model: str | None,
    precision: str | None,
    provider: str,
    threads: int | None,
    spin: bool,
    threshold: float | None,
    top_k: int | None,
    format_: str,
    max_pixels: int,
) -> None:
    """Predict the labels of IMAGE, a picture file, with its optional CAPTION.

    IMAGE is a JPEG, PNG, WebP, GIF, BMP or TIFF file; "-" reads one from standard input. A label is predicted when
    its probability reaches its threshold; both are part of the model.
    """
    from .predictor import Predictor

    predictor = Predictor.load(
        model, provider=provider, precision=precision, threads=threads, spin=spin, max_pixels=max_pixels
    )
    source = _read_stdin() if image == "-" else image
    prediction = predictor.predict(source, caption, threshold=threshold, top_k=top_k)
    _write(_FORMATS[format_](prediction, predictor.labels))


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
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output."
)
@click.version_option(__version__, prog_name="mlic-bench")
def bench(
    model: str | None,
    precision: str | None,
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
    format_: str,
) -> None:
    """Measure how fast a model runs on this machine.

    Measured is the graph alone, warm: from pixels and tokens in memory to logits. Other installed backends
    (mlic-train brings "pytorch") take turns with the runtime, and their logits are compared.
    """
    from .bench import benchmark
    from .package import load_package

    package = load_package(model)
    with contextlib.ExitStack() as stack:
        report = benchmark(
            package,
            image=image,
            caption=caption,
            batch_size=batch_size,
            runs=runs,
            warmup=warmup,
            threads=threads,
            spin=spin,
            provider=provider,
            precision=precision,
            against=against,
            checkpoint=checkpoint,
            progress=_progress(stack, runs + warmup),
        )
    for note in report.notes:
        click.echo(f"Note: {_printable(note)}", err=True)
    result = {"command": click.get_current_context().meta[_COMMAND_LINE], **report.to_dict()}
    _write(_json(result, indent=2) if format_ == "json" else _bench_table(report))


def _progress(stack: contextlib.ExitStack, length: int) -> Callable[[], object]:
    """What to call after every step: a progress bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        return lambda: None
    progress_bar = stack.enter_context(click.progressbar(length=length, label="Measuring", file=sys.stderr))
    return lambda: progress_bar.update(1)


def _read_stdin() -> bytes:
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError("cannot read a picture from standard input: it is empty")
    return data


def _infer_table(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    chosen = set(prediction.labels)
    width = max(len("label"), *(len(label) for label in prediction.probabilities))
    rows = [f"{'label':{width}}  probability  predicted"]
    for label, probability in prediction.probabilities.items():
        rows.append(f"{label:{width}}  {probability:11.4f}  {'yes' if label in chosen else ''}".rstrip())
    image = "" if prediction.image is None else f"image    {_printable(prediction.image)}\n"
    caption = "" if prediction.caption is None else f"caption  {_printable(prediction.caption)}\n"
    return f"{image}{caption}model    {prediction.model}\n\n" + "\n".join(rows) + "\n"


def _infer_json(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    return _json(prediction.to_dict(), indent=2)


def _infer_jsonl(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    return _json(prediction.to_dict(), indent=None)


def _infer_csv(prediction: "Prediction", labels: tuple[str, ...]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    # The prefix keeps a label that is called "image" apart from the column of that name.
    writer.writerow(["image", "caption", "model", "labels", *(f"p_{label}" for label in labels)])
    probabilities = [prediction.probabilities.get(label, "") for label in labels]
    writer.writerow(
        [prediction.image, prediction.caption, prediction.model, ";".join(prediction.labels), *probabilities]
    )
    return stream.getvalue()


_FORMATS: dict[str, Callable[["Prediction", tuple[str, ...]], str]] = {
    "table": _infer_table,
    "json": _infer_json,
    "jsonl": _infer_jsonl,
    "csv": _infer_csv,
}


def _bench_table(report: "BenchReport") -> str:
    names = [f"{timing.name} ({timing.version})" for timing in report.timings]
    width = max(len(name) for name in names)
    lines = [
        f"model      {report.model}, {report.precision}, provider {report.provider}",
        f"input      batch size {report.batch_size}, {report.tokens} tokens a caption",
        f"picture    {_printable(report.picture)}",
        f"caption    {'none' if report.caption is None else _printable(report.caption)}",
        f"measured   the graph alone, warm: {report.runs} runs after {report.warmup}, {report.threads} threads",
        f"machine    {report.machine['processor']}, {report.machine['cpus']} CPUs, {report.machine['platform']}",
        "",
        f"{'backend':{width}}  {'p50 ms':>9}  {'p90 ms':>9}  {'p99 ms':>9}  {'pictures/s':>10}",
    ]
    for name, timing in zip(names, report.timings, strict=True):
        columns = (
            f"{timing.p50_ms:9.3f}  {timing.p90_ms:9.3f}  {timing.p99_ms:9.3f}  {timing.pictures_per_second:10.1f}"
        )
        lines.append(f"{name:{width}}  {columns}")
    for comparison in report.comparisons:
        lines.append(
            f"{comparison.name} took {comparison.ratio:.2f} times as long as mlic-runtime (median of pairs; "
            f"p10 {comparison.ratio_p10:.2f}, p90 {comparison.ratio_p90:.2f}); "
            f"logits differ by at most {comparison.max_abs_difference:.1e}"
        )
    return "\n".join(lines) + "\n"


def _json(value: dict[str, Any], indent: int | None) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _JSON_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _printable(text: str) -> str:
    """The text on one line, its control characters escaped: file names can hold line breaks and terminal codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _write(text: str) -> None:
    """Write data to stdout, in UTF-8 whatever the locale says.

    A file name may hold bytes that are not UTF-8: Python keeps them as lone surrogates, which are written escaped.
    """
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()
