"""`mlic-sweep`. stdout is data, stderr is progress; torch and Optuna are imported when work begins."""

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.option import flag_of, options_of
from mlic_runtime.base.override import override
from mlic_runtime.base.progress import log_line
from mlic_runtime.cli.command import MlicCommand, write
from mlic_runtime.cli.fields import FILE, NEW_FOLDER, given_options
from mlic_train.config import MODELS, PRESETS, DataOptions, RunOptions, read_options
from mlic_train.config.options import OPTION_CLASSES, OWNERS
from mlic_train.errors import ConfigError, TrainError
from mlic_train.sweep.options import Training
from mlic_train.sweep.space import GRIDS, Space, Value, read_space

from .data_options import data_from, data_options
from .train import train

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from mlic_train.data.splits import Splits
    from mlic_train.sweep.liveness import LivenessTracker
    from mlic_train.sweep.runner import Runner
    from mlic_train.sweep.study import SweepStudy

_TPE_TRIALS = 20
_EXAMPLES = 1000  # combinations of a large space that are tried to find a valid one


# The sweep has options of these names itself, or decides about them for every trial.
_NOT_FOR_TRIALS = {"name", *options_of(DataOptions), *options_of(RunOptions)} - {"device", "note"}


class _SweepCommand(MlicCommand):
    """A command that says where options of mlic-train belong."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            names = {name for option in train.params for name in (*option.opts, *option.secondary_opts)}
            if error.option_name not in names:
                raise
            raise click.UsageError(
                f"{error.option_name} is an option of mlic-train: give it to all trials behind --, as in "
                f"mlic-sweep ... -- {error.option_name} ...",
                ctx,
            ) from None


@click.command(cls=_SweepCommand, context_settings={"show_default": True})
@click.version_option(package_name="mlic-train")
@click.option("--model", "name", type=click.Choice(MODELS), default="hybrid", help="What to train.")
@data_options
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    help="What all trials start from, as in mlic-train; origin alone searches the origin's grid.  [default: balanced]",
)
@click.option("--grid", type=click.Choice(sorted(GRIDS)), help="origin: the 16 combinations that the origin tried.")
@click.option("--space", "space_file", type=FILE, help="TOML file with the parameters to search and their values.")
@click.option(
    "--sampler",
    type=click.Choice(["grid", "random", "tpe"]),
    help="How trials are chosen; grid: all combinations.  [default: grid for --grid, tpe for --space]",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    help=f"Number of trials, at most all combinations of choices.  [default: all of a grid, else {_TPE_TRIALS}]",
)
@click.option(
    "--pruner",
    type=click.Choice(["none", "median", "hyperband"]),
    help="Ends hopeless trials early, by samples F1 after each epoch.  [default: none for a grid, else median]",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the sampler; that of training goes behind --.")
@click.option(
    "--output",
    type=NEW_FOLDER,
    help="Folder of the runs and of the study.  [default: runs/sweep-MODEL]",
)
@click.option("--storage", help="Journal file or Optuna storage URL.  [default: study.journal in the folder]")
@click.option("--study", "study_name", help="Name of the study in a shared --storage.  [default: sweep-MODEL]")
@click.option("--take-over", is_flag=True, help="Also resume the trials of machines that cannot be seen and are gone.")
@click.option("--keep", is_flag=True, help="Keep the weights of all trials, not only of the best.")
@click.option(
    "--format", "output_format", type=click.Choice(["table", "csv", "json"]), default="table", help="What is printed."
)
@click.argument("training", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF MLIC-TRAIN]")
@click.pass_context
def sweep(ctx: click.Context, /, **options: Any) -> None:
    """Train a model with many combinations of hyperparameters and compare them on the validation split.

    Every trial gets the options of mlic-train that follow `--`. The same command goes on after any interruption.
    Several processes share the trials, also on machines with the same --storage. A table and the best trial's command
    line are printed at the end.

    \b
    mlic-sweep --model cnn --data my-data --grid origin -- --image-size 64
    mlic-sweep --data my-data --space space.toml --trials 50 -- --epochs 20
    \b
    space.toml:  [learning_rate]      [dropout]
                 low = 1e-4           choices = [0.3, 0.5]
                 high = 1e-2
                 log = true
    """  # noqa: D301 # click needs the backspace itself
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise click.UsageError("a trial is one process; start mlic-sweep itself several times instead of by torchrun")
    space = _space(options)
    sampler = options["sampler"] or ("tpe" if options["space_file"] else "grid")
    points = _points(space, sampler, options["trials"])
    fixed = _fixed_options(options["training"], space.names)
    preset = {} if options["preset"] is None else {"preset": options["preset"]}
    given = {"name": options["name"], **preset, **given_options(ctx, DataOptions), **fixed}
    training = Training.build(given, space.names)
    example = _example(training, space)
    from mlic_train.data.splits import load_splits
    from mlic_train.training.interrupts import interrupts

    splits = load_splits(data_from(options))
    for line in splits.lines():
        log_line(line)
    from mlic_train.sweep.runner import Runner
    from mlic_train.sweep.storage import shared_storage, track_liveness

    folder = options["output"] or Path("runs", f"sweep-{options['name']}")
    code = 0
    where = options["storage"]
    with track_liveness(where, folder) as workers, shared_storage(where, folder, workers) as opened:
        study = _study(options, sampler, points, space, training.settings(example), splits, opened, workers)
        runner = Runner(study, space, training, splits, folder, workers, keep=options["keep"], log=log_line)
        try:
            with interrupts() as stopped:
                runner.run(stopped)
                code = 130 if stopped() else 0
        except KeyboardInterrupt:
            code = 130
        _conclude(study, runner, space, training, folder, options["output_format"])
    if code:
        log_line("interrupted; go on with the same command")
        ctx.exit(code)


def _fixed_options(arguments: tuple[str, ...], searched: list[str]) -> dict[str, Any]:
    """Read what follows `--`: options of mlic-train that all trials share, by field name.

    Raises:
        click.UsageError: mlic-train would not take them, or the sweep decides about them.
    """
    context = train.make_context("mlic-train", list(arguments))
    file, own = context.params["config_file"], given_options(context, *OPTION_CLASSES)
    fixed = {**(read_options(file, own.get("device")) if file else {}), **own}
    for name in fixed:
        option = f"--{flag_of(OWNERS[name], name)}"
        if name in _NOT_FOR_TRIALS:
            raise click.UsageError(f"{option} behind -- is not for a single trial; leave it out, or put it before --")
        if name in searched:
            raise click.UsageError(f"{option} behind -- is searched by the sweep as well; leave one of the two out")
    return fixed


def _space(options: dict[str, Any]) -> Space:
    grid, file = options["grid"], options["space_file"]
    if grid is None and file is None and options["preset"] in GRIDS:
        grid = options["preset"]
    if (grid is None) == (file is None):
        raise click.UsageError("give what to search: either --grid origin or --space FILE")
    return GRIDS[grid] if file is None else read_space(file)


def _points(space: Space, sampler: str, trials: int | None) -> list[dict[str, Value]]:
    """Return the values of each trial; empty where the sampler will draw them.

    Where all combinations of choices can be tried, each is tried once: a sampler would draw some of them twice.
    """
    if sampler != "grid":
        count, combinations = trials or _TPE_TRIALS, space.num_combinations
        if combinations is None or combinations > count:
            return [{} for _ in range(count)]
        if combinations < count:
            log_line(f"the space has {combinations} combinations: each is tried once, instead of {count} trials")
        return space.grid()
    points = space.grid()
    if trials is not None:
        raise click.UsageError(f"the grid has {len(points)} trials; leave --trials out, or choose --sampler tpe")
    return points


def _example(training: Training, space: Space) -> dict[str, Value]:
    """Return the first valid combination.

    Raises:
        ConfigError: no combination is valid, so that every trial would fail.
    """
    first: ConfigError | None = None
    for values in itertools.islice(space.examples(), _EXAMPLES):
        try:
            training.settings(values)
        except ConfigError as error:
            first = first or error
        else:
            return values
    raise first or ConfigError("the space is empty")


def _study(
    options: dict[str, Any],
    sampler: str,
    points: list[dict[str, Value]],
    space: Space,
    settings: dict[str, Any],
    splits: "Splits",
    storage: "BaseStorage",
    workers: "LivenessTracker",
) -> "SweepStudy":
    from mlic_train.data.summary import fingerprint
    from mlic_train.sweep.database import postgres_url
    from mlic_train.sweep.study import Plan, SweepStudy

    plan = Plan(sampler, space.describe(), fingerprint(splits.named()), settings)
    where = options["storage"]
    # A folder holds one study: a sweep of another model has to find this one there, and is refused.
    name = options["study_name"] or ("sweep" if where is None else f"sweep-{options['name']}")
    return SweepStudy(
        storage,
        name,
        plan,
        points,
        workers,
        tracks_all=where is None or postgres_url(where) is not None,
        take_over=options["take_over"],
        seed=options["seed"],
        pruner=options["pruner"] or ("none" if sampler == "grid" else "median"),
        epochs=int(space.largest("epochs") or settings["epochs"]),
    )


def _conclude(
    study: "SweepStudy", runner: "Runner", space: Space, training: Training, folder: Path, output_format: str
) -> None:
    """Print the results; what is missing goes to stderr.

    Raises:
        TrainError: all trials have ended, and none of them well.
    """
    from mlic_train.sweep.table import as_csv, as_json, as_table, in_order

    rows = in_order(runner.rows())
    command = None
    if rows[0].state == "complete":
        command = training.command_line(rows[0].parameters, folder / "best")
    if output_format == "csv":
        printed = as_csv(rows, space.names)
    elif output_format == "json":
        printed = as_json(rows, study.name, command)
    else:
        printed = as_table(rows, space.names, command)
    write(printed, kept=f"the runs are in {folder}; the same command prints their table again")
    if output_format == "csv" and command is not None:
        click.echo(command, err=True)
    for row in rows:
        if row.state == "failed":
            log_line(f"trial {row.trial} failed: {row.message}")
    unfinished = [row.trial for row in rows if row.state == "running"]
    if unfinished:
        log_line(
            f"other processes run trial {', '.join(map(str, unfinished))}; give the command again for their results"
        )
    hidden = study.out_of_sight()
    if hidden:
        listed = ", ".join(f"{number} ({worker})" for number, worker in sorted(hidden.items()))
        log_line(f"of these, out of sight from this folder: {listed}; if such a process is gone, add --take-over")
    if all(row.state == "failed" for row in rows):
        raise TrainError(f"none of the {len(rows)} trials could be trained; the first says: {rows[0].message}")
