import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlic_runtime.text import CaptionTokenizer

from .data import Record
from .dataset import Batch, Examples, batch_loader, evaluation_batches

Run = Callable[[Batch], Tensor]
MODES = ("both", "picture-only", "caption-only")


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    moved = {
        field.name: value.to(device)
        for field in dataclasses.fields(batch)
        if (value := getattr(batch, field.name)) is not None
    }
    return dataclasses.replace(batch, **moved)


def predict_logits(
    run: Run, examples: Examples, tokenizer: CaptionTokenizer | None, batch_size: int, workers: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Logits float32 (N, L) and targets bool (N, L) of all examples, in order."""
    loader = batch_loader(examples, tokenizer, evaluation_batches(len(examples), batch_size), workers)
    logits, targets = [], []
    with torch.inference_mode():
        for batch in loader:
            logits.append(run(batch).float().cpu().numpy())
            targets.append(batch.targets.numpy() > 0.5)
    return np.concatenate(logits), np.concatenate(targets)


def in_mode(records: Sequence[Record], mode: str) -> list[Record]:
    """The records as they would be with only the picture or only the caption; rows that have neither then go."""
    if mode == "picture-only":
        return [dataclasses.replace(record, captions=()) for record in records if record.image is not None]
    if mode == "caption-only":
        return [dataclasses.replace(record, image=None) for record in records if record.captions]
    return list(records)
