"""Turn given options into a complete configuration: for the command line, files, sweeps and Python."""

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlic_runtime.base.option import Option, checked, element_type, flag_of, nearest, options_of
from mlic_train.errors import ConfigError

from .data import DataOptions
from .files import from_dict, read_toml
from .model import MODEL_DEFAULTS, ORIGIN_BACKBONE, ORIGIN_HYBRID, OWN_TEXT_ENCODERS, PICTURE_MODELS, ModelConfig
from .preset import CPU, GPU, NONE, OF_CAPTIONS, OF_OWN_ENCODERS, OF_THE_BACKBONE, OF_THE_TIME, USUAL, preset_file
from .run import NO_WEIGHTS, FirstWeights, RunOptions
from .teacher import Distillation
from .train import MAX_EPOCHS, WITHIN_A_TIME_LIMIT, TrainConfig

T = TypeVar("T")

# All options of a training, in the order of help and documents.
OPTION_CLASSES = (DataOptions, RunOptions, ModelConfig, FirstWeights, TrainConfig, Distillation)
# The class of each option by the name of its field.
OWNERS: dict[str, Any] = {name: kind for kind in OPTION_CLASSES for name in options_of(kind)}
# Actions of the command and where it writes: they are not needed to repeat a run.
_ACTIONS = ("check", "list_all", "output", "resume", "auto_resume", "output_format")

# What may differ in a resumed run: nothing that an earlier step depended on.
MAY_CHANGE = ("epochs", "time_limit", "patience", "workers", "calibration", "empty_odds", "threshold_for")


@dataclass(frozen=True)
class Options:
    """All options of a training, with every value filled in.

    `given` holds those that the user gave, by field name, and `chosen` these with those of the preset.
    """

    data: DataOptions
    run: RunOptions
    model: ModelConfig
    weights: FirstWeights
    train: TrainConfig
    teacher: Distillation
    given: Mapping[str, Any]
    chosen: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.output or Path("runs", self.model.name)

    @property
    def wanted(self) -> dict[str, Any]:
        """The given options of model and training by field name, and a given preset, which a resumed run must have."""
        preset = {"preset": self.run.preset} if "preset" in self.given else {}
        return preset | {
            name: getattr(part, name)
            for part in (self.model, self.train)
            for name in options_of(part)
            if name in self.given
        }

    @property
    def kind_of_device(self) -> str:
        """Which table of a preset applies: "cpu" or "gpu"."""
        return _cpu_or_gpu(self.run.device)

    @property
    def by_device(self) -> Mapping[str, Any]:
        """What the preset says for the device in use only, as far as it was not given."""
        if self.run.preset in (None, NONE):
            return {}
        own = _read_tables(preset_file(self.run.preset)).get(self.kind_of_device, {})
        return {name: self.chosen[name] for name in own if name in self.chosen and name not in self.given}


def resolve(given: Mapping[str, Any]) -> Options:
    """Return the complete configuration for some options: those, else the preset's, else the options' own defaults.

    Args:
        given: values by the names of options (see `field_name`); with the command line's before those of a file.

    Raises:
        ConfigError: an unknown option, a value that it cannot take, or options that do not go together.
    """
    given = {field_name(name): value for name, value in given.items()}
    named = _part(RunOptions, given).preset
    preset = named or ("origin" if given.get("name") == ORIGIN_HYBRID else USUAL)
    chosen = {**_of_use(_preset(preset, _part(RunOptions, given).device), given), **given}
    data, run, weights = _part(DataOptions, chosen), _part(RunOptions, chosen), _part(FirstWeights, chosen)
    model, train, teacher = _part(ModelConfig, chosen), _part(TrainConfig, chosen), _part(Distillation, chosen)
    if model.backbone != ORIGIN_BACKBONE and weights.backbone_weights is None and not weights.start_from:
        raise ConfigError(
            f"the backbone {model.backbone} would start from random weights: give --backbone-weights hub, a file or a "
            f"run folder; or {NO_WEIGHTS}, if that is what you want"
        )
    if model.text_encoder not in OWN_TEXT_ENCODERS:
        for name in ("vocab_size", "word_dropout"):
            if name in given:
                raise ConfigError(
                    f"--{flag_of(ModelConfig, name)} is for lstm and mean, the text encoder {model.text_encoder} has "
                    "its own: leave it out"
                )
    model, train = resolve_configs(model, train, pretrained=weights.backbone_is_pretrained)
    teacher = dataclasses.replace(teacher, skip_bad_rows=data.skip_bad_rows)
    run = dataclasses.replace(run, preset=preset)
    return Options(data, run, model, weights, train, teacher, given, chosen)


