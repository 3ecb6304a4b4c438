"""Records to batches. What is random here depends on (seed, epoch, record) only, not on workers or history."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlic_runtime.image import load_image, to_pixels
from mlic_runtime.manifest import ImageSpec
from mlic_runtime.text import CaptionTokenizer

from .config import TrainConfig
from .data import Record
from .features import FeatureCache
from .transforms import flip, random_crop

Key = tuple[int, int]  # (epoch, index of the record)


@dataclass(frozen=True)
class Example:
    """One row: `pixels` uint8 (H, W, 3), or cached `features` float32 (C, h, w), or neither for a caption alone."""

    pixels: npt.NDArray[np.uint8] | None
    features: npt.NDArray[np.float32] | None
    caption: str | None
    target: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Rows of one kind: all with a picture (as `pixels` or `features`), or all without.

    `pixels` uint8 (B, H, W, 3), `features` float32 (B, C, h, w), `has_picture` bool (B), `input_ids` and
    `attention_mask` int64 (B, T) (None for a model that reads no captions), `targets` float32 (B, L).
    """

    pixels: Tensor | None
    features: Tensor | None
    has_picture: Tensor | None
    input_ids: Tensor | None
    attention_mask: Tensor | None
    targets: Tensor


class Examples(Dataset[Example]):
    """Records as examples; keys are (epoch, index).

    With `config`, training rows: a random caption of several, a picture or caption dropped now and then, augmentation.
    Without, evaluation rows: the first caption and the runtime's own preprocessing.
    """

    def __init__(
        self,
        records: Sequence[Record],
        num_labels: int,
        image_spec: ImageSpec,
        config: TrainConfig | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        self.records = records
        self.num_labels = num_labels
        self.image_spec = image_spec
        self.config = config
        self.cache = cache

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Example:
        epoch, index = key
        record = self.records[index]
        target = np.zeros(self.num_labels, dtype=np.float32)
        target[list(record.labels or ())] = 1.0
        if self.config is None:
            return self._example(index, record.captions[0] if record.captions else None, target, (False, False))
        rng = np.random.default_rng((self.config.seed, epoch, index))
        caption = record.captions[rng.integers(len(record.captions))] if record.captions else None
        draw, flip_h, flip_v = rng.random(3)
        flips = (self.config.horizontal_flip and flip_h < 0.5, self.config.vertical_flip and flip_v < 0.5)
        if caption is not None and record.image is not None:
            if draw < self.config.drop_caption:
                caption = None
            elif draw >= 1.0 - self.config.drop_picture:
                return Example(None, None, caption, target)
        return self._example(index, caption, target, flips, rng)

    def _example(
        self,
        index: int,
        caption: str | None,
        target: npt.NDArray[np.float32],
        flips: tuple[bool, bool],
        rng: np.random.Generator | None = None,
    ) -> Example:
        path = self.records[index].image
        if path is None:
            return Example(None, None, caption, target)
        if self.cache is not None:
            return Example(None, self.cache.read(index, flips), caption, target)
        scale = 1.0 if self.config is None else self.config.random_crop
        if rng is None or scale >= 1.0:
            image = load_image(path, spec=self.image_spec)
        else:  # decoded in full: reduced-scale decoding would leave too few pixels to crop from
            image = random_crop(load_image(path), scale, rng)
        return Example(flip(to_pixels(image, self.image_spec), *flips), None, caption, target)


class Collate:
    """Examples to a Batch: stacks pictures, tokenises captions with the runtime's tokenizer."""

    def __init__(self, tokenizer: CaptionTokenizer | None) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: list[Example]) -> Batch:
        """Rows to one Batch, in order."""
        input_ids = attention_mask = None
        if self.tokenizer is not None:
            ids, mask = self.tokenizer.encode([example.caption for example in examples])
            input_ids, attention_mask = torch.from_numpy(ids), torch.from_numpy(mask)
        pixels = _stack([example.pixels for example in examples])
        features = _stack([example.features for example in examples])
        present = [example.pixels is not None or example.features is not None for example in examples]
        return Batch(
            pixels=pixels,
            features=features,
            has_picture=torch.tensor(present) if any(present) else None,
            input_ids=input_ids,
            attention_mask=attention_mask,
            targets=torch.from_numpy(np.stack([example.target for example in examples])),
        )


def _stack(arrays: list[npt.NDArray[np.uint8] | None] | list[npt.NDArray[np.float32] | None]) -> Tensor | None:
    """Stack to (B, ...); a row without a picture is all zeros; None when no row has one."""
    given = next((array for array in arrays if array is not None), None)
    if given is None:
        return None
    empty = np.zeros_like(given)
    return torch.from_numpy(np.stack([empty if array is None else array for array in arrays]))


def plan_epoch(records: Sequence[Record], config: TrainConfig, epoch: int) -> list[list[Key]]:
    """The batches of one epoch: rows with a picture and caption-only rows apart, in one random order.

    Caption-only batches skip the backbone altogether, so they are larger (`text_batch_size`) and may be a random
    part of the rows (`text_rows_per_epoch`).
    """
    rng = np.random.default_rng((config.seed, epoch))
    pictures = rng.permutation([i for i, record in enumerate(records) if record.image is not None])
    texts = rng.permutation([i for i, record in enumerate(records) if record.image is None])
    if config.text_rows_per_epoch:
        texts = texts[: config.text_rows_per_epoch]
    batches = [
        [(epoch, int(index)) for index in rows[start : start + size]]
        for rows, size in ((pictures, config.batch_size), (texts, config.text_batch_size))
        for start in range(0, len(rows), size)
    ]
    return [batches[i] for i in rng.permutation(len(batches))]


def batch_loader(
    examples: Examples, tokenizer: CaptionTokenizer | None, batches: list[list[Key]], workers: int = 0
) -> DataLoader[Example]:
    """A DataLoader that yields a `Batch` for every list of keys, in order."""
    return DataLoader(
        examples,
        batch_sampler=batches,
        collate_fn=Collate(tokenizer),
        num_workers=workers,
        persistent_workers=False,
    )


def evaluation_batches(count: int, size: int) -> list[list[Key]]:
    """All rows in order, `size` at a time."""
    return [[(0, index) for index in range(start, min(start + size, count))] for start in range(0, count, size)]
