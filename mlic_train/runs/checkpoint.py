"""Run folders: config.json and tokenizer.json, written once, then best.safetensors and last.safetensors.

A checkpoint is one file, written to a temporary name and renamed, so that a kill at any moment leaves either the
older or the newer one, whole. Nothing is pickled: tensors are safetensors, everything else is JSON in its header.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlic_runtime.errors import OutputError
from mlic_runtime.package.manifest import TOKENIZER_NAME
from mlic_train.base.files import atomic_path, write_bytes
from mlic_train.config import ModelConfig, TrainConfig, read_configs, read_json
from mlic_train.errors import CheckpointError
from mlic_train.models import Model, create_model

CONFIG_NAME = "config.json"
BEST_NAME = "best.safetensors"
LAST_NAME = "last.safetensors"
_MODEL = "model."
_OPTIMIZER = "optimizer."
_AVERAGE = "average."


@dataclass(frozen=True)
class RunConfig:
    """The content of config.json: everything that is fixed before the first step."""

    model: ModelConfig
    train: TrainConfig
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass
class State:
    """What a checkpoint knows besides tensors.

    `epoch` and `step` name the next batch to train on (`step` counts batches inside the epoch), `history` has one
    row per finished epoch, `thresholds` (L) and `metrics` {split: {metric: number}} belong to these weights. `scaler`
    is the loss scale of float16 training.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best_score: float = -1.0
    epochs_without_gain: int = 0
    loss_sum: float = 0.0
    finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)


def write_run_config(folder: Path, config: RunConfig, tokenizer: bytes | None) -> None:
    """Write config.json and, for a model that reads captions, tokenizer.json."""
    data = {
        "model": dataclasses.asdict(config.model),
        "train": dataclasses.asdict(config.train),
        "provenance": dict(config.provenance),
    }
    if tokenizer is not None:
        write_bytes(folder / TOKENIZER_NAME, tokenizer)
    write_bytes(folder / CONFIG_NAME, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def read_run_config(folder: Path) -> RunConfig:
    """Read config.json of a run folder.

    Raises:
        CheckpointError: there is none.
        ConfigError: it is malformed.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a run folder: it has no {CONFIG_NAME}")
    data = read_json(path)
    unknown = sorted(set(data) - {"model", "train", "provenance"})
    if unknown or not all(isinstance(data.get(key), dict) for key in ("model", "train", "provenance")):
        raise CheckpointError(f"{path} must have the objects model, train and provenance, and nothing else: {unknown}")
    return RunConfig(*read_configs(data, path), data["provenance"])


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    `moments` are the optimizer's tensors by parameter index and name, `average` the moving average of the weights;
    both are empty where there is none.
    """

    model: Mapping[str, Tensor]
    state: State = field(default_factory=State)
    moments: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    average: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    path: Path,
    model: Mapping[str, Tensor],
    state: State,
    optimizer: torch.optim.Optimizer | None = None,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write one checkpoint file: model, state, and where given the optimizer's tensors and the averaged weights.

    Raises:
        OutputError: it cannot be written; an older file is as it was.
    """
    tensors = {_MODEL + name: tensor.detach().contiguous() for name, tensor in model.items()}
    # A parameter that is not trained is the same in the average, but safetensors wants every tensor's memory once.
    tensors |= {_AVERAGE + name: tensor.detach().clone().contiguous() for name, tensor in (average or {}).items()}
    if optimizer is not None:
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                tensors[f"{_OPTIMIZER}{index}.{key}"] = torch.as_tensor(value).detach().contiguous()
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"state": json.dumps(vars(state))})
        except SafetensorError as error:  # it does not say OSError where the disk is full
            raise OutputError(f"cannot write {path}: {error}; what was there is unchanged: make room") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        CheckpointError: missing, not safetensors (pickled files are never opened), or without our state.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a .safetensors file; pickled checkpoints can run code and are not read")
    model: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    average: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            state = State(**json.loads((file.metadata() or {})["state"]))
            for name in file.keys():  # noqa: SIM118 # not a dict
                if name.startswith(_MODEL):
                    model[name[len(_MODEL) :]] = file.get_tensor(name)
                elif name.startswith(_OPTIMIZER):
                    _, index, key = name.split(".")
                    moments.setdefault(int(index), {})[key] = file.get_tensor(name)
                elif name.startswith(_AVERAGE):
                    average[name[len(_AVERAGE) :]] = file.get_tensor(name)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of mlic-train: {type(error).__name__}: {error}") from None
    return Checkpoint(model, state, moments, average)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Put saved moments back; hyperparameters come from the configuration, not from the file."""
    data: dict[str, Any] = optimizer.state_dict()
    data["state"] = {index: dict(entries) for index, entries in tensors.items()}
    optimizer.load_state_dict(data)


@dataclass(frozen=True)
class Trained:
    """A model with its weights, ready for evaluation or export (in eval mode)."""

    folder: Path
    config: RunConfig
    model: Model
    tokenizer: bytes | None
    state: State


def load_trained(folder: Path) -> Trained:
    """Load the best checkpoint of a run folder (or of the released checkpoint's folder).

    Raises:
        CheckpointError: no best checkpoint yet, or one that does not fit config.json.
    """
    config = read_run_config(folder)
    path = folder / BEST_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {BEST_NAME} yet: let at least one epoch finish (mlic-train --resume)")
    checkpoint = load_checkpoint(path)
    model = create_model(config.model)
    load_weights(model, checkpoint.model, path)
    tokenizer = None
    if config.model.reads_captions:
        file = folder / TOKENIZER_NAME
        if not file.is_file():
            raise CheckpointError(f"{folder} has no {TOKENIZER_NAME}; the run folder is incomplete")
        tokenizer = file.read_bytes()
    return Trained(folder, config, model.eval(), tokenizer, checkpoint.state)


def checkpoint_digest(folder: Path) -> str:
    """The sha256, 64 hex digits, of a run folder's best checkpoint: what a package says it was exported from."""
    return hashlib.sha256((folder / BEST_NAME).read_bytes()).hexdigest()


def save_half(trained: Trained, folder: Path) -> Trained:
    """Write a checkpoint with float16 weights (half the size, nothing to resume from) and load it back.

    What comes back is what was written, so that a package exported from it and the checkpoint are the same model.
    """
    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in trained.model.state_dict().items()
    }
    write_run_config(folder, trained.config, trained.tokenizer)
    save_checkpoint(folder / BEST_NAME, tensors, trained.state)
    return load_trained(folder)


def load_backbone(model: Model, folder: Path) -> None:
    """Copy the picture encoder of a run folder's best checkpoint, its normalisation included, into `model`.

    Raises:
        CheckpointError: no best checkpoint, or one of another backbone.
    """
    path = folder / BEST_NAME
    tensors = load_checkpoint(path).model
    own = model.state_dict()
    names = [name for name in own if name.startswith(("backbone.", "normalize."))]
    theirs = {name for name in tensors if name.startswith(("backbone.", "normalize."))}
    if theirs != set(names) or any(tensors[name].shape != own[name].shape for name in names):
        raise CheckpointError(f"{path} has another backbone than the model; give the same --backbone as that run")
    load_weights(model, {**own, **{name: tensors[name] for name in names}}, path)


def load_weights(model: Model, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into the model; half-precision files are widened to the model's float32.

    Raises:
        CheckpointError: names or shapes do not fit the configuration beside the file.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} does not fit the {CONFIG_NAME} beside it: {reason}") from None
