"""Metrics of a trained model on a split, by mode: both modalities, picture only, caption only."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
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
from .errors import DataError
from .evaluate import compute_metrics
from .predict import MODES, Outputs, Run, predict_modes
from .splits import Splits

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
            outputs = collect(trained, run, split.records)
            for mode, metrics in report(outputs, trained.state.thresholds).items():
                results[name + mode] = metrics
    return results


def caption_tokenizer(config: RunConfig, tokenizer: bytes | None) -> CaptionTokenizer | None:
    """The runtime's tokenizer for this model; None for a model that reads no captions."""
    spec = config.model.text_spec
    return None if spec is None or tokenizer is None else CaptionTokenizer(tokenizer, spec)


def usable_records(records: Sequence[Record], config: ModelConfig) -> list[Record]:
    """Without the rows that the model cannot use: captions alone, for a model that reads only pictures."""
    return [record for record in records if config.reads_captions or record.image is not None]
