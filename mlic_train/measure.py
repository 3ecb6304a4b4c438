"""Metrics of a trained model on a split, by mode: both modalities, picture only, caption only."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mlic_runtime.postprocess import sigmoid
from mlic_runtime.session import GraphSession
from mlic_runtime.text import CaptionTokenizer

from .checkpoint import RunConfig, Trained
from .config import ModelConfig
from .data import Record
from .dataset import Batch, Examples
from .errors import DataError
from .evaluate import compute_metrics
from .predict import MODES, Run, in_mode, predict_logits
from .splits import Splits

_BATCH_SIZE = 16


def measure(
    trained: Trained, run: Run, split: Sequence[Record], thresholds: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Metrics of one split by mode: {"": both, "-picture-only": ..., "-caption-only": ...}."""
    config = trained.config
    results: dict[str, dict[str, float]] = {}
    for mode in MODES if config.model.reads_captions else MODES[:1]:
        records = usable_records(in_mode(split, mode), config.model)
        if not records:
            continue
        examples = Examples(records, config.model.num_labels, config.model.image_spec)
        logits, targets = predict_logits(run, examples, caption_tokenizer(config, trained.tokenizer), _BATCH_SIZE)
        metrics = compute_metrics(sigmoid(logits), targets, np.asarray(thresholds))
        results["" if mode == "both" else f"-{mode}"] = metrics
    return results


def measure_graph(
    trained: Trained, session: GraphSession, splits: Splits, log: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Metrics of the exported graph on val and test, by split and mode.

    Raises:
        DataError: the data has other labels than the model.
    """
    size, names = trained.config.model.image_size, trained.config.model.labels
    if splits.labels.names != names:
        raise DataError(f"the data has the labels {splits.labels.names}, the model {names}; give the right --labels")

    def run(batch: Batch) -> Tensor:
        rows = len(batch.targets)
        pixels = np.zeros((rows, size, size, 3), np.uint8) if batch.pixels is None else batch.pixels.numpy()
        tokens = [tensor.numpy() for tensor in (batch.input_ids, batch.attention_mask) if tensor is not None]
        return torch.from_numpy(session.run(pixels, *tokens))

    results: dict[str, dict[str, float]] = {}
    for name, split in splits.named().items():
        if name != "train":
            log(f"measuring the graph on {name}")
            for mode, metrics in measure(trained, run, split.records, trained.state.thresholds).items():
                results[name + mode] = metrics
    return results


def caption_tokenizer(config: RunConfig, tokenizer: bytes | None) -> CaptionTokenizer | None:
    """The runtime's tokenizer for this model; None for a model that reads no captions."""
    spec = config.model.text_spec
    return None if spec is None or tokenizer is None else CaptionTokenizer(tokenizer, spec)


def usable_records(records: Sequence[Record], config: ModelConfig) -> list[Record]:
    """Without the rows that the model cannot use: captions alone, for a model that reads only pictures."""
    return [record for record in records if config.reads_captions or record.image is not None]
