"""Real training rows as a graph takes them, for what is measured on them: value ranges, and what rounding does."""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlic_runtime.session import ATTENTION_MASK, INPUT_IDS, PIXELS

from .checkpoint import Trained
from .data import Record
from .dataset import Examples, batch_loader, evaluation_batches
from .measure import caption_tokenizer, graph_inputs, usable_records
from .predict import MODES, in_mode

Inputs = dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.int64]]
"""A batch by the names of the graph's inputs."""

_BATCH_SIZE = 16
_SEED = 0


def draw_rows(trained: Trained, records: Sequence[Record], count: int) -> list[Record]:
    """`count` records in random order, the same for the same records; those with pictures first, whatever there is."""
    usable = usable_records(records, trained.config.model)
    random.Random(_SEED).shuffle(usable)
    return sorted(usable, key=lambda record: record.image is None)[:count]


def make_inputs(trained: Trained, records: Sequence[Record], modes: Sequence[str] = MODES) -> list[Inputs]:
    """The records in batches, once in each mode; a model that reads no captions has only the mode "both"."""
    config = trained.config.model
    examples = Examples(records, config.num_labels, config.image_spec)
    tokenizer = caption_tokenizer(trained.config, trained.tokenizer)
    loader = batch_loader(examples, tokenizer, evaluation_batches(len(examples), _BATCH_SIZE))
    names = (PIXELS, INPUT_IDS, ATTENTION_MASK)
    possible = [mode for mode in modes if config.reads_captions or mode == "both"]
    found: list[Inputs] = []
    for batch in loader:
        for mode in possible:
            tensors = graph_inputs(in_mode(batch, mode), config.image_size)
            found.append({name: tensor.numpy() for name, tensor in zip(names, tensors, strict=False)})
    return found
