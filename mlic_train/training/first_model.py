"""The model of a new run before its first step: made anew, or that of a finished run taken over."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mlic_train.config import ModelConfig, Options
from mlic_train.data.splits import Splits
from mlic_train.errors import ConfigError
from mlic_train.models import Model, create_model
from mlic_train.runs.find import run_called
from mlic_train.runs.folder import load_backbone
from mlic_train.runs.starting_point import names_of, origin, start_from, unknown_labels

from .caption_setup import set_up_captions, take_over_captions


@dataclass(frozen=True)
class FirstModel:
    """A model with its first weights.

    Attributes:
        model: the model.
        config: its configuration, with the labels of the data and the vocabulary of the tokenizer.
        tokenizer: tokenizer.json; None for a model that reads no captions.
        facts: where the weights come from, for the run's provenance.
    """

    model: Model
    config: ModelConfig
    tokenizer: bytes | None
    facts: Mapping[str, str]


def make_first_model(options: Options, splits: Splits, log: Callable[[str], None]) -> FirstModel:
    """Make the model that a run with these options and rows begins with; weights at random are those of its seed.

    Raises:
        ConfigError: options that do not go together; see also `set_up_captions`.
        CheckpointError: there is no run to start from, or its architecture is another.
    """
    start = [run_called(name) for name in options.weights.start_from]
    if start:
        return _take_over(start, options, splits, log)
    if not options.train.epochs:
        raise ConfigError("--epochs 0 trains nothing: give the model to calibrate and measure with --start-from")
    return _make_new(options, splits)


def _make_new(options: Options, splits: Splits) -> FirstModel:
    backbone = options.weights.pretrained
    captions = set_up_captions(options.model, splits.train.records, options.weights.embedding)
    config = dataclasses.replace(captions.config, labels=splits.labels.names)
    model = _create(config, backbone, options.train.seed)
    model.start_captions(captions.weights)
    facts = {"backbone_weights": "none" if backbone is None else Path(backbone).name, **captions.facts}
    return FirstModel(model, config, captions.tokenizer, facts)


def _take_over(folders: Sequence[Path], options: Options, splits: Splits, log: Callable[[str], None]) -> FirstModel:
    if "embedding" in options.given:
        raise ConfigError("--start-from brings token embeddings of its own: leave --embedding out")
    captions = take_over_captions(options.model, folders[0])
    backbone = options.weights.pretrained if "backbone_weights" in options.given else None  # not that of a preset
    config = dataclasses.replace(captions.config, labels=splits.labels.names)
    model = _create(config, backbone, options.train.seed)
    line = start_from(model, config, folders, with_backbone=backbone is None)
    if not options.train.epochs and unknown_labels(config, folders[0]):
        raise ConfigError(f"--epochs 0 trains nothing, but some labels have to be learned ({line}): leave --epochs out")
    log(line)
    # What the weights are called, but not their folder on this machine.
    facts = {"backbone_weights": names_of(folders) if backbone is None else Path(backbone).name, **origin(folders)}
    return FirstModel(model, config, captions.tokenizer, facts)


def _create(config: ModelConfig, backbone: str | None, seed: int) -> Model:
    """Create a model; `backbone` may also be a run folder, whose picture encoder it takes over."""
    torch.manual_seed(seed)
    if backbone is None or not Path(backbone).is_dir():
        return create_model(config, backbone)
    model = create_model(config)
    load_backbone(model, Path(backbone))
    return model
