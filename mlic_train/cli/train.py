"""`mlic-train`. stdout is data, stderr is progress; torch is imported when work begins."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.cli.fields import FILE, GroupedCommand, field_options, given_options
from mlic_train.base.progress import log_line, progress_bar
from mlic_train.config import PRESETS, DataOptions, for_whom, read_options, resolve, usual_options
from mlic_train.config.options import OPTION_CLASSES

from .data_options import DATA_PATHS, list_skipped

if TYPE_CHECKING:
    from mlic_train.data import LabelSet
    from mlic_train.runs.checkpoint import State


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
    """Train a model on pictures with captions; the run folder resumes after any interruption.

    \b
    mlic-train --data my-data --check
    mlic-train --data my-data
    mlic-train --data my-data --preset best --epochs 5
    """  # noqa: D301 # click needs the backspace itself
    given = given_options(ctx, *OPTION_CLASSES)
    file = read_options(config_file, given.get("device")) if config_file else {}
    options = resolve({**file, **given})
    if options.run.check:
        _check(ctx, options.data)
        return
    from mlic_train.data.splits import load_splits
    from mlic_train.training.adapt import adapt
    from mlic_train.training.run import is_started, resume_run, start_run

    splits = load_splits(options.data)
    options = adapt(options, splits)
    for split in splits.named().values():
        list_skipped(split)
    folder, device = options.folder, options.run.device
    if options.run.resume or (options.run.auto_resume and is_started(folder, device)):
        state = resume_run(folder, splits, wanted=options.wanted, device=device, log=log_line)
    else:
        state = start_run(options, folder, splits, log=log_line)
    if not state.finished:
        log_line(f"interrupted in epoch {state.epoch + 1}; go on with the same command and --resume")
        ctx.exit(130)
    _report(folder, splits.labels, state, options.run.output_format)


def _check(ctx: click.Context, data: DataOptions) -> None:
    from mlic_train.data.splits import check_data

    with progress_bar("pictures") as progress:
        problems = check_data(data, progress)
    for problem in problems:
        click.echo(f"{problem.severity}: {problem}")
    errors = sum(problem.severity == "error" for problem in problems)
    click.echo(f"{errors} errors, {len(problems) - errors} warnings", err=True)
    ctx.exit(1 if errors else 0)


def _report(folder: Path, labels: "LabelSet", state: "State", output_format: str) -> None:
    thresholds = dict(zip(labels.names, state.thresholds, strict=True))
    if output_format == "json":
        result = {"run": str(folder), "metrics": state.metrics, "thresholds": thresholds, "history": state.history}
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from mlic_train.runs.checkpoint import BEST_NAME

    names = ("samples_f1", "micro_f1", "macro_f1", "map", "false_labels_per_negative")
    click.echo(f"{'split':<20}" + "".join(f"  {name:>10}" for name in names))
    for split, metrics in state.metrics.items():
        cells = (f"{metrics[name]:.4f}" if name in metrics else "" for name in names)
        row = "".join(f"  {cell:>{max(10, len(name))}}" for name, cell in zip(names, cells, strict=True))
        click.echo(f"{split:<20}{row}".rstrip())
    click.echo(f"best checkpoint: {folder / BEST_NAME}")
