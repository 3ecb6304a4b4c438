"""Inputs of a graph: real rows in batches, and made-up ones of any shape."""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlic_runtime.graph.session import INPUT_IDS
from mlic_train.batches.dataset import Examples, batch_loader, evaluation_batches
from mlic_train.data import Record
from mlic_train.measure.collect import graph_inputs, usable_records
from mlic_train.measure.predict import MODES, in_mode
from mlic_train.models import Model
from mlic_train.runs.folder import TrainedModel

Inputs = dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.int64]]
"""A batch: {name of the graph's input: array}"""

_BATCH_SIZE = 16
_SEED = 0


def draw_rows(trained: TrainedModel, records: Sequence[Record], count: int) -> list[Record]:
    """Return `count` records in random order, always the same ones; those with pictures come first."""
    usable = usable_records(records, trained.config.model)
    random.Random(_SEED).shuffle(usable)
    return sorted(usable, key=lambda record: record.image is None)[:count]


def make_inputs(trained: TrainedModel, records: Sequence[Record], modes: Sequence[str] = MODES) -> list[Inputs]:
    """Return the records in batches, once in each mode; a model that reads no captions has only the mode "both"."""
    config = trained.config.model
    examples = Examples(records, config.num_labels, config.image_spec)
    possible = [mode for mode in modes if config.reads_captions or mode == "both"]
    batches: list[Inputs] = []
    for batch in batch_loader(examples, trained.caption_tokenizer, evaluation_batches(len(examples), _BATCH_SIZE)):
        for mode in possible:
            tensors = graph_inputs(in_mode(batch, mode), config.image_size)
            batches.append({name: tensor.numpy() for name, tensor in zip(trained.model.inputs, tensors, strict=True)})
    return batches


def example_inputs(model: Model, rows: int, tokens: int, seed: int = _SEED) -> tuple[Tensor, ...]:
    """Make random inputs of the contract: `pixels` uint8 (B, H, W, 3) and, if read, ids and mask int64 (B, T).

    Rows differ in length. Of three or more rows, one has no caption and one has no picture, unless the model needs it.
    """
    generator = torch.Generator().manual_seed(seed)
    side = model.image_size
    pixels = torch.randint(0, 256, (rows, side, side, 3), generator=generator, dtype=torch.uint8)
    if INPUT_IDS not in model.inputs:
        return (pixels,)
    ids = torch.randint(1, model.vocab_size, (rows, tokens), generator=generator)
    lengths = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    lengths[0] = tokens
    if rows >= 3:
        lengths[1] = 0
        pixels[2] = 0
    mask = (torch.arange(tokens)[None, :] < lengths).long()
    return pixels, ids * mask, mask