def _of_use(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset without what it says of parts that the given options replace or leave out."""
    unused: frozenset[str] = frozenset()
    model = given.get("name", preset.get("name"))
    if model in PICTURE_MODELS or (model == ORIGIN_HYBRID and preset.get("name") != model):
        unused |= OF_CAPTIONS
    if given.get("text_encoder", OWN_TEXT_ENCODERS[0]) not in OWN_TEXT_ENCODERS:
        unused |= OF_OWN_ENCODERS
    other_backbone = given.get("backbone", preset.get("backbone")) != preset.get("backbone")
    if other_backbone or given.get("backbone_weights") == NO_WEIGHTS:
        unused |= OF_THE_BACKBONE
    if given.get("time_limit") is not None:
        unused |= OF_THE_TIME
    return {name: value for name, value in preset.items() if name not in unused}


def _preset(name: str, device: str) -> Mapping[str, Any]:
    """Return the options of a preset on a device, by field name."""
    return {} if name == NONE else read_options(preset_file(name), device)


@functools.cache
def _cpu_or_gpu(device: str) -> str:
    """Return which table of a file is for a device; "auto" stands for what `create_fabric` takes."""
    if device == "auto":
        import torch

        return GPU if torch.cuda.device_count() or torch.backends.mps.is_available() else CPU
    return CPU if device == "cpu" else GPU


def usual_options() -> dict[str, Option]:
    """Return what is known of each option, by field name, with the default that it has under the usual preset."""
    tables = _read_tables(preset_file(USUAL))
    everywhere, cpu, gpu = tables[""], tables[CPU], tables[GPU]
    result = {name: options_of(kind)[name] for name, kind in OWNERS.items()}
    # What follows from a time limit still does; the other rules are for an option that no preset sets.
    rules = {name: about.follows if name in OF_THE_TIME else None for name, about in result.items()}
    for name, value in everywhere.items():
        rule = None if value == WITHIN_A_TIME_LIMIT.get(name) else rules[name]  # said once where both are the same
        result[name] = dataclasses.replace(result[name], default=value, follows=rule)
    for name in {**cpu, **gpu}:
        usual = result[name]
        first, second = cpu.get(name, usual.default), gpu.get(name, usual.default)
        if first == second:
            result[name] = dataclasses.replace(usual, default=first, follows=rules[name])
        else:
            texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in (first, second)]
            rule = "; ".join(filter(None, (f"{texts[0]} on a CPU, {texts[1]} on a GPU", rules[name])))
            result[name] = dataclasses.replace(usual, default=None, follows=rule)
    return result


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
        usual |= {"epochs": MAX_EPOCHS, **WITHIN_A_TIME_LIMIT}
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


def read_options(file: Path, device: str | None = None) -> dict[str, Any]:
    """Read options from a TOML file, by the names of their fields.

    Args:
        file: its tables [cpu] and [gpu], if there are any, win over the lines above them where they apply.
        device: where the run is computed; None: where the file says.

    Raises:
        ConfigError: not TOML, an unknown option, or a value that it cannot take; the message names file and key.
    """
    tables = _read_tables(file)
    options = tables.pop("")
    return {**options, **tables.get(_cpu_or_gpu(device or options.get("device", "auto")), {})} if tables else options


def _read_tables(file: Path) -> dict[str, dict[str, Any]]:
    """Return the options of a TOML file by table: those outside of any as "", then those of [cpu] and [gpu]."""
    content = read_toml(file)
    tables = {name: value for name, value in content.items() if name in (CPU, GPU) and isinstance(value, dict)}
    everywhere = {name: value for name, value in content.items() if name not in tables}
    result: dict[str, dict[str, Any]] = {}
    for table, lines in {"": everywhere, **tables}.items():
        result[table] = {}
        for key, value in lines.items():
            try:
                name = field_name(key)
                if table and name == "device":
                    raise ConfigError(f"[{table}] cannot choose the device; put it above the tables")
                result[table][name] = checked(OWNERS[name], name, value)
            except (ConfigError, ValueError) as error:
                raise ConfigError(f"{file}: {error}") from None
    return result


def repeatable(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that repeat a run, by their names in a TOML file.

    The values of its preset are among them, so that a later change of the preset does not change the run.
    """
    names = [name for name in chosen if name not in (*_ACTIONS, "preset")]
    return {"preset": NONE, **{flag_of(OWNERS[name], name).replace("-", "_"): chosen[name] for name in names}}


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
