"""`mlic-bench`. Heavy imports wait until it runs: `--help` loads none of them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.text import printable, to_json
from mlic_runtime.version import __version__

from .bench_tables import bench_table, choice_table, cold_start_table, grid_table, stage_table
from .command import COMMAND_LINE, SEVERAL, MlicCommand, counts, model_options, write
from .usage import check_bench

if TYPE_CHECKING:
    from mlic_runtime.graph.saved_precision import PrecisionChoice


@click.command(
    cls=MlicCommand,
    context_settings={"max_content_width": 120},
    epilog="Example:  mlic-bench --runs 100 --threads 1",
)
@model_options(several_threads=True)
@click.option("--image", metavar="FILE", help="Picture to run on.  [default: a made-up one]")
@click.option("--caption", help="Caption to run on.  [default: a fixed one]")
@click.option(
    "--batch-size", metavar=SEVERAL, callback=counts, default="1", show_default=True, help="Pictures per run."
)
@click.option("--runs", type=click.IntRange(1), help="Measured runs.  [default: 50; with --cold-start 10]")
@click.option("--warmup", type=click.IntRange(1), help="Runs before them.  [default: 10; with --cold-start 1]")
@click.option(
    "--against",
    metavar="NAME",
    multiple=True,
    help="Compare with this backend; may be repeated.  [default: every installed one that can run the model, except "
    "torch-compile, which takes minutes]",
)
@click.option("--checkpoint", metavar="FOLDER", help="Checkpoint for the backends that need one, such as pytorch.")
@click.option(
    "--choose",
    is_flag=True,
    help="Measure every precision of the model instead, and make the best one what --precision auto takes on this "
    "machine. A less exact one must be at least 5 % faster at the median.",
)
@click.option(
    "--stages",
    is_flag=True,
    help="Measure one whole prediction instead, and each of its steps: decode, preprocess, tokenise, run, postprocess.",
)
@click.option(
    "--cold-start",
    is_flag=True,
    help="Measure whole processes of mlic-infer instead, from nothing to the answer, beside processes that only import "
    "its libraries; and its peak memory.",
)
@click.option(
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output."
)
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
@click.version_option(__version__, prog_name="mlic-bench")
@click.pass_context
def bench(
    context: click.Context,
    /,
    model: str | None,
    precision: str,
    provider: str,
    threads: tuple[int, ...] | None,
    spin: bool,
    cache: bool,
    image: str | None,
    caption: str | None,
    batch_size: tuple[int, ...],
    runs: int | None,
    warmup: int | None,
    against: tuple[str, ...],
    checkpoint: str | None,
    choose: bool,
    stages: bool,
    cold_start: bool,
    format_: str,
    json_: bool,
) -> None:
    """Measure how fast a model runs on this machine.

    Measured is the graph alone, warm: from pixels and tokens in memory to logits. Other installed backends
    (mlic-train brings "pytorch" and "torch-compile"; "openvino" needs `pip install openvino`) take turns with the
    runtime, and their logits are compared. --batch-size and --threads take several numbers, for a table of all
    combinations.
    """
    check_bench(context)
    measuring: dict[str, Any] = {
        "image": image,
        "caption": caption,
        "runs": runs or (10 if cold_start else 50),
        "warmup": warmup or (1 if cold_start else 10),
    }
    loading: dict[str, Any] = {"spin": spin, "provider": provider, "cache": cache}
    thread_counts = threads or (None,)
    combinations = len(thread_counts) * len(batch_size)
    chosen = None
    with _progress((measuring["runs"] + measuring["warmup"]) * combinations) as step:
        if choose:
            content, table, chosen = _choose(model, threads=thread_counts[0], progress=step, **measuring, **loading)
        elif stages:
            loading |= {"precision": precision, "threads": thread_counts[0]}
            content, table = _stages(model, loading, progress=step, **measuring)
        elif cold_start:
            given = {"--model": model, "--precision": precision, "--provider": provider, "--threads": thread_counts[0]}
            options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
            content, table = _cold_start(
                model, [*options, *["--spin"] * spin, *["--no-cache"] * (not cache)], progress=step, **measuring
            )
        else:
            loading |= {"precision": precision, "against": against, "checkpoint": checkpoint}
            content, table = _grid(
                model, batch_sizes=batch_size, threads=thread_counts, progress=step, **measuring, **loading
            )
    if chosen is not None:
        _save(chosen)
    for note in _notes(content):
        click.echo(f"Note: {printable(note)}", err=True)
    command = {"command": context.meta[COMMAND_LINE]}
    write(to_json({**command, **content}, indent=2) if json_ or format_ == "json" else table)


def _grid(model: str | None, **options: Any) -> tuple[dict[str, Any], str]:
    from mlic_runtime.bench.benchmark import benchmark_grid
    from mlic_runtime.package.model_package import load_package

    reports = benchmark_grid(load_package(model), **options)
    if len(reports) == 1:
        return reports[0].to_dict(), bench_table(reports[0])
    return {"combinations": [report.to_dict() for report in reports]}, grid_table(reports)


def _choose(model: str | None, **options: Any) -> tuple[dict[str, Any], str, "PrecisionChoice"]:
    from mlic_runtime.bench.choose_precision import choose_precision
    from mlic_runtime.package.model_package import load_package

    report = choose_precision(load_package(model), **options)
    return report.to_dict(), choice_table(report), report.choice


def _stages(model: str | None, loading: dict[str, Any], **options: Any) -> tuple[dict[str, Any], str]:
    from mlic_runtime.bench.stages import StagedPredictor, measure_stages

    report = measure_stages(StagedPredictor.load(model, **loading), **options)
    return report.to_dict(), stage_table(report)


def _cold_start(model: str | None, arguments: list[str], **options: Any) -> tuple[dict[str, Any], str]:
    from mlic_runtime.bench.cold_start import measure_cold_start
    from mlic_runtime.package.model_package import load_package

    report = measure_cold_start(load_package(model), arguments, **options)
    return report.to_dict(), cold_start_table(report)


def _notes(content: dict[str, Any]) -> list[str]:
    """The notes of a report, or of several without repetition."""
    return list(dict.fromkeys(note for part in content.get("combinations", [content]) for note in part["notes"]))


@contextlib.contextmanager
def _progress(length: int) -> Iterator[Callable[[], object]]:
    """What to call after every step: a progress bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=length, label="Measuring", file=sys.stderr) as progress_bar:
        yield lambda: progress_bar.update(1)


def _save(choice: "PrecisionChoice") -> None:
    from mlic_runtime.graph.saved_precision import save_precision

    path, broken = save_precision(choice)
    if broken is not None:
        click.echo(f"Note: replaced a file that {printable(broken)}", err=True)
    takes = f"from now on --precision auto takes {choice.precision} for {choice.model} on {choice.provider}"
    click.echo(f"Wrote {printable(str(path))}: {takes}.", err=True)
