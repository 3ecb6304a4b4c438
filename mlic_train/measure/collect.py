"""Metrics of a trained model on a split, by mode: both modalities, picture only, caption only."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.graph.session import GraphSession
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.batches.dataset import Batch, Examples
from mlic_train.config import ModelConfig
from mlic_train.data import Record
from mlic_train.data.splits import Splits
from mlic_train.runs.checkpoint import RunConfig, Trained
from mlic_train.runs.learner import Learner

from .bootstrap import bootstrap_intervals
from .metrics import compute_metrics
from .predict import MODES, Outputs, Run, predict_modes

_BATCH_SIZE = 16


def collect(
    trained: Trained, run: Run, records: Sequence[Record], encode: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Outputs]:
    """What the model says of one split, by mode; nothing where it can use none of the rows.

    Args:
        trained: whose model it is.
        run: the model, or its graph.
        records: the split.
        encode: see `predict_modes`.
    """
    config = trained.config
    usable = usable_records(records, config.model)
    if not usable:
        return {}
    examples = Examples(usable, config.model.num_labels, config.model.image_spec)
    modes = MODES if config.model.reads_captions else MODES[:1]
    tokenizer = caption_tokenizer(config, trained.tokenizer)
    return predict_modes(run, examples, tokenizer, _BATCH_SIZE, modes=modes, encode=encode)


def report(outputs: Mapping[str, Outputs], thresholds: Sequence[float]) -> dict[str, dict[str, float]]:
    """Metrics with their bootstrap intervals: {"": both, "-picture-only": ..., "-caption-only": ...}."""
    return {mode_suffix(mode): score(rows, thresholds) for mode, rows in outputs.items()}


def score(outputs: Outputs, thresholds: Sequence[float]) -> dict[str, float]:
    """Metrics with their bootstrap intervals."""
    arrays = (sigmoid(outputs.logits), outputs.targets, np.asarray(thresholds))
    return {**compute_metrics(*arrays), **bootstrap_intervals(*arrays)}


def mode_suffix(mode: str) -> str:
    """What follows a split's name where the rows are of one mode: "" for both, "-picture-only", "-caption-only"."""
    return "" if mode == "both" else f"-{mode}"


def collect_splits(
    trained: Trained, run: Run, splits: Splits, names: Sequence[str] = ("val", "test")
) -> dict[str, Outputs]:
    """What the model, or its graph, says of all rows of val and test: {"val", "val-picture-only", ..., "test", ...}.

    Args:
        trained: whose model it is.
        run: `run_model` or `run_graph`.
        splits: real rows with labels.
        names: which of them; one that is not there gives nothing.
    """
    return {
        name + mode_suffix(mode): outputs
        for name, split in splits.named().items()
        if name in names
        for mode, outputs in collect(trained, run, split.records).items()
    }


def run_model(trained: Trained) -> Run:
    """The model in PyTorch, as it is trained: it is told which rows have a picture, and its graph has to see it.

    A picture that is black all over is none, as in the graph. The backbone works once per picture, not once per mode.
    """
    learner = Learner(trained.model, trained.config.train).eval()
    last: list[Tensor] = []  # the pixels of the batch that was last seen, and their features

    def run(batch: Batch) -> Tensor:
        if batch.pixels is not None:
            if not last or last[0] is not batch.pixels:
                last[:] = [batch.pixels, trained.model.encode_picture(batch.pixels)]
            visible = batch.pixels.flatten(1).any(dim=1)
            batch = dataclasses.replace(batch, pixels=None, features=last[1], has_picture=visible)
        logits: Tensor = learner(batch)
        return logits

    return run


def run_graph(trained: Trained, session: GraphSession) -> Run:
    """A graph of the model."""
    size = trained.config.model.image_size
    return lambda batch: torch.from_numpy(session.run(*(tensor.numpy() for tensor in graph_inputs(batch, size))))


def graph_inputs(batch: Batch, size: int) -> list[Tensor]:
    """`pixels` uint8 (B, size, size, 3), and where captions are read `input_ids` and `attention_mask` int64 (B, T)."""
    rows = len(batch.targets)
    pixels = torch.zeros(rows, size, size, 3, dtype=torch.uint8) if batch.pixels is None else batch.pixels
    return [tensor for tensor in (pixels, batch.input_ids, batch.attention_mask) if tensor is not None]


def caption_tokenizer(config: RunConfig, tokenizer: bytes | None) -> CaptionTokenizer | None:
    """The runtime's tokenizer for this model; None for a model that reads no captions."""
    spec = config.model.text_spec
    return None if spec is None or tokenizer is None else CaptionTokenizer(tokenizer, spec)


def usable_records(records: Sequence[Record], config: ModelConfig) -> list[Record]:
    """Without the rows that the model cannot use: captions alone, for a model that reads only pictures."""
    return [record for record in records if config.reads_captions or record.image is not None]
