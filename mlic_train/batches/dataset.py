"""Records to batches. Random choices depend on (seed, epoch, record) only, not on workers or history."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mlic_runtime.annotations.source.members import PictureFile, image_source
from mlic_runtime.base.override import override
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import MlicError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image, read_pixels, to_pixels
from mlic_train.config import TrainConfig
from mlic_train.data import Record, reading_picture_of
from mlic_train.errors import TrainError
from mlic_train.models.base import Encoded

from .features import FeatureCache
from .transforms import augment, flip, mixup, random_crop, random_erasing

Key = tuple[int, int]  # (epoch, index of the record)
# What PyTorch says of a worker that was killed, or that could not put a batch into shared memory.
_DEAD_WORKER = re.compile(
    r"DataLoader worker \(pid.*(exited unexpectedly|killed by signal)|(out of|allocate) shared memory|"
    r"unable to \w+ .*/torch_|DataLoader worker process.*No space left on device",
    re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """One row: `pixels` uint8 (H, W, 3), or cached `features` float32 (C, h, w), or neither for a caption alone.

    `key` names the row; random choices about a whole batch depend on the keys of its rows. `known` is bool (L), False
    for the labels about which `target` says nothing; None where it says something about all.
    """

    pixels: npt.NDArray[np.uint8] | None
    features: npt.NDArray[np.float32] | None
    caption: str | None
    target: npt.NDArray[np.float32]
    key: Key
    known: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Batch:
    """Rows of one kind: all with a picture (as `pixels` or `features`), or all without.

    `pixels` uint8 (B, H, W, 3), `features` float32 (B, C, h, w), `has_picture` bool (B), `input_ids` and
    `attention_mask` int64 (B, T) (None for a model that reads no captions), `targets` float32 (B, L). `known` bool
    (B, L) says which targets count: what the others hold has no meaning, and no loss or metric may depend on it. It is
    None where all count.
    """

    pixels: Tensor | None
    features: Tensor | None
    has_picture: Tensor | None
    input_ids: Tensor | None
    attention_mask: Tensor | None
    targets: Tensor
    known: Tensor | None = None

    @property
    def encoded(self) -> Encoded:
        """What a model may read once pictures are feature maps."""
        return Encoded(self.features, self.has_picture, self.input_ids, self.attention_mask)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with every tensor on `device`."""
        tensors = {name: tensor.to(device) for name, tensor in vars(self).items() if tensor is not None}
        return dataclasses.replace(self, **tensors)


