"""Metrics of a trained model on a split, by mode: both modalities, picture only, caption only."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlic_runtime.postprocess import sigmoid
from mlic_runtime.session import GraphSession
from mlic_runtime.text import CaptionTokenizer

from .bootstrap import bootstrap_intervals
from .checkpoint import RunConfig, Trained
from .config import ModelConfig
from .data import Record
from .dataset import Batch, Examples
from .evaluate import compute_metrics
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
    results = {}
    for mode, rows in outputs.items():
        arrays = (sigmoid(rows.logits), rows.targets, np.asarray(thresholds))
        metrics = {**compute_metrics(*arrays), **bootstrap_intervals(*arrays)}
        results[mode_suffix(mode)] = metrics
    return results


def mode_suffix(mode: str) -> str:
    """What follows a split's name where the rows are of one mode: "" for both, "-picture-only", "-caption-only"."""
    return "" if mode == "both" else f"-{mode}"


def collect_both(
    trained: Trained, session: GraphSession, records: Sequence[Record]
) -> dict[str, tuple[npt.NDArray[np.float32], Outputs]]:
    """What the model in PyTorch says of one split (logits float32 (N, L)), and what its graph says, by mode.

    A picture is decoded, and a caption tokenised, once for both sides.

    Args:
        trained: the model.
        session: its graph.
        records: the split.
    """
    size = trained.config.model.image_size

    def run(batch: Batch) -> Tensor:
        rows = len(batch.targets)
        pixels = torch.zeros(rows, size, size, 3, dtype=torch.uint8) if batch.pixels is None else batch.pixels
        inputs = [tensor for tensor in (pixels, batch.input_ids, batch.attention_mask) if tensor is not None]
        found = torch.from_numpy(session.run(*(tensor.numpy() for tensor in inputs)))
        return torch.cat([trained.model(*inputs), found], dim=1)  # side by side, (B, 2 L)

    results = {}
    for mode, outputs in collect(trained, run, records).items():
        expected, found = np.split(outputs.logits, 2, axis=1)
        results[mode] = (expected, dataclasses.replace(outputs, logits=found))
    return results


def caption_tokenizer(config: RunConfig, tokenizer: bytes | None) -> CaptionTokenizer | None:
    """The runtime's tokenizer for this model; None for a model that reads no captions."""
    spec = config.model.text_spec
    return None if spec is None or tokenizer is None else CaptionTokenizer(tokenizer, spec)


def usable_records(records: Sequence[Record], config: ModelConfig) -> list[Record]:
    """Without the rows that the model cannot use: captions alone, for a model that reads only pictures."""
    return [record for record in records if config.reads_captions or record.image is not None]
