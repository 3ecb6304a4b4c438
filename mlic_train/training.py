"""A run from start to end: configuration, tokenizer, features, fit, final metrics."""

import dataclasses
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from mlic_runtime.manifest import TOKENIZER_NAME

from .checkpoint import (
    BEST_NAME,
    CONFIG_NAME,
    LAST_NAME,
    RunConfig,
    State,
    load_checkpoint,
    load_trained,
    load_weights,
    read_run_config,
    save_checkpoint,
    write_run_config,
)
from .config import ModelConfig, TrainConfig
from .data.summary import fingerprint
from .dataset import Examples
from .errors import CheckpointError, ConfigError, DataError
from .features import FeatureCache, build_cache
from .fit import FitData, fit
from .learner import Learner
from .measure import caption_tokenizer, measure, usable_records
from .models import Model, create_model
from .progress import progress_bar
from .splits import Splits
from .tokenizer import train_tokenizer, vocabulary_size

Log = Callable[[str], None]
_LIBRARIES = ("torch", "timm", "tokenizers", "numpy", "lightning-fabric")
_MAY_CHANGE = ("epochs", "patience", "workers")  # what a resumed run may have otherwise than the run it resumes
_CACHE_FOLDER = "feature-cache"


def train_run(
    folder: Path,
    model_config: ModelConfig,
    train_config: TrainConfig,
    splits: Splits,
    *,
    backbone_weights: str | Path | None = None,
    provenance: Mapping[str, str] | None = None,
    device: str = "auto",
    log: Log = lambda _: None,
) -> State:
    """Train a model into a new run folder.

    Raises:
        CheckpointError: the folder holds a run already.
        MlicError: see `fit`, `create_model`, `train_tokenizer`.
    """
    if (folder / CONFIG_NAME).exists():
        raise CheckpointError(f"{folder} holds a run already; go on with --resume or choose another --output")
    tokenizer = None
    if model_config.reads_captions:
        captions = (caption for record in splits.train.records for caption in record.captions)
        tokenizer = train_tokenizer(captions, model_config.vocab_size)
        # Few captions give fewer pieces than asked for; rows that no token can reach would only make the model larger.
        model_config = dataclasses.replace(model_config, vocab_size=vocabulary_size(tokenizer))
    model_config = dataclasses.replace(model_config, labels=splits.labels.names)
    torch.manual_seed(train_config.seed)
    model = create_model(model_config, backbone_weights)
    facts: dict[str, str | int | float] = {
        "data_fingerprint": fingerprint(splits.named()),
        "seed": train_config.seed,
        "backbone_weights": "none" if backbone_weights is None else Path(str(backbone_weights)).name,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        **(provenance or {}),
    }
    config = RunConfig(model_config, train_config, facts)
    data = _fit_data(config, tokenizer, splits, folder, model, log)
    # config.json comes last: a folder that has it can be resumed, one that has not can be started again.
    save_checkpoint(folder / LAST_NAME, model.state_dict(), State())
    write_run_config(folder, config, tokenizer)
    state = fit(model, data, train_config, folder, device=device, log=log)
    return _finish(folder, state, splits, log)


def resume_run(
    folder: Path,
    splits: Splits,
    *,
    wanted: Mapping[str, object] | None = None,
    device: str = "auto",
    log: Log = lambda _: None,
) -> State:
    """Go on with a run from its last checkpoint.

    Args:
        folder: the run folder.
        splits: the same data as before (its fingerprint is compared).
        wanted: configuration values that were asked for; only epochs, patience and workers may differ.
        device: see `fit`.
        log: called with lines of progress.

    Raises:
        CheckpointError: there is no run to resume, or other data.
        ConfigError: `wanted` differs from the run's own configuration.
    """
    config = read_run_config(folder)
    if fingerprint(splits.named()) != config.provenance.get("data_fingerprint"):
        raise CheckpointError(f"{folder} was trained on other data; resume it with the data it was started with")
    saved = {**dataclasses.asdict(config.model), **dataclasses.asdict(config.train)}
    changes = {name: value for name, value in (wanted or {}).items() if saved[name] != value}
    for name, value in changes.items():
        if name not in _MAY_CHANGE:
            raise ConfigError(
                f"{folder} was started with {name} {saved[name]!r}, not {value!r}; "
                f"leave the option out, or start a new run (only {', '.join(_MAY_CHANGE)} may change)"
            )
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))  # type: ignore[arg-type] # names and values come from these dataclasses
    tokenizer = (folder / TOKENIZER_NAME).read_bytes() if config.model.reads_captions else None
    model = create_model(config.model)
    checkpoint = load_checkpoint(folder / LAST_NAME)
    load_weights(model, checkpoint.model, folder / LAST_NAME)
    data = _fit_data(config, tokenizer, splits, folder, model, log)
    state = fit(model, data, config.train, folder, resume=checkpoint, device=device, log=log)
    return _finish(folder, state, splits, log)


def _fit_data(
    config: RunConfig, tokenizer: bytes | None, splits: Splits, folder: Path, model: Model, log: Log
) -> FitData:
    """The rows that the model can use, with their feature caches if asked for."""
    rows = {}
    for name, split in (("train", splits.train), ("val", splits.val)):
        rows[name] = usable_records(split.records, config.model)
        left_out = len(split.records) - len(rows[name])
        if not rows[name]:
            raise DataError(f"the split {name!r} has no row that {config.model.name} can use: it reads only pictures")
        if not any(record.labels for record in rows[name]):
            raise DataError(f"no row of the split {name!r} has a label: there is nothing to learn or to measure")
        if left_out:
            log(f"{name}: {left_out} rows without a picture are left out, {config.model.name} reads only pictures")
    spec, train, num_labels = config.model.image_spec, config.train, config.model.num_labels
    caches: dict[str, FeatureCache] = {}
    if train.cache_features:
        horizontal = (False, True) if train.horizontal_flip else (False,)
        vertical = (False, True) if train.vertical_flip else (False,)
        variants = {"train": [(h, v) for h in horizontal for v in vertical], "val": [(False, False)]}
        for name in rows:
            with progress_bar(f"features of {name}", "picture") as progress:
                caches[name] = build_cache(
                    model, rows[name], spec, variants[name], folder.parent / _CACHE_FOLDER, progress
                )
    return FitData(
        train=Examples(rows["train"], num_labels, spec, train, caches.get("train")),
        val=Examples(rows["val"], num_labels, spec, None, caches.get("val")),
        tokenizer=caption_tokenizer(config, tokenizer),
    )


def _finish(folder: Path, state: State, splits: Splits, log: Log) -> State:
    """After the last epoch: measure the best checkpoint on every split and mode, and write that into it."""
    if not state.finished:
        return state
    trained = load_trained(folder)
    learner = Learner(trained.model, trained.config.train).eval()
    best = trained.state
    for name, split in splits.named().items():
        if name != "train":
            log(f"measuring the best checkpoint on {name}")
            for mode, metrics in measure(trained, learner, split.records, best.thresholds).items():
                best.metrics[name + mode] = metrics
    save_checkpoint(folder / BEST_NAME, trained.model.state_dict(), best)
    return dataclasses.replace(state, metrics=best.metrics, thresholds=best.thresholds)
