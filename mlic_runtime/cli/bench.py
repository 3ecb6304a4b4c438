"""`mlic-bench`. Its heavy imports are inside functions, so that `--help` loads none of them."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.progress import Progress
from mlic_runtime.base.text import printable, to_json
from mlic_runtime.providers.names import AUTO
from mlic_runtime.version import __version__

from .bench_tables import bench_table, choice_table, cold_start_table, grid_table, stage_table
from .checks import check_bench
from .command import COMMAND_LINE, MlicCommand, write
from .options import COUNTS, HeadedOption, model_options, parse_counts

if TYPE_CHECKING:
    from mlic_runtime.bench.choose_precision import ChoiceReport


_mode_option = functools.partial(click.option, cls=HeadedOption, heading="Other measurements", is_flag=True)


@click.command(
    cls=MlicCommand,
    epilog="Example:  mlic-bench --runs 100 --threads 1",
)
@click.option("--image", metavar="FILE", help="Picture to run on.  [default: a made-up one]")
@click.option("--caption", help="Caption to run on.  [default: a fixed one]")
@click.option(
    "--batch-size", metavar=COUNTS, callback=parse_counts, default="1", show_default=True, help="Pictures per run."
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
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output."
)
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
@model_options(several_threads=True)
@_mode_option(
    "--choose",
    help="Measure every precision of the model on every provider that loads here, or on that of --provider, and make "
    "the best ones what --precision auto and --provider auto take on this machine. A less exact precision, or a "
    "provider other than cpu, must be at least 5 % faster at the median.",
)
@_mode_option(
    "--stages",
    help="Measure one whole prediction, and each of its steps: decode, preprocess, tokenise, run, postprocess.",
)
@_mode_option(
    "--cold-start",
    help="Measure whole processes of mlic-infer, from the start to the answer, beside processes that only import its "
    "libraries; and its peak memory.",
)
@click.version_option(__version__, prog_name="mlic-bench")
@click.pass_context
def bench(
    context: click.Context,
    /,
    model: str | None,
    batch_size: tuple[int, ...],
    threads: tuple[int, ...] | None,
    runs: int | None,
    warmup: int | None,
    against: tuple[str, ...],
    checkpoint: str | None,
    choose: bool,
    stages: bool,
    cold_start: bool,
    format_: str,
    json_: bool,
    **more: Any,
) -> None:
    """Measure how fast a model runs on this machine.

    By default the graph alone is measured, warm: from pixels and tokens in memory to logits. Other installed backends
    (mlic-train brings "pytorch" and "torch-compile"; "openvino" needs `pip install 'mlic-runtime[openvino]'`) take
    turns with the runtime, and their logits are compared. --batch-size and --threads take several numbers, for a table
    of all combinations.
    """
    check_bench(context)
    from mlic_runtime.bench.inputs import BenchOptions
    from mlic_runtime.package.model_package import load_package

    thread_counts = threads or (None,)
    options = BenchOptions(
        runs=runs or (10 if cold_start else 50),
        warmup=warmup or (1 if cold_start else 10),
        threads=thread_counts[0],
        **more,  # image, caption, precision, provider, spin, cache
    )
    package = load_package(model)
    chosen = None
    with _progress((options.runs + options.warmup) * len(thread_counts) * len(batch_size)) as step:
        if choose:
            from mlic_runtime.bench.choose_precision import choose_precision

            if context.get_parameter_source("provider") is click.core.ParameterSource.DEFAULT:
                options = dataclasses.replace(options, provider=AUTO)
            chosen = choose_precision(package, options, progress=step)
            content, table = chosen.to_dict(), choice_table(chosen)
        elif stages:
            from mlic_runtime.bench.stages import measure_stages

            staged = measure_stages(package, options, progress=step)
            content, table = staged.to_dict(), stage_table(staged)
        elif cold_start:
            from mlic_runtime.bench.cold_start import measure_cold_start

            cold = measure_cold_start(package, options, model=model, progress=step)
            content, table = cold.to_dict(), cold_start_table(cold)
        else:
            from mlic_runtime.bench.benchmark import benchmark

            reports = benchmark(
                package,
                options,
                batch_sizes=batch_size,
                threads=thread_counts,
                against=against,
                checkpoint=checkpoint,
                progress=step,
            )
            if len(reports) == 1:
                content, table = reports[0].to_dict(), bench_table(reports[0])
            else:
                content, table = {"combinations": [report.to_dict() for report in reports]}, grid_table(reports)
    if chosen is not None:
        _save(chosen)
    for note in _notes(content):
        click.echo(f"Note: {printable(note)}", err=True)
    command = {"command": context.meta[COMMAND_LINE]}
    write(to_json({**command, **content}, indent=2) if json_ or format_ == "json" else table)


def _notes(content: dict[str, Any]) -> list[str]:
    """Return the notes of a report, or of several reports without repetition."""
    return list(dict.fromkeys(note for part in content.get("combinations", [content]) for note in part["notes"]))


@contextlib.contextmanager
def _progress(length: int) -> Iterator[Callable[[], object]]:
    """Yield a function to call after every round: it shows progress on a terminal, and nothing in a pipe."""
    done = 0
    progress = Progress(sys.stderr, "round", lambda: done / length, "measuring: ")

    def step() -> None:
        nonlocal done
        done += 1
        progress.show(done)

    try:
        yield step
    finally:
        progress.close()


def _save(report: "ChoiceReport") -> None:
    from mlic_runtime.graph.saved_precision import save_choices

    path, broken = save_choices(report.choices, report.providers)
    if broken is not None:
        click.echo(f"Note: replaced a file that {printable(broken)}", err=True)
    precisions = " and ".join(f"{choice.precision} on {choice.provider}" for choice in report.choices)
    effect = f"from now on --precision auto takes {precisions} for {report.model}"
    if report.providers:
        effect += f", and --provider auto takes {report.provider}"
    click.echo(f"Wrote {printable(str(path))}: {effect}.", err=True)
