"""A finished run as the starting point of another: its architecture, tokenizer and weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlic_runtime.base.option import flag_of, options_of
from mlic_train.config import OWN_TEXT_ENCODERS, ModelConfig
from mlic_train.errors import CheckpointError, ConfigError
from mlic_train.models import Model, create_model

from .folder import BEST_NAME, OF_THE_BACKBONE, checkpoint_digest, load_best, load_weights, read_run_config

# What may differ from that run: no weight depends on it. (Dropout has none; a CNN reads pictures of any size.)
_FREE = ("image_size", "interpolation", "resize", "dropout", "encoder_dropout", "word_dropout", "drop_path")

_NAMED = 5  # new labels that are named


def architecture(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the model that a run which starts from the one in `folder` has, by field name.

    Args:
        folder: the run folder.
        given: the options that the user gave.

    Raises:
        CheckpointError: it is no run folder.
        ConfigError: a given option contradicts the run.
    """
    model = read_run_config(folder).model
    result = {}
    for name in options_of(ModelConfig):
        value = getattr(model, name)
        if name in _FREE:
            if name not in given:
                result[name] = value
        elif given.get(name, value) != value and name != "vocab_size":
            raise ConfigError(
                f"--{flag_of(ModelConfig, name)} is {given[name]!r}, but the run {folder.name} to start from has "
                f"{value!r}: leave the option out, or start from another run"
            )
        elif name not in ("vocab_size", "softmax_output"):  # the tokenizer's size is known; the other follows the loss
            result[name] = value
    if model.text_encoder not in OWN_TEXT_ENCODERS:
        result.pop("word_dropout", None)
    return result


def start_from(model: Model, config: ModelConfig, folder: Path, *, with_backbone: bool = True) -> str:
    """Copy the weights of a run's best checkpoint into a new model; return what was copied, in one line.

    What belongs to a label is copied where the run has a label of that name, wherever it stands there. What belongs to
    other labels stays as it is.

    Args:
        model: the new model.
        config: its configuration.
        folder: the run folder.
        with_backbone: False leaves the new model's picture encoder as it is.

    Raises:
        CheckpointError: there is no best checkpoint, or its architecture is another.
    """
    path = folder / BEST_NAME
    theirs, tensors = read_run_config(folder).model, load_best(folder).model
    own = model.state_dict()
    axes = _label_axes(own, config)
    known = [(config.labels.index(name), at) for at, name in enumerate(theirs.labels) if name in config.labels]
    into, out_of = (torch.tensor([pair[side] for pair in known], dtype=torch.long) for side in (0, 1))
    result: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if not with_backbone and name.startswith(OF_THE_BACKBONE):
            result[name] = tensor
            continue
        other = tensors.get(name)
        axis = axes.get(name)
        if other is None or _without(other, axis) != _without(tensor, axis):
            found = "nothing" if other is None else f"{tuple(other.shape)}"
            raise CheckpointError(
                f"{path} does not fit the new model: found {found} for {name}, expected {tuple(tensor.shape)}"
            )
        other = other.to(tensor.dtype)
        result[name] = other if axis is None else tensor.index_copy(axis, into, other.index_select(axis, out_of))
    load_weights(model, result, path)
    new = [name for name in config.labels if name not in theirs.labels]
    more = f", ... {len(new) - _NAMED} more" if len(new) > _NAMED else ""
    named = f"; new: {', '.join(new[:_NAMED])}{more}" if new else ""
    return f"start from {folder.resolve().name}: it knows {len(known)} of {len(config.labels)} labels{named}"


def origin(folder: Path) -> dict[str, str]:
    """Return where the first weights come from, for the new run's provenance: the run, and what its data was."""
    facts = read_run_config(folder).provenance
    note = {"start_note": str(facts["data_note"])} if "data_note" in facts else {}
    return {"start_from": f"{folder.resolve().name} {checkpoint_digest(folder)[:12]}", **note}


def _label_axes(own: Mapping[str, Tensor], config: ModelConfig) -> dict[str, int]:
    """Return the axis of the labels of each tensor that has one: the axis that is longer with one label more."""
    with torch.device("meta"):  # shapes only
        more = create_model(dataclasses.replace(config, labels=(*config.labels, "")))
    shapes = {name: tensor.shape for name, tensor in more.state_dict().items()}
    return {
        name: next(at for at, size in enumerate(tensor.shape) if size != shapes[name][at])
        for name, tensor in own.items()
        if tensor.shape != shapes[name]
    }


def _without(tensor: Tensor, axis: int | None) -> tuple[int, ...]:
    return tuple(size for at, size in enumerate(tensor.shape) if at != axis)
