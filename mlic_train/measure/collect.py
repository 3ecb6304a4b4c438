"""Outputs and metrics of a trained model on a split, by mode: both inputs, picture only, caption only."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mlic_runtime.graph.session import GraphSession
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.batches.dataset import Batch, Examples
from mlic_train.config import ModelConfig
from mlic_train.data import Record
from mlic_train.data.splits import Splits
from mlic_train.errors import DataError
from mlic_train.runs.folder import TrainedModel

from .bootstrap import bootstrap_intervals
from .metrics import compute_metrics
from .predict import MODES, Outputs, Run, predict_modes

_BATCH_SIZE = 16


def collect(
    trained: TrainedModel,
    run: Run,
    records: Sequence[Record],
    progress: Callable[[int, int], None] = lambda done, total: None,
    enough: Callable[[int], bool] | None = None,
) -> dict[str, Outputs]:
    """Run a model on one split; return its outputs by mode, nothing where the model can use none of the rows.

    `run` is `trained.run` or that of a graph (`run_graph`); `progress` is called with (rows done, rows in all).
    `enough` says when rows may be left out (see `predict_modes`).
    """
    config = trained.config.model
    usable = usable_records(records, config)
    if not usable:
        return {}
    examples = Examples(usable, config.num_labels, config.image_spec)
    modes = MODES if config.reads_captions else MODES[:1]
    return predict_modes(
        run, examples, trained.caption_tokenizer, _BATCH_SIZE, modes=modes, progress=progress, enough=enough
    )


def report(outputs: Mapping[str, Outputs], thresholds: Sequence[float]) -> dict[str, dict[str, float]]:
    """Return metrics with bootstrap intervals: {"": both inputs, "-picture-only": ..., "-caption-only": ...}."""
    return {mode_suffix(mode): score(rows, thresholds) for mode, rows in outputs.items()}


def score(outputs: Outputs, thresholds: Sequence[float]) -> dict[str, float]:
    """Return metrics with their bootstrap intervals."""
    arrays = (sigmoid(outputs.logits), outputs.targets, np.asarray(thresholds))
    return {**compute_metrics(*arrays, outputs.known), **bootstrap_intervals(*arrays, known=outputs.known)}


def mode_suffix(mode: str) -> str:
    """Return what follows a split's name for rows of one mode: "" for both, "-picture-only", "-caption-only"."""
    return "" if mode == "both" else f"-{mode}"


def collect_splits(
    trained: TrainedModel, run: Run, splits: Splits, names: Sequence[str] = ("val", "test")
) -> dict[str, Outputs]:
    """Run a model on all rows of val and test; return {"val", "val-picture-only", ..., "test", ...: outputs}.

    `run` is as for `collect`; `names` are the splits to use, of which the data may lack some.
    """
    return {
        name + mode_suffix(mode): outputs
        for name, split in splits.named().items()
        if name in names
        for mode, outputs in collect(trained, run, split.records).items()
    }


def run_graph(trained: TrainedModel, session: GraphSession) -> Run:
    """Return a function that runs a batch through a graph of the model."""
    size = trained.config.model.image_size
    return lambda batch: torch.from_numpy(session.run(*(tensor.numpy() for tensor in graph_inputs(batch, size))))


def graph_inputs(batch: Batch, size: int) -> list[Tensor]:
    """Return `pixels` uint8 (B, size, size, 3) and, if captions are read, ids and mask int64 (B, T)."""
    rows = len(batch.targets)
    pixels = torch.zeros(rows, size, size, 3, dtype=torch.uint8) if batch.pixels is None else batch.pixels
    return [tensor for tensor in (pixels, batch.input_ids, batch.attention_mask) if tensor is not None]


def check_labels(trained: TrainedModel, splits: Splits) -> None:
    """Refuse data with other labels than the model.

    Raises:
        DataError: the labels or their order differ.
    """
    names = trained.config.model.labels
    if splits.labels.names != names:
        raise DataError(f"the data has the labels {splits.labels.names}, the model {names}; give the right --labels")


def usable_records(records: Sequence[Record], config: ModelConfig) -> list[Record]:
    """Return the records that the model can use: without those that lack a picture, if it reads only pictures."""
    return [record for record in records if config.reads_captions or record.image is not None]
