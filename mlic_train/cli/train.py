"""`mlic-train`. stdout is data, stderr is progress; torch is imported when work begins."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.progress import SECONDS_BETWEEN_LINES, duration, is_first_process, log_line, progress_bar
from mlic_runtime.cli.command import write
from mlic_runtime.cli.fields import FILE, GroupedCommand, field_options, given_options
from mlic_train.base.stopwatch import Stopwatch
from mlic_train.config import PRESETS, Options, for_whom, read_options, resolve, usual_options
from mlic_train.config.options import OPTION_CLASSES, command_line

from .check_text import check_lines, verdict
from .data_options import DATA_PATHS

if TYPE_CHECKING:
    from mlic_train.data.splits import Splits
    from mlic_train.runs.folder import State

_OF_THE_CHECK = ("check", "list_all", "output_format")


_PRESETS = "\n".join(f"  {name:<10}{for_whom(name)}" for name in PRESETS)


@click.command(cls=GroupedCommand, epilog=f"\b\nPresets:\n{_PRESETS}")
@click.version_option(package_name="mlic-train")
@field_options(*OPTION_CLASSES, path_types=DATA_PATHS, shown=usual_options())
@click.option(
    "--config",
    "config_file",
    type=FILE,
    help="TOML file with any of these options; the command line wins.",
)
@click.pass_context
def train(ctx: click.Context, /, config_file: Path | None, **_: Any) -> None:
    """Train a classifier on pictures, captions or both: first look at the data (--check), then train.

    An interrupted training goes on with --resume. At the end it prints the commands for exporting and predicting.

    \b
    mlic-train --data my-data --check
    mlic-train --data my-data
    mlic-train --data my-data --preset best --epochs 5
    """  # noqa: D301 # click needs the backspace itself
    stopwatch = Stopwatch()
    given = given_options(ctx, *OPTION_CLASSES)
    file = read_options(config_file, given.get("device")) if config_file else {}
    options = resolve({**file, **given})
    if options.run.check:
        _check(ctx, options)
        return
    from mlic_train.training.loggers import require_loggers
    from mlic_train.training.run import read_rows, resume_run, start_run

    require_loggers(options.run.loggers)
    begun = stopwatch.seconds()
    options, splits, resume = read_rows(options)
    folder, device = options.folder, options.run.device
    for line in splits.lines():
        log_line(line)
    rows = ", ".join(f"{name} {len(split.records)}" for name, split in splits.named().items())
    log_line(
        f"read the data in {duration(stopwatch.seconds() - begun)}: {len(splits.labels.names)} labels, rows: {rows}"
    )
    if resume:
        state = resume_run(
            folder,
            splits,
            wanted=options.wanted,
            device=device,
            loggers=options.run.loggers,
            log=log_line,
            stopwatch=stopwatch,
        )
    else:
        state = start_run(options, folder, splits, log=log_line, stopwatch=stopwatch)
    if not state.finished:
        log_line(f"interrupted in epoch {state.epoch + 1}; go on with the same command and --resume")
        ctx.exit(130)
    if is_first_process():
        _report(folder, splits, state, options.run.output_format)


def _check(ctx: click.Context, options: Options) -> None:
    from mlic_runtime.annotations.problems import EXAMPLES
    from mlic_train.data.splits import check_data

    with progress_bar("decoding pictures", "picture", SECONDS_BETWEEN_LINES) as progress:
        found = check_data(
            options.data,
            progress,
            teacher=options.teacher,
            examples=None if options.run.list_all else EXAMPLES,
        )
    if options.run.output_format == "json":
        for line in found.notes:
            log_line(line)
        write(json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        write("".join(f"{line}\n" for line in check_lines(found, list_all=options.run.list_all)))
    command = command_line({name: value for name, value in options.given.items() if name not in _OF_THE_CHECK})
    click.echo(verdict(found, command), err=True)
    ctx.exit(1 if found.errors else 0)


def _report(folder: Path, splits: "Splits", state: "State", output_format: str) -> None:
    """Print the metrics as data; where the run is, and what to do next, goes to stderr."""
    from mlic_train.runs.folder import BEST_NAME, read_run_config

    from .train_summary import metrics_table, next_commands

    model = read_run_config(folder).model
    if output_format == "json":
        thresholds = dict(zip(splits.labels.names, state.thresholds, strict=True))
        result = {"run": str(folder), "metrics": state.metrics, "thresholds": thresholds, "history": state.history}
        printed = json.dumps(result, indent=2, ensure_ascii=False)
    else:
        printed = metrics_table(state.metrics, reads_captions=model.reads_captions)
    write(printed + "\n", kept=f"the metrics are in {folder / BEST_NAME}")
    log_line(f"run folder: {folder} (best checkpoint: {BEST_NAME})")
    log_line("to export it, and to predict with it:")
    for line in next_commands(folder, model, splits):
        log_line(f"    {line}")
