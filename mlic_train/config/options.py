"""Turn given options into a complete configuration: for the command line, files, sweeps and Python."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlic_runtime.base.option import checked, element_type, flag_of, nearest, options_of
from mlic_train.errors import ConfigError

from .data import DataOptions
from .files import from_dict, read_toml
from .model import MODEL_DEFAULTS, OWN_TEXT_ENCODERS, ModelConfig
from .run import FirstWeights, RunOptions
from .teacher import Distillation
from .train import MAX_EPOCHS, TrainConfig

T = TypeVar("T")

# All options of a training, in the order of help and documents.
OPTION_CLASSES = (DataOptions, RunOptions, ModelConfig, FirstWeights, TrainConfig, Distillation)
# The class of each option by the name of its field.
OWNERS: dict[str, Any] = {name: kind for kind in OPTION_CLASSES for name in options_of(kind)}
# Actions of the command and where it writes: they are not needed to repeat a run.
_ACTIONS = ("check", "list_all", "output", "resume", "auto_resume", "output_format")


@dataclass(frozen=True)
class Options:
    """All options of a training, with every value filled in; `given` holds those that the user gave, by field name."""

    data: DataOptions
    run: RunOptions
    model: ModelConfig
    weights: FirstWeights
    train: TrainConfig
    teacher: Distillation
    given: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.output or Path("runs", self.model.name)

    @property
    def wanted(self) -> dict[str, Any]:
        """The given options of model and training by field name, which a resumed run must have."""
        return {
            name: getattr(part, name)
            for part in (self.model, self.train)
            for name in options_of(part)
            if name in self.given
        }


def resolve(given: Mapping[str, Any]) -> Options:
    """Return the complete configuration for some options.

    Args:
        given: values by the names of options (see `field_name`).

    Raises:
        ConfigError: an unknown option, a value that it cannot take, or options that do not go together.
    """
    given = {field_name(name): value for name, value in given.items()}
    data, run, weights = _part(DataOptions, given), _part(RunOptions, given), _part(FirstWeights, given)
    model, train, teacher = _part(ModelConfig, given), _part(TrainConfig, given), _part(Distillation, given)
    if model.text_encoder not in OWN_TEXT_ENCODERS:
        for name in ("vocab_size", "word_dropout"):
            if name in given:
                raise ConfigError(
                    f"--{flag_of(ModelConfig, name)} is for lstm and mean, the text encoder {model.text_encoder} has "
                    "its own: leave it out"
                )
    model, train = resolve_configs(model, train, pretrained=weights.backbone_weights is not None)
    teacher = dataclasses.replace(teacher, skip_bad_rows=data.skip_bad_rows)
    return Options(data, run, model, weights, train, teacher, given)


def read_configs(data: Mapping[str, Any], where: Path) -> tuple[ModelConfig, TrainConfig]:
    """Return the configurations of a run from the parsed JSON objects "model" and "train".

    Raises:
        ConfigError: an unknown key, or a value that is refused; the message names `where` and the key.
    """
    model, train = from_dict(ModelConfig, data["model"], where), from_dict(TrainConfig, data["train"], where)
    try:
        return resolve_configs(model, train)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _part(kind: type[T], given: Mapping[str, Any]) -> T:
    return kind(**{name: value for name, value in given.items() if OWNERS[name] is kind})


def resolve_configs(
    model: ModelConfig, train: TrainConfig, *, pretrained: bool = False
) -> tuple[ModelConfig, TrainConfig]:
    """Replace each None by the value that follows from the model and from other options.

    Args:
        model: the model.
        train: how it is fitted.
        pretrained: whether the backbone starts from pretrained weights.

    Raises:
        ConfigError: `softmax_output` and the loss contradict each other.
    """
    usual = {name: about.default for name, about in options_of(TrainConfig).items()}
    usual |= {**MODEL_DEFAULTS.get(model.name, {}), "freeze_batch_statistics": pretrained}
    usual["cache_features"] = train.freeze_backbone and not train.endless_augmentation
    if train.time_limit is not None:
        usual |= {"epochs": MAX_EPOCHS, "schedule": "cosine", "patience": 0}
    if model.softmax_output:
        usual["loss"] = "softmax_bce"
    open_ = [f.name for f in dataclasses.fields(train) if getattr(train, f.name) is None]
    train = dataclasses.replace(train, **{name: usual[name] for name in open_})
    softmax = train.loss == "softmax_bce"
    if model.softmax_output not in (None, softmax):
        raise ConfigError(
            f"softmax_output is {model.softmax_output}, but the loss is {train.loss}; it goes with softmax_bce and no "
            "other: leave softmax_output out"
        )
    return dataclasses.replace(model, softmax_output=softmax), train


def field_name(name: str) -> str:
    """Return the name of an option's field from that name or from the command line's, with - or _.

    Raises:
        ConfigError: there is no such option; the message offers the nearest one.
    """
    known = {flag_of(kind, field).replace("-", "_"): field for field, kind in OWNERS.items()}
    wanted = name.replace("-", "_")
    if wanted not in OWNERS and wanted not in known:
        raise ConfigError(f"unknown option {name!r}; {nearest(wanted, known)}")
    return wanted if wanted in OWNERS else known[wanted]


def read_options(file: Path) -> dict[str, Any]:
    """Read options from a TOML file, by the names of their fields.

    Raises:
        ConfigError: not TOML, an unknown option, or a value that it cannot take; the message names file and key.
    """
    options = {}
    for key, value in read_toml(file).items():
        try:
            name = field_name(key)
            options[name] = checked(OWNERS[name], name, value)
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"{file}: {error}") from None
    return options


def repeatable(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that repeat a run, by their names in a TOML file."""
    return {
        flag_of(OWNERS[name], name).replace("-", "_"): value for name, value in given.items() if name not in _ACTIONS
    }


def changed_options(*parts: Any) -> dict[str, Any]:
    """Return the options of configuration dataclasses that differ from their defaults, by field name."""
    return {
        name: value
        for part in parts
        for name in options_of(part)
        if (value := getattr(part, name)) != type(part).__dataclass_fields__[name].default
    }


def as_arguments(given: Mapping[str, Any]) -> list[str]:
    """Return the arguments of mlic-train that give these options."""
    arguments: list[str] = []
    for name, value in given.items():
        flag = flag_of(OWNERS[name], name)
        kind, count = element_type(OWNERS[name], name)
        if kind is bool:
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif count == 1:
            arguments += [f"--{flag}", str(value)]
        elif count == -1:
            arguments += [text for each in value for text in (f"--{flag}", str(each))]
        else:
            arguments += [f"--{flag}", *map(str, value)]
    return arguments


def command_line(given: Mapping[str, Any]) -> str:
    """Return the command line of mlic-train that gives these options."""
    return shlex.join(["mlic-train", *as_arguments(given)])


def searchable() -> Sequence[str]:
    """Return the options that a sweep may vary: those of model and training that hold one value."""
    return [
        name
        for name, kind in OWNERS.items()
        if issubclass(kind, ModelConfig | TrainConfig) and name != "name" and element_type(kind, name)[1] == 1
    ]
