"""mlic-train's options as a sweep uses them: which can be searched, and a trial as a command line.

A trial is built by parsing a command line of mlic-train, so that the line printed for it is the trial.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mlic_train.cli.data_options import data_options
from mlic_train.cli.train import explicit, run_configs, train
from mlic_train.config.schema import ModelConfig, TrainConfig

from .space import Value

_FIELDS = {f.name for kind in (ModelConfig, TrainConfig) for f in dataclasses.fields(kind)}
# The sweep has options of these names itself, or decides them for every trial.
_OWN = ("name", "output", "resume", "auto_resume", "check", "output_format")
# Changes where and how fast, not what comes out: machines that share a study may differ in it.
_INDIFFERENT = {"device", "workers", "note"}
_BEYOND_CONFIG = ("backbone_weights", "embedding", "teachers", "teacher_sees", "pseudo_label", "pseudo_captions")


def options_of(command: click.Command) -> dict[str, click.Option]:
    """A command's options by the name of what they set."""
    return {param.name: param for param in command.params if isinstance(param, click.Option) and param.name}


def searchable() -> dict[str, click.Option]:
    """The options of mlic-train that a space may name: fields of a configuration that hold one value."""
    return {
        name: option
        for name, option in options_of(train).items()
        if name in _FIELDS - {"name"} and not option.multiple and option.nargs == 1
    }


def as_arguments(option: click.Option, value: Any) -> list[str]:
    """What to write on a command line for that value of an option."""
    if option.is_flag:
        names = option.opts if value else option.secondary_opts
        return [names[0]] if names else []
    values = value if option.multiple else [value]
    return [text for each in values for text in (option.opts[0], str(each))]


_DATA = options_of(data_options(click.Command("data")))


@dataclass(frozen=True)
class Training:
    """The command line that all trials share: the model, the data, and what the user gave behind `--`."""

    arguments: tuple[str, ...]

    @classmethod
    def build(cls, model: str, data: Sequence[str], common: Sequence[str], searched: Sequence[str]) -> "Training":
        """Check what the user gave behind `--` and put the line together; the seed is always on it.

        Args:
            model: its name.
            data: the arguments that say where the data is.
            common: what the user gave behind `--`.
            searched: the names of the parameters that trials differ in.

        Raises:
            click.UsageError: mlic-train would not take them, or they are the sweep's to decide.
        """
        given = _parse(common)
        options, own = options_of(train), {*_OWN, *_DATA}
        for name in (name for name in given.params if explicit(given, name)):
            option = options[name].opts[0]
            if name in own:
                raise click.UsageError(
                    f"{option} behind -- is not for a single trial; leave it out, or put it before --"
                )
            if name in searched:
                raise click.UsageError(f"{option} behind -- is searched by the sweep as well; leave one of the two out")
        seed = [] if "seed" in searched or explicit(given, "seed") else ["--seed", str(given.params["seed"])]
        return cls(("--model", model, *data, *common, *seed))

    def with_values(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The arguments of the trial with these hyperparameters."""
        options = options_of(train)
        return (
            *self.arguments,
            *(text for name, value in values.items() for text in as_arguments(options[name], value)),
        )

    def context(self, values: Mapping[str, Value]) -> click.Context:
        """mlic-train's context for the trial with these hyperparameters."""
        return _parse(self.with_values(values))

    def command_line(self, values: Mapping[str, Value], output: Path) -> str:
        """What to type to train that trial again into `output`."""
        return shlex.join(["mlic-train", *self.with_values(values), "--output", str(output)])

    def settings(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """All that decides what comes out of a trial besides `values` and the data, JSON-ready, defaults included.

        Files count by their names: a study may be shared by machines that have them in other places.

        Raises:
            ConfigError: options that do not go together.
        """
        ctx = self.context(values)
        model, config = run_configs(ctx)
        settings = {**dataclasses.asdict(model), **dataclasses.asdict(config)}
        settings |= {name: ctx.params[name] for name in _BEYOND_CONFIG}
        return {name: _plain(value) for name, value in settings.items() if name not in _INDIFFERENT | set(values)}


def data_arguments(ctx: click.Context) -> list[str]:
    """The data options that the user gave to the command of `ctx`, as arguments of mlic-train."""
    options = options_of(train)
    return [
        text
        for name in options
        if name in _DATA and explicit(ctx, name)
        for text in as_arguments(options[name], ctx.params[name])
    ]


def _parse(arguments: Sequence[str]) -> click.Context:
    return train.make_context("mlic-train", list(arguments))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.name if isinstance(value, Path) else value
