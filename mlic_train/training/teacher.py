"""Soft labels of records by trained models, for self-training and distillation."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlic_runtime.annotations.source.members import image_source
from mlic_runtime.picture.decode import read_pixels
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.data import Record
from mlic_train.errors import DataError
from mlic_train.models.base import Encoded
from mlic_train.runs.folder import TrainedModel, load_trained

_RECORDS = 32  # records at a time, as many pictures per forward pass of the backbone; bounds memory
_CAPTIONS = 128  # captions per forward pass of the rest

T = TypeVar("T")


def load_teachers(folders: Sequence[Path], labels: tuple[str, ...]) -> list[TrainedModel]:
    """Load the best checkpoints of the run folders.

    Raises:
        CheckpointError: see `load_trained`.
        DataError: the labels of a teacher, or their order, are not those of the data.
    """
    teachers = [load_trained(folder) for folder in folders]
    for teacher in teachers:
        if teacher.config.model.labels != labels:
            raise DataError(
                f"the teacher {teacher.folder} has the labels {', '.join(teacher.config.model.labels)}, the data "
                f"{', '.join(labels)}; expected these labels in this order"
            )
    return teachers


def soft_labels(
    records: Sequence[Record],
    teachers: Sequence[TrainedModel],
    sees: str = "both",
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the probabilities of the teachers' mean logits.

    Every teacher reads each caption of a record in turn, together with the picture if there is one. Logits are averaged
    over the captions, then over the teachers that can see the record. The logistic function makes them probabilities:
    the geometric of the two means of Hinton et al. 2015, per label.

    Args:
        records: N records; their labels are not read.
        teachers: at least one, all with the same L labels, in eval mode; each uses its own preprocessing.
        sees: "both", or only the "caption" (the backbone does not run then) or the "picture", for every teacher.
        device: the device of the teachers, which then return to the CPU.
        progress: called with (records done, records in all), counted once per teacher.

    Returns:
        float32 (N, L) in 0..1; NaN in the rows of records that no teacher can see.

    Raises:
        ImageError: a picture cannot be decoded.
    """
    size = (len(records), teachers[0].config.model.num_labels)
    total, seen = np.zeros(size), np.zeros((len(records), 1))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads, torch.inference_mode():
        for number, teacher in enumerate(teachers):
            teacher.model.to(device)
            done = number * len(records)
            for rows, logits in _predict(teacher, records, sees, torch.device(device), threads):
                total[rows] += logits
                seen[rows] += 1
                done += len(rows)
                if progress is not None:
                    progress(done, len(teachers) * len(records))
            teacher.model.to("cpu")
    probabilities = sigmoid(total / np.maximum(seen, 1))
    return np.where(seen > 0, probabilities, np.float32(np.nan))


def _predict(
    teacher: TrainedModel, records: Sequence[Record], sees: str, device: torch.device, threads: ThreadPoolExecutor
) -> Iterator[tuple[list[int], npt.NDArray[np.float64]]]:
    """Yield indices of records and their logits float64 (n, L), averaged over captions, for all records."""
    config = teacher.config.model
    captions = [record.captions if config.reads_captions and sees != "picture" else () for record in records]
    pictures = [record.image if sees != "caption" else None for record in records]
    for rows in _chunks([row for row, picture in enumerate(pictures) if picture is not None], _RECORDS):
        paths = [path for row in rows if (path := pictures[row]) is not None]
        pixels = np.stack(list(threads.map(lambda path: read_pixels(image_source(path), config.image_spec), paths)))
        features = teacher.model.encode_picture(torch.from_numpy(pixels).to(device))
        yield rows, _mean_logits(teacher, features, [captions[row] for row in rows], device)
    alone = [row for row, picture in enumerate(pictures) if picture is None and captions[row]]
    for rows in _chunks(alone, _RECORDS):
        yield rows, _mean_logits(teacher, None, [captions[row] for row in rows], device)


def _mean_logits(
    teacher: TrainedModel, features: Tensor | None, captions: Sequence[tuple[str, ...]], device: torch.device
) -> npt.NDArray[np.float64]:
    """Return logits float64 (n, L), means over a record's captions; `features` (n, C, h, w), None without pictures."""
    model, tokenizer = teacher.model, teacher.caption_tokenizer
    pairs = [(row, caption) for row, texts in enumerate(captions) for caption in texts or (None,)]
    parts = []
    for part in _chunks(pairs, _CAPTIONS):
        ids = mask = None
        if tokenizer is not None:
            ids, mask = (torch.from_numpy(array).to(device) for array in tokenizer.encode([text for _, text in part]))
        chosen = None if features is None else features[[row for row, _ in part]]
        has_picture = None if features is None else torch.ones(len(part), dtype=torch.bool, device=device)
        encoded = Encoded(chosen, has_picture, ids, mask)
        parts.append(_to_numpy(model.classify(*model.arguments(encoded))))
    logits = np.concatenate(parts)
    total = np.zeros((len(captions), logits.shape[1]))
    np.add.at(total, [row for row, _ in pairs], logits)
    total /= np.array([[max(1, len(texts))] for texts in captions])
    return total


def _to_numpy(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.float().cpu().numpy().astype(np.float64)


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
