"""Run folders: config.json and tokenizer.json, written once, then best.safetensors and last.safetensors.

A checkpoint is one file, written to a temporary name and renamed, so that a kill at any moment leaves the older or the
newer one, complete. Nothing is pickled: tensors are safetensors, everything else is JSON in their header.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlic_runtime.base.output_files import atomic_path, write_bytes
from mlic_runtime.base.text import error_line
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import OutputError
from mlic_runtime.package.manifest import TOKENIZER_NAME
from mlic_train.batches.dataset import Batch
from mlic_train.config import ModelConfig, TrainConfig, read_configs, read_json
from mlic_train.errors import CheckpointError
from mlic_train.models import Model, create_model

CONFIG_NAME = "config.json"
BEST_NAME = "best.safetensors"
LAST_NAME = "last.safetensors"
NEVER_SEEN = "never_seen"  # in the provenance: "pictures", where no training row had one
SOFT_LABEL_FILES = "soft_labels_files"  # in the provenance, as JSON: the path of each file and the SHA-256 of its bytes
OF_THE_BACKBONE = ("backbone.", "normalize.")  # what the names of the picture encoder's tensors begin with
_MODEL = "model."
_OPTIMIZER = "optimizer."
_AVERAGE = "average."


@dataclass(frozen=True)
class RunConfig:
    """The content of config.json: everything that is known before the first step."""

    model: ModelConfig
    train: TrainConfig
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def published(self) -> dict[str, str | int | float]:
        """The provenance as others may see it: files of soft labels by their names, not by where they lie."""
        provenance = dict(self.provenance)
        if SOFT_LABEL_FILES in provenance:
            files: dict[str, str] = json.loads(str(provenance[SOFT_LABEL_FILES]))
            names = {Path(file).name: digest for file, digest in files.items()}
            provenance[SOFT_LABEL_FILES] = json.dumps(names)
        return provenance


@dataclass
class State:
    """The content of a checkpoint besides tensors.

    `epoch` and `step` are those of the next batch to train on (`step` counts batches inside the epoch). `history` has
    one row per finished epoch. `thresholds` (L) and `metrics` {split: {metric: number}} belong to these weights.
    `scaler` is the loss scale of float16 training. `time` is what a run with a time limit has measured and planned (see
    `training.time_limit`).
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
    time: dict[str, float] = field(default_factory=dict)


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
        CheckpointError: the file is missing or lacks an object.
        ConfigError: it is malformed.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is not a run folder: it has no {CONFIG_NAME}; give what mlic-train wrote, such as runs/hybrid"
        )
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
    """Write one checkpoint file: model, state, and the optimizer's tensors and the averaged weights if given.

    Raises:
        OutputError: it cannot be written; an older file stays as it was.
    """
    tensors = {_MODEL + name: tensor.detach().contiguous() for name, tensor in model.items()}
    # Cloned because safetensors refuses tensors that share memory.
    tensors |= {_AVERAGE + name: tensor.detach().clone().contiguous() for name, tensor in (average or {}).items()}
    if optimizer is not None:
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                tensors[f"{_OPTIMIZER}{index}.{key}"] = torch.as_tensor(value).detach().contiguous()
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"state": json.dumps(vars(state))})
        except SafetensorError as error:  # raised instead of OSError on a full disk
            raise OutputError(f"cannot write {path}: {error}; what was there is unchanged: make room") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        CheckpointError: the file is missing, not safetensors (pickled files are never opened), or lacks our state.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a .safetensors file; pickled checkpoints can run code and are not read")
    parts: dict[str, dict[str, Tensor]] = {_MODEL: {}, _OPTIMIZER: {}, _AVERAGE: {}}
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            state = State(**json.loads((file.metadata() or {})["state"]))
            for name in file.keys():  # noqa: SIM118 # not a dict
                part, _, key = name.partition(".")
                parts.setdefault(f"{part}.", {})[key] = file.get_tensor(name)
        for name, tensor in parts[_OPTIMIZER].items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of mlic-train: {type(error).__name__}: {error}") from None
    return Checkpoint(parts[_MODEL], state, moments, parts[_AVERAGE])


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Restore saved moments; hyperparameters come from the configuration, not from the file."""
    data: dict[str, Any] = optimizer.state_dict()
    data["state"] = {index: dict(entries) for index, entries in tensors.items()}
    optimizer.load_state_dict(data)


@dataclass(frozen=True)
class TrainedModel:
    """A model with its weights, in eval mode, and everything around it that evaluation and export need."""

    folder: Path
    config: RunConfig
    model: Model
    tokenizer: bytes | None
    state: State
    # The pixels of the last batch and their feature maps.
    _encoded: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    @cached_property
    def caption_tokenizer(self) -> CaptionTokenizer | None:
        """The runtime's tokenizer; None for a model that reads no captions.

        Raises:
            PackageError: the runtime does not accept tokenizer.json.
        """
        return create_tokenizer(self.config.model, self.tokenizer)

    def run(self, batch: Batch) -> Tensor:
        """Return calibrated logits float32 (B, L).

        A black picture is no picture, as in the graph. The backbone works once for a batch of pictures, also when the
        batch comes again without its captions.
        """
        if batch.pixels is not None:
            if not self._encoded or self._encoded[0] is not batch.pixels:
                self._encoded[:] = [batch.pixels, self.model.encode_picture(batch.pixels)]
            visible = batch.pixels.flatten(1).any(dim=1)
            batch = dataclasses.replace(batch, features=self._encoded[1], has_picture=visible)
        return self.model.classify(*self.model.arguments(batch.encoded))


def create_tokenizer(config: ModelConfig, tokenizer_json: bytes | None) -> CaptionTokenizer | None:
    """Parse tokenizer.json; return None for a model that reads no captions."""
    spec = config.text_spec
    return None if spec is None or tokenizer_json is None else CaptionTokenizer(tokenizer_json, spec)


def load_trained(folder: Path) -> TrainedModel:
    """Load the best checkpoint of a run folder (or of the released checkpoint's folder).

    Raises:
        CheckpointError: there is no best checkpoint yet, or it does not fit config.json.
    """
    config = read_run_config(folder)
    checkpoint = load_best(folder)
    model = create_model(config.model)
    load_weights(model, checkpoint.model, folder / BEST_NAME)
    return TrainedModel(folder, config, model.eval(), read_tokenizer(folder, config.model), checkpoint.state)


def load_best(folder: Path) -> Checkpoint:
    """Read the best checkpoint of a run folder.

    Raises:
        CheckpointError: there is none yet; see also `load_checkpoint`.
    """
    path = folder / BEST_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {BEST_NAME} yet: let at least one epoch finish (mlic-train --resume)")
    return load_checkpoint(path)


def read_tokenizer(folder: Path, config: ModelConfig) -> bytes | None:
    """Read tokenizer.json of a run folder; return None for a model that reads no captions.

    Raises:
        CheckpointError: the file is missing.
    """
    if not config.reads_captions:
        return None
    file = folder / TOKENIZER_NAME
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {TOKENIZER_NAME}; the run folder is incomplete")
    return file.read_bytes()


def checkpoint_digest(folder: Path) -> str:
    """Return the sha256 (64 hex digits) of a run folder's best checkpoint, which packages exported from it contain."""
    return hashlib.sha256((folder / BEST_NAME).read_bytes()).hexdigest()


def save_half(trained: TrainedModel, folder: Path) -> TrainedModel:
    """Write a checkpoint with float16 weights (half the size, cannot be resumed) and return it loaded from the file.

    So a package exported from the result and the checkpoint are the same model.
    """
    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in trained.model.state_dict().items()
    }
    config = dataclasses.replace(trained.config, provenance=trained.config.published)
    write_run_config(folder, config, trained.tokenizer)
    save_checkpoint(folder / BEST_NAME, tensors, trained.state)
    return load_trained(folder)


def load_backbone(model: Model, folder: Path) -> None:
    """Copy the picture encoder of a run folder's best checkpoint, its normalisation included, into `model`.

    Raises:
        CheckpointError: there is no best checkpoint, or it has another backbone.
    """
    path, tensors = folder / BEST_NAME, load_best(folder).model
    own = model.state_dict()
    names = [name for name in own if name.startswith(OF_THE_BACKBONE)]
    theirs = {name for name in tensors if name.startswith(OF_THE_BACKBONE)}
    if theirs != set(names) or any(tensors[name].shape != own[name].shape for name in names):
        raise CheckpointError(f"{path} has another backbone than the model; give the same --backbone as that run")
    load_weights(model, {**own, **{name: tensors[name] for name in names}}, path)


def load_weights(model: Model, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into the model; float16 becomes the model's float32.

    Raises:
        CheckpointError: names or shapes do not fit the configuration beside the file.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = error_line(error)[:300]
        raise CheckpointError(f"{path} does not fit the {CONFIG_NAME} beside it: {reason}") from None