class Examples(Dataset[Example]):
    """Records as examples; keys are (epoch, index).

    With `config` they are training rows: one random caption, now and then without picture or caption, augmented.
    Without `config` they are evaluation rows: the first caption and the runtime's own preprocessing.
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
        target, known = target_of(record, self.num_labels), known_of(record, self.num_labels)
        if self.config is None:
            caption = record.captions[0] if record.captions else None
            return Example(*self._picture(index, (False, False)), caption, target, key, known)
        rng = np.random.default_rng((self.config.seed, epoch, index))
        caption = record.captions[rng.integers(len(record.captions))] if record.captions else None
        draw, flip_h, flip_v = rng.random(3)
        flips = (self.config.horizontal_flip and flip_h < 0.5, self.config.vertical_flip and flip_v < 0.5)
        if caption is not None and record.image is not None:
            if draw < self.config.drop_caption:
                caption = None
            elif draw >= 1.0 - self.config.drop_picture:
                return Example(None, None, caption, target, key, known)
        return Example(*self._picture(index, flips, rng), caption, target, key, known)

    def __getitems__(self, keys: list[Key]) -> "list[Example] | MlicError":
        """Return the rows of one batch, or the error of a picture, which `batch_loader` raises."""
        try:
            return [self[key] for key in keys]
        except MlicError as error:
            return error

    def _picture(
        self, index: int, flips: tuple[bool, bool], rng: np.random.Generator | None = None
    ) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.float32] | None]:
        """Return the pixels or the cached features of a record; augmented if `rng` is given."""
        path = self.records[index].image
        if path is None:
            return None, None
        if self.cache is not None:
            return None, self.cache.read(index, flips)
        with reading_picture_of(self.records[index]):
            if self.config is None or rng is None:
                return read_pixels(image_source(path), self.image_spec), None
            return self._augmented(path, flips, self.config, rng), None

    def _augmented(
        self, path: PictureFile, flips: tuple[bool, bool], config: TrainConfig, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        if config.random_crop < 1.0:  # decode in full: reduced-scale decoding leaves too few pixels to crop from
            image = random_crop(load_image(image_source(path)), config.random_crop, rng)
        else:
            image = load_image(image_source(path), spec=self.image_spec)
        image = augment(image, self.image_spec, config.color_jitter, config.rand_augment, rng)
        return random_erasing(flip(to_pixels(image, self.image_spec), *flips), config.random_erasing, rng)


def target_of(record: Record, num_labels: int) -> npt.NDArray[np.float32]:
    """Return the target of training, float32 (L,) in 0..1: `record.soft` if not None, else 1 for each label."""
    if record.soft is not None:
        return np.array([value or 0.0 for value in record.soft], dtype=np.float32)
    target = np.zeros(num_labels, dtype=np.float32)
    target[list(record.labels or ())] = 1.0
    return target


def unknown_of(record: Record) -> tuple[int, ...]:
    """Return the indices of the labels about which the target says nothing; with `soft`, those that are None there."""
    if record.soft is not None:
        return tuple(index for index, value in enumerate(record.soft) if value is None)
    return record.unknown


def known_of(record: Record, num_labels: int) -> npt.NDArray[np.bool_] | None:
    """Return which entries of the target count, bool (L,); None where all do."""
    if not (unknown := unknown_of(record)):
        return None
    known = np.full(num_labels, True)
    known[list(unknown)] = False
    return known


class Collate:
    """Examples to a Batch: stacks pictures, tokenises captions with the runtime's tokenizer.

    With `config` they are training batches, and pictures without a caption may be mixed (mixup). A row with a caption
    is never mixed, since captions cannot be mixed, and neither is an all-zero picture. A mixed target is known only
    where both are.
    """

    def __init__(self, tokenizer: CaptionTokenizer | None, config: TrainConfig | None = None) -> None:
        self.tokenizer = tokenizer
        self.config = config

    def __call__(self, examples: list[Example]) -> Batch:
        """Make one Batch of the rows, in order."""
        input_ids = attention_mask = None
        if self.tokenizer is not None:
            ids, mask = self.tokenizer.encode([example.caption for example in examples])
            input_ids, attention_mask = torch.from_numpy(ids), torch.from_numpy(mask)
        pixels = _stack([example.pixels for example in examples])
        features = _stack([example.features for example in examples])
        present = [example.pixels is not None or example.features is not None for example in examples]
        targets = torch.from_numpy(np.stack([example.target for example in examples]))
        known = _stack_known([example.known for example in examples], targets.shape[1])
        if self.config is not None and self.config.mixup > 0 and pixels is not None:
            alone = pixels.flatten(1).any(dim=1)
            if attention_mask is not None:
                alone &= ~attention_mask.any(dim=1)
            rng = np.random.default_rng((self.config.seed, *(part for example in examples for part in example.key)))
            rows = alone.nonzero()[:, 0].numpy()
            if known is None:
                pixels, targets = mixup(pixels, targets, rows, self.config.mixup, rng)
            else:  # ones and zeros, mixed like the targets: 1 stays where both are known
                beside = torch.cat([targets, known.float()], dim=1)
                pixels, beside = mixup(pixels, beside, rows, self.config.mixup, rng)
                targets, known = beside[:, : targets.shape[1]], beside[:, targets.shape[1] :] == 1
        return Batch(
            pixels=pixels,
            features=features,
            has_picture=torch.tensor(present) if any(present) else None,
            input_ids=input_ids,
            attention_mask=attention_mask,
            targets=targets,
            known=known,
        )


def _stack(arrays: list[npt.NDArray[np.uint8] | None] | list[npt.NDArray[np.float32] | None]) -> Tensor | None:
    """Stack to (B, ...); a row without a picture is all zeros; None when no row has one."""
    given = next((array for array in arrays if array is not None), None)
    if given is None:
        return None
    empty = np.zeros_like(given)
    return torch.from_numpy(np.stack([empty if array is None else array for array in arrays]))


def _stack_known(masks: list[npt.NDArray[np.bool_] | None], num_labels: int) -> Tensor | None:
    """Stack to bool (B, L); None where every row knows all its labels."""
    if all(mask is None for mask in masks):
        return None
    every = np.full(num_labels, True)
    return torch.from_numpy(np.stack([every if mask is None else mask for mask in masks]))


def leaves_one(records: Sequence[Record], batch_size: int) -> bool:
    """Return whether the last of an epoch's batches would have a single picture, though the others have more."""
    pictures = sum(record.image is not None for record in records)
    return pictures > batch_size > 1 == pictures % batch_size


