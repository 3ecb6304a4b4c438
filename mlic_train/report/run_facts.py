"""What a run is: its model, its size, how it was trained, and on what."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlic_runtime.base.text import printable
from mlic_train.config import ModelConfig, TrainConfig, resolve_configs
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, RunConfig, TrainedModel, load_checkpoint

from .page import Part, Table, facts

_LARGE = ("labels", "text_config")  # they have a place of their own
_NOT_CHOSEN = ("data_fingerprint", "soft_labels_fingerprint", "data_note")  # about the data, or follow from the rest
_AT_THE_TOP = ("seed", "data_fingerprint")


def run_name(folder: Path) -> str:
    """Return the folder's own name, as text that can be encoded: not where it lies on this machine."""
    return printable(folder.resolve().name)


def history(trained: TrainedModel) -> list[dict[str, float]]:
    """Return one row per finished epoch; a released checkpoint knows them up to its best epoch only."""
    last = trained.folder / LAST_NAME
    return load_checkpoint(last).state.history if last.is_file() else trained.state.history


def model_facts(trained: TrainedModel) -> dict[str, object]:
    """Return name, size, inputs and training of a model."""
    config, model = trained.config.model, trained.model
    every, backbone = (sum(one.numel() for one in part.parameters()) for part in (model, model.backbone))
    result: dict[str, object] = {
        "model": config.name,
        "labels": f"{config.num_labels}: {', '.join(config.labels)}",
        "parameters": f"{every:,}, of which {backbone:,} are {config.backbone}",
        "checkpoint": f"{BEST_NAME}, {(trained.folder / BEST_NAME).stat().st_size / 1e6:.1f} MB",
        "picture": f"{config.image_size} x {config.image_size}, {config.resize}, {config.interpolation}",
        "caption": f"at most {config.max_length} tokens, vocabulary of {config.vocab_size}",
    }
    if not sees_pictures(trained):
        result["picture"] = "none: trained without pictures, measured on captions only"
    if not config.reads_captions:
        result["caption"] = "none: the model reads pictures only"
    rows = history(trained)
    if rows:
        minutes = sum(row.get("seconds", 0.0) for row in rows) / 60
        result["training"] = f"{len(rows)} epochs, {minutes:.1f} minutes, best epoch {trained.state.epoch}"
    provenance = trained.config.provenance
    return result | {name.replace("_", " "): str(provenance[name]) for name in _AT_THE_TOP if name in provenance}


def sees_pictures(trained: TrainedModel) -> bool:
    """Return False for a run whose data had no pictures: the output of its backbone is random."""
    known = trained.state.metrics
    return not ("val-caption-only" in known and "val-picture-only" not in known)


def hyperparameters(config: RunConfig) -> dict[str, object]:
    """Return all hyperparameters by name, and where weights and soft labels came from."""
    values: dict[str, Any] = {**dataclasses.asdict(config.model), **dataclasses.asdict(config.train)}
    result = {name: shown(value) for name, value in values.items() if name not in _LARGE}
    known = {*result, *_NOT_CHOSEN}
    return {**result, **{name: value for name, value in config.provenance.items() if name not in known}}


def run_parts(trained: TrainedModel) -> list[Part]:
    """Return what the model is, and folded away its hyperparameters and provenance."""
    config = trained.config
    usual = resolve_configs(ModelConfig(name=config.model.name), TrainConfig())
    changed = [
        (name, shown(value), shown(getattr(defaults, name)))
        for part, defaults in zip((config.model, config.train), usual, strict=True)
        for name, value in vars(part).items()
        if name not in _LARGE and value != getattr(defaults, name)
    ]
    provenance = {
        name.replace("_", " "): value for name, value in trained.config.provenance.items() if name not in _AT_THE_TOP
    }
    parts: list[Part] = [_facts(model_facts(trained))]
    if changed:
        parts.append(Table(("name", "value", "default"), changed, "Hyperparameters that are not the defaults"))
    if provenance:
        parts.append(_facts(provenance, "Provenance and versions"))
    return parts


def _facts(values: Mapping[str, object], folded: str = "") -> Table:
    return facts(((name, printable(str(value))) for name, value in values.items()), folded)


def shown(value: object) -> str:
    """Return a hyperparameter as text: a small learning rate keeps its digits, an unset value is "none"."""
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
