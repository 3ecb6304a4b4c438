"""The space that a sweep searches: a named grid, or a TOML file, checked against mlic-train's options."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlic_runtime.base.option import checked, nearest
from mlic_train.config import read_toml
from mlic_train.config.options import OWNERS, searchable
from mlic_train.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = bool | int | float | str

_KEYS = ("choices", "low", "high", "log", "step")


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter and its values: some choices, or a range from `low` to `high`, both included.

    A range has whole numbers if `low` is one. `log` draws from it evenly on a logarithmic scale, `step` only every
    `step`-th number, beginning with `low`.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    def suggest(self, trial: "Trial") -> Value:
        """Return the value of a trial; its study's sampler draws it, unless it has one already."""
        if self.choices:
            chosen: Value = trial.suggest_categorical(self.name, self.choices)  # type: ignore[assignment] # None is no choice
            return chosen
        if isinstance(self.low, int):
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.name, self.low, int(self.high), step=step, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def examples(self) -> tuple[Value, ...]:
        """Return all choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def describe(self) -> dict[str, Any]:
        """Return the parameter's table of the TOML file, with all of its keys."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


@dataclass(frozen=True)
class Space:
    """The parameters that a sweep searches, in the order of its table."""

    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> list[str]:
        """The names of the parameters."""
        return [parameter.name for parameter in self.parameters]

    def suggest(self, trial: "Trial") -> dict[str, Value]:
        """Return the values of a trial, by name."""
        return {parameter.name: parameter.suggest(trial) for parameter in self.parameters}

    def examples(self) -> Iterator[dict[str, Value]]:
        """Yield combinations of all choices and the ends of all ranges; the last name varies first."""
        for values in itertools.product(*(parameter.examples() for parameter in self.parameters)):
            yield dict(zip(self.names, values, strict=True))

    @property
    def num_combinations(self) -> int | None:
        """How many combinations there are; None where a parameter has a range."""
        counts = [len(parameter.choices) for parameter in self.parameters]
        return math.prod(counts) if all(counts) else None

    def grid(self) -> list[dict[str, Value]]:
        """Return all combinations.

        Raises:
            ConfigError: a parameter has a range.
        """
        for parameter in self.parameters:
            if not parameter.choices:
                raise ConfigError(f"--sampler grid needs choices, {parameter.name} has a range; try --sampler tpe")
        return list(self.examples())

    def largest(self, name: str) -> float | None:
        """Return the largest value of a numeric parameter; None if it is not searched."""
        return max((float(v) for p in self.parameters if p.name == name for v in p.examples()), default=None)

    def describe(self) -> dict[str, Any]:
        """Return the content of the TOML file."""
        return {parameter.name: parameter.describe() for parameter in self.parameters}


GRIDS: dict[str, Space] = {
    # The origin's table of experiments, for each of its models.
    "origin": Space(
        (
            Parameter("dropout", (0.5, 0.7)),
            Parameter("batch_size", (30, 50)),
            Parameter("epochs", (1, 3)),
            Parameter("learning_rate", (0.001, 0.01)),
        )
    ),
}


def read_space(file: Path) -> Space:
    """Read a space from a TOML file: one table per parameter.

        [learning_rate]
        low = 1e-4
        high = 1e-2
        log = true

        [dropout]
        choices = [0.3, 0.5]

    Raises:
        ConfigError: not TOML, no parameter, an unknown one, or values that it cannot take; the message names it.
    """
    tables = read_toml(file)
    if not tables:
        raise ConfigError(f"{file} names no parameter; write a table for each, for instance [dropout] with choices")
    known = searchable()
    parameters = []
    for name, table in tables.items():
        if name not in known:
            raise ConfigError(f"{file}: {name!r} is not a parameter that can be searched; {nearest(name, known)}")
        try:
            parameters.append(_parameter(name, table))
        except ConfigError as error:
            raise ConfigError(f"{file}: [{name}] {error}") from None
    return Space(tuple(parameters))


def _parameter(name: str, table: object) -> Parameter:
    if not isinstance(table, dict):
        raise ConfigError(f"must be a table with choices, or with low and high; found {table!r}")
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise ConfigError(f"has the unknown key {unknown[0]!r}; known: {', '.join(_KEYS)}")
    if "choices" in table:
        if len(table) > 1:
            raise ConfigError("has choices and a range; give one of them")
        return Parameter(name, _choices(name, table["choices"]))
    return _range(name, table)


def _choices(name: str, given: object) -> tuple[Value, ...]:
    if not isinstance(given, list) or not given:
        raise ConfigError(f"needs at least one value in choices = [...], found {given!r}")
    values = tuple(_value(name, each) for each in given)
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ConfigError(f"lists {twice[0]!r} twice")
    return values


def _range(name: str, table: Mapping[str, object]) -> Parameter:
    missing = [key for key in ("low", "high") if key not in table]
    if missing:
        raise ConfigError(f"has no {missing[0]}; give choices, or low and high")
    low, high = (_value(name, table[key]) for key in ("low", "high"))
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        raise ConfigError("takes no numbers, so it has no range; give choices")
    if low > high:
        raise ConfigError(f"has an empty range: low {low} is above high {high}")
    log, step = table.get("log", False), table.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"needs log = true or false, found {log!r}")
    if log and low <= 0:
        raise ConfigError(f"has low {low}; a logarithmic range must start above 0")
    if step is None:
        return Parameter(name, (), low, high, log)
    if log:
        raise ConfigError("has log and step; give one of them")
    whole = isinstance(low, int)
    if isinstance(step, bool) or not isinstance(step, int if whole else (int, float)) or not step > 0:
        raise ConfigError(f"needs a step above 0{' that is a whole number' if whole else ''}, found {step!r}")
    # Optuna warns about a range that is no multiple of its step. Decimals, because in floats 0.3 is not 3 times 0.1.
    start, stop, by = (Decimal(str(number)) for number in (low, high, step))
    last = start + (stop - start) // by * by
    return Parameter(name, (), low, int(last) if whole else float(last), log, step)


def _value(name: str, given: object) -> Value:
    """Return the value in the type of its option."""
    try:
        value: Value = checked(OWNERS[name], name, given)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return value
