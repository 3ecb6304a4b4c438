"""The options of a sweep's trials: those that all trials share, and the hyperparameters that each adds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlic_train.config import Options, TrainConfig, resolve
from mlic_train.config.options import as_arguments, command_line

from .space import Value

# Change where and how fast, not what comes out: machines that share a study may differ in them.
_INDIFFERENT = {"workers"}


@dataclass(frozen=True)
class Training:
    """The options that all trials share, by field name: the model, the data, and what the user fixed."""

    given: Mapping[str, Any]

    @classmethod
    def build(cls, given: Mapping[str, Any], space_names: list[str]) -> "Training":
        """Return what trials share; the seed is always part of it, so that the printed command line names it."""
        seed = {} if "seed" in (*given, *space_names) else {"seed": TrainConfig().seed}
        return cls({**given, **seed})

    def options(self, values: Mapping[str, Value]) -> Options:
        """Return the options of the trial with these hyperparameters.

        Raises:
            ConfigError: options that do not go together.
        """
        return resolve({**self.given, **values})

    def arguments(self, values: Mapping[str, Value]) -> list[str]:
        """Return the arguments of mlic-train that train that trial."""
        return as_arguments({**self.given, **values})

    def command_line(self, values: Mapping[str, Value], output: Path) -> str:
        """Return what to type to train that trial again into `output`."""
        return command_line({**self.given, **values, "output": output})

    def settings(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Return all that decides the result of a trial besides `values` and the data, JSON-ready, defaults included.

        Files count by their names: a study may be shared by machines that have them in other places.

        Raises:
            ConfigError: options that do not go together.
        """
        options = self.options(values)
        settings = {
            name: v for part in (options.model, options.weights, options.train) for name, v in asdict(part).items()
        }
        teacher = options.teacher
        settings |= {"teachers": teacher.teachers, "teacher_sees": teacher.sees}
        if teacher.soft_labels:  # else a study of an older version would not go on
            settings |= {"soft_labels": teacher.soft_labels, "soft_weight": teacher.soft_weight}
            settings |= {"soft_temperature": teacher.soft_temperature}
        settings |= {"pseudo_label": teacher.pseudo_label, "pseudo_captions": teacher.pseudo_captions}
        return {name: _plain(value) for name, value in settings.items() if name not in _INDIFFERENT | set(values)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.name if isinstance(value, Path) else value
