"""Records to batches. What is random here depends on (seed, epoch, record) only, not on workers or history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import MlicError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image, read_pixels, to_pixels
from mlic_train.config import TrainConfig
from mlic_train.data import Record
from mlic_train.data.source.members import PictureFile, image_source

from .features import FeatureCache
from .transforms import augment, flip, mixup, random_crop, random_erasing

Key = tuple[int, int]  # (epoch, index of the record)


@dataclass(frozen=True)
class Example:
    """One row: `pixels` uint8 (H, W, 3), or cached `features` float32 (C, h, w), or neither for a caption alone.

    `key` says which row it is, for what is random about a whole batch.
    """

    pixels: npt.NDArray[np.uint8] | None
    features: npt.NDArray[np.float32] | None
    caption: str | None
    target: npt.NDArray[np.float32]
    key: Key


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
        target = target_of(record, self.num_labels)
        if self.config is None:
            return self._example(key, record.captions[0] if record.captions else None, target, (False, False))
        rng = np.random.default_rng((self.config.seed, epoch, index))
        caption = record.captions[rng.integers(len(record.captions))] if record.captions else None
        draw, flip_h, flip_v = rng.random(3)
        flips = (self.config.horizontal_flip and flip_h < 0.5, self.config.vertical_flip and flip_v < 0.5)
        if caption is not None and record.image is not None:
            if draw < self.config.drop_caption:
                caption = None
            elif draw >= 1.0 - self.config.drop_picture:
                return Example(None, None, caption, target, key)
        return self._example(key, caption, target, flips, rng)

    def __getitems__(self, keys: list[Key]) -> "list[Example] | MlicError":
        """The rows of one batch; what is wrong with a picture is a result, for `batch_loader` to raise."""
        try:
            return [self[key] for key in keys]
        except MlicError as error:
            return error

    def _example(
        self,
        key: Key,
        caption: str | None,
        target: npt.NDArray[np.float32],
        flips: tuple[bool, bool],
        rng: np.random.Generator | None = None,
    ) -> Example:
        _, index = key
        path = self.records[index].image
        if path is None:
            return Example(None, None, caption, target, key)
        if self.cache is not None:
            return Example(None, self.cache.read(index, flips), caption, target, key)
        if self.config is None or rng is None:
            return Example(read_pixels(image_source(path), self.image_spec), None, caption, target, key)
        return Example(self._augmented(path, flips, self.config, rng), None, caption, target, key)

    def _augmented(
        self, path: PictureFile, flips: tuple[bool, bool], config: TrainConfig, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        if config.random_crop < 1.0:  # decoded in full: reduced-scale decoding would leave too few pixels to crop from
            image = random_crop(load_image(image_source(path)), config.random_crop, rng)
        else:
            image = load_image(image_source(path), spec=self.image_spec)
        image = augment(image, self.image_spec, config.color_jitter, config.rand_augment, rng)
        return random_erasing(flip(to_pixels(image, self.image_spec), *flips), config.random_erasing, rng)


def target_of(record: Record, num_labels: int) -> npt.NDArray[np.float32]:
    """What training aims at, float32 (L,) in 0..1: `record.soft` where there is one, else 1 for each of its labels."""
    if record.soft is not None:
        return np.array(record.soft, dtype=np.float32)
    target = np.zeros(num_labels, dtype=np.float32)
    target[list(record.labels or ())] = 1.0
    return target


class Collate:
    """Examples to a Batch: stacks pictures, tokenises captions with the runtime's tokenizer.

    With `config`, training batches: mixup, where `config` asks for it, of the pictures that stand alone. A row with a
    caption is never mixed, since a mixed caption would say nothing, and neither is an all-zero picture.
    """

    def __init__(self, tokenizer: CaptionTokenizer | None, config: TrainConfig | None = None) -> None:
        self.tokenizer = tokenizer
        self.config = config

    def __call__(self, examples: list[Example]) -> Batch:
        """Rows to one Batch, in order."""
        input_ids = attention_mask = None
        if self.tokenizer is not None:
            ids, mask = self.tokenizer.encode([example.caption for example in examples])
            input_ids, attention_mask = torch.from_numpy(ids), torch.from_numpy(mask)
        pixels = _stack([example.pixels for example in examples])
        features = _stack([example.features for example in examples])
        present = [example.pixels is not None or example.features is not None for example in examples]
        targets = torch.from_numpy(np.stack([example.target for example in examples]))
        if self.config is not None and self.config.mixup > 0 and pixels is not None:
            alone = pixels.flatten(1).any(dim=1)
            if attention_mask is not None:
                alone &= ~attention_mask.any(dim=1)
            rng = np.random.default_rng((self.config.seed, *(part for example in examples for part in example.key)))
            pixels, targets = mixup(pixels, targets, alone.nonzero()[:, 0].numpy(), self.config.mixup, rng)
        return Batch(
            pixels=pixels,
            features=features,
            has_picture=torch.tensor(present) if any(present) else None,
            input_ids=input_ids,
            attention_mask=attention_mask,
            targets=targets,
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
    part of the rows (`text_rows_per_epoch`). With `shuffle_shards` the pictures of one file's rows come close together:
    what reads them finds the neighbours in the system's cache, or in that of a remote file system.
    """
    rng = np.random.default_rng((config.seed, epoch))
    pictures = _mix([i for i, record in enumerate(records) if record.image is not None], records, config, rng)
    texts = rng.permutation([i for i, record in enumerate(records) if record.image is None])
    if config.text_rows_per_epoch:
        texts = texts[: config.text_rows_per_epoch]
    batches = [
        [(epoch, int(index)) for index in rows[start : start + size]]
        for rows, size in ((pictures, config.batch_size), (texts, config.text_batch_size))
        for start in range(0, len(rows), size)
    ]
    order = rng.permutation(len(batches))
    if config.shuffle_shards:  # the pictures' batches stay in their order, and take the places that fell to them
        with_picture = -(-len(pictures) // config.batch_size)
        order[order < with_picture] = np.arange(with_picture)
    return [batches[i] for i in order]


def _mix(
    rows: list[int], records: Sequence[Record], config: TrainConfig, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The rows in random order; with `shuffle_shards`, those of so many files before those of the next so many."""
    if not config.shuffle_shards:
        return rng.permutation(rows)
    by_file: dict[Path, list[int]] = {}
    for row in rows:
        by_file.setdefault(records[row].file, []).append(row)
    files = [by_file[file] for file in by_file]
    order = rng.permutation(len(files))
    size = config.shuffle_shards
    windows = [order[start : start + size] for start in range(0, len(order), size)]
    parts = [rng.permutation([row for file in window for row in files[file]]) for window in windows]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def share_out(batch: list[Key], rank: int, world: int) -> tuple[list[Key], float]:
    """What process `rank` of `world` takes of a planned batch of n rows.

    Returns:
        Its n_r rows, every `world`-th, and the weight n_r * world / n: the mean over the processes of weight times the
        mean loss of the own rows is the mean over the batch, and so with the gradients. Where there are fewer rows
        than processes, those left over get the first row with weight 0, since all have to take part.
    """
    own = batch[rank::world]
    return own or batch[:1], len(own) * world / len(batch)


@dataclass(frozen=True)
class _CollateUnlessError:
    collate: Collate

    def __call__(self, examples: list[Example] | MlicError) -> Batch | MlicError:
        return examples if isinstance(examples, MlicError) else self.collate(examples)


class _Batches(DataLoader[Example]):
    """Raises an error of a worker as it is; torch would make the worker's traceback its message."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # torch says Any for what its own iterator gives
        for batch in super().__iter__():
            if isinstance(batch, MlicError):
                raise batch
            yield batch


def batch_loader(
    examples: Examples, tokenizer: CaptionTokenizer | None, batches: list[list[Key]], workers: int = 0
) -> DataLoader[Example]:
    """A DataLoader that yields a `Batch` for every list of keys, in order.

    Iterating over it raises the `MlicError` of a picture that cannot be read, whichever process was to read it.
    """
    return _Batches(
        examples,
        batch_sampler=batches,
        collate_fn=_CollateUnlessError(Collate(tokenizer, examples.config)),
        num_workers=workers,
        persistent_workers=False,
    )


def evaluation_batches(count: int, size: int) -> list[list[Key]]:
    """All rows in order, `size` at a time."""
    return [[(0, index) for index in range(start, min(start + size, count))] for start in range(0, count, size)]