def plan_epoch(records: Sequence[Record], config: TrainConfig, epoch: int) -> list[list[Key]]:
    """Plan the batches of one epoch: rows with a picture and caption-only rows apart, in one random order.

    Caption-only batches do not run the backbone, so they are larger (`text_batch_size`) and may be a random part of the
    rows (`text_rows_per_epoch`). A single picture that would be the last batch joins the batch before it, because batch
    normalisation cannot learn from one value. With `shuffle_shards` the pictures of one file come close together, so
    that reads hit the cache of the operating system or of a remote file system.
    """
    rng = np.random.default_rng((config.seed, epoch))
    pictures = _shuffle([i for i, record in enumerate(records) if record.image is not None], records, config, rng)
    texts = rng.permutation([i for i, record in enumerate(records) if record.image is None])
    if config.text_rows_per_epoch:
        texts = texts[: config.text_rows_per_epoch]
    with_picture, text_only = (
        [[(epoch, int(index)) for index in rows[start : start + size]] for start in range(0, len(rows), size)]
        for rows, size in ((pictures, config.batch_size), (texts, config.text_batch_size))
    )
    if leaves_one(records, config.batch_size):
        with_picture[-2:] = [with_picture[-2] + with_picture[-1]]
    batches = with_picture + text_only
    order = rng.permutation(len(batches))
    if config.shuffle_shards:  # the batches with pictures keep their order among the others
        order[order < len(with_picture)] = np.arange(len(with_picture))
    return [batches[i] for i in order]


def _shuffle(
    rows: list[int], records: Sequence[Record], config: TrainConfig, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Shuffle the rows; with `shuffle_shards` = n, those of n random files come before those of the next n."""
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
    """Return the share of process `rank` of `world` in a planned batch of n rows.

    Returns:
        Its n_r rows, every `world`-th, and the weight n_r * world / n. The mean over the processes of weight times the
        mean loss of their rows is the mean over the batch, also for gradients. Where there are fewer rows than
        processes, the others get the first row with weight 0, since every process must take part.
    """
    own = batch[rank::world]
    return own or batch[:1], len(own) * world / len(batch)


@dataclass(frozen=True)
class _CollateUnlessError:
    collate: Collate

    def __call__(self, examples: list[Example] | MlicError) -> Batch | MlicError:
        if isinstance(examples, MlicError):
            return examples
        batch = self.collate(examples)
        if get_worker_info() is not None:
            # Else the queue's thread would do it. Where /dev/shm is full, it drops the batch, and all wait for it.
            for tensor in vars(batch).values():
                if tensor is not None:
                    tensor.share_memory_()
        return batch


@contextlib.contextmanager
def reading_errors() -> Iterator[None]:
    """Raise one line in place of PyTorch's error where a process that reads pictures has died.

    PyTorch raises from a signal handler, so wherever the main process is: the block has to hold all that is done while
    such processes run.

    Raises:
        TrainError: one was killed, or found no shared memory.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not _DEAD_WORKER.search(str(error)):
            raise
        raise TrainError(
            "a process that reads pictures has died; the memory or the shared memory (/dev/shm) was probably full: "
            "give a smaller --workers (0: no such process), or more of both"
        ) from error


class _Batches(DataLoader[Example]):
    """A DataLoader that raises a worker's error as it is; torch would put the worker's traceback into the message."""

    @override
    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # torch annotates its own iterator with Any
        with reading_errors():
            for batch in super().__iter__():
                if isinstance(batch, MlicError):
                    raise batch
                yield batch


def batch_loader(
    examples: Examples, tokenizer: CaptionTokenizer | None, batches: list[list[Key]], workers: int = 0
) -> DataLoader[Example]:
    """Create a DataLoader that yields a `Batch` for every list of keys, in order.

    Iterating over it raises the `MlicError` of a picture that cannot be read, in whatever process, and a `TrainError`
    if a process dies meanwhile. What is done with a batch belongs into `reading_errors()`.
    """
    return _Batches(
        examples,
        batch_sampler=batches,
        collate_fn=_CollateUnlessError(Collate(tokenizer, examples.config)),
        num_workers=workers,
        persistent_workers=False,
    )


def evaluation_batches(count: int, size: int) -> list[list[Key]]:
    """Return all rows in order, `size` at a time."""
    return [[(0, index) for index in range(start, min(start + size, count))] for start in range(0, count, size)]
