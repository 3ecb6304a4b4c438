"""Finished runs as the starting point of another: their architecture, tokenizer and weights, or the mean of these."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlic_runtime.base.option import flag_of, options_of
from mlic_train.config import OWN_TEXT_ENCODERS, ModelConfig
from mlic_train.errors import CheckpointError, ConfigError
from mlic_train.models import Model, create_model

from .folder import (
    BEST_NAME,
    OF_THE_BACKBONE,
    checkpoint_digest,
    load_best,
    load_weights,
    read_run_config,
    read_tokenizer,
)

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


def start_from(model: Model, config: ModelConfig, folders: Sequence[Path], *, with_backbone: bool = True) -> str:
    """Copy the weights of a run's best checkpoint into a new model; return what was copied, in one line.

    What belongs to a label is copied where the run has a label of that name, wherever it stands there. What belongs to
    other labels stays as it is.

    Args:
        model: the new model.
        config: its configuration.
        folders: the run folder; of several runs the mean of their weights is taken, see `_mean`.
        with_backbone: False leaves the new model's picture encoder as it is.

    Raises:
        CheckpointError: there is no best checkpoint, its architecture is another, or the runs have no mean.
    """
    path = folders[0] / BEST_NAME
    theirs, tensors = read_run_config(folders[0]).model, _mean(folders)
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
    new = unknown_labels(config, folders[0])
    more = f", ... {len(new) - _NAMED} more" if len(new) > _NAMED else ""
    named = f"; new: {', '.join(new[:_NAMED])}{more}" if new else ""
    mean = "the mean of " if len(folders) > 1 else ""
    return f"start from {mean}{names_of(folders)}: it knows {len(known)} of {len(config.labels)} labels{named}"


def unknown_labels(config: ModelConfig, folder: Path) -> list[str]:
    """Return the labels of a model that a run does not know."""
    known = read_run_config(folder).model.labels
    return [name for name in config.labels if name not in known]


def names_of(folders: Sequence[Path]) -> str:
    """Return the names of run folders, as one text."""
    return ", ".join(folder.resolve().name for folder in folders)


def origin(folders: Sequence[Path]) -> dict[str, str]:
    """Return where the first weights come from, for the new run's provenance: the runs, and what their data was."""
    facts = [read_run_config(folder).provenance for folder in folders]
    notes = dict.fromkeys(str(each["data_note"]) for each in facts if "data_note" in each)
    runs = (f"{folder.resolve().name} {checkpoint_digest(folder)[:12]}" for folder in folders)
    return {"start_from": ", ".join(runs), **({"start_note": " ".join(notes)} if notes else {})}


def _mean(folders: Sequence[Path]) -> Mapping[str, Tensor]:
    """Return the weights of a run's best checkpoint; of several runs, the mean of each weight in float32.

    The mean of runs that started from the same weights is often better than each of them, and more so on other data
    than their own (Wortsman et al. 2022, "Model soups", arXiv:2203.05482; "Robust fine-tuning of zero-shot models",
    arXiv:2109.01903). A run that is given twice counts twice.

    Raises:
        CheckpointError: there is no best checkpoint, or architecture, labels or tokenizer of the runs differ.
    """
    first, *others = folders
    mean = dict(load_best(first).model)
    if not others:
        return mean
    names = [field.name for field in dataclasses.fields(ModelConfig) if field.name not in _FREE]
    model = read_run_config(first).model
    tokenizer = read_tokenizer(first, model)
    for number, folder in enumerate(others, start=2):
        theirs = read_run_config(folder).model
        differ = [name for name in names if getattr(theirs, name) != getattr(model, name)]
        if read_tokenizer(folder, theirs) != tokenizer:
            differ.append("tokenizer")
        if differ:
            raise CheckpointError(
                f"{first.name} and {folder.name} have no mean, as they differ in {', '.join(differ)}: start from runs "
                "that started from the same model"
            )
        for name, tensor in load_best(folder).model.items():
            if tensor.is_floating_point():
                mean[name] = mean[name].float().lerp(tensor.float(), 1 / number)
    return mean


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
