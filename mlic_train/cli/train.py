"""`mlic-train`. stdout is data, stderr is progress; torch is imported when work begins."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.cli.fields import FILE, GroupedCommand, field_options, given_options
from mlic_train.base.progress import log_line, progress_bar
from mlic_train.config import Options, read_options, resolve
from mlic_train.config.options import OPTION_CLASSES, command_line

from .check_text import check_lines, verdict
from .data_options import DATA_PATHS

if TYPE_CHECKING:
    from mlic_train.data import LabelSet
    from mlic_train.runs.checkpoint import State

_OF_THE_CHECK = ("check", "list_all", "output_format")


@click.command(cls=GroupedCommand)
@click.version_option(package_name="mlic-train")
@field_options(*OPTION_CLASSES, path_types=DATA_PATHS)
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
    mlic-train --data my-data --backbone tf_efficientnet_lite0
               --backbone-weights package --freeze-backbone --cache-features
    """  # noqa: D301 # click needs the backspace itself
    given = read_options(config_file) if config_file else {}
    options = resolve({**given, **given_options(ctx, *OPTION_CLASSES)})
    if options.run.check:
        _check(ctx, options)
        return
    from mlic_train.data.splits import load_splits
    from mlic_train.training.run import is_started, resume_run, start_run

    folder, device = options.folder, options.run.device
    resume = options.run.resume or (options.run.auto_resume and is_started(folder, device))
    splits = load_splits(options.data, divided=folder if resume else None)
    for line in splits.lines():
        log_line(line)
    if resume:
        state = resume_run(folder, splits, wanted=options.wanted, device=device, log=log_line)
    else:
        state = start_run(options, folder, splits, log=log_line)
    if not state.finished:
        log_line(f"interrupted in epoch {state.epoch + 1}; go on with the same command and --resume")
        ctx.exit(130)
    _report(folder, splits.labels, state, options.run.output_format)


def _check(ctx: click.Context, options: Options) -> None:
    from mlic_train.data.problems import EXAMPLES
    from mlic_train.data.splits import check_data

    with progress_bar("decoding pictures", "picture") as progress:
        found = check_data(options.data, progress, examples=None if options.run.list_all else EXAMPLES)
    if options.run.output_format == "json":
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in check_lines(found, list_all=options.run.list_all):
            click.echo(line)
    command = command_line({name: value for name, value in options.given.items() if name not in _OF_THE_CHECK})
    click.echo(verdict(found, command), err=True)
    ctx.exit(1 if found.errors else 0)


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
