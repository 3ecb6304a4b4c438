"""Feature maps of a frozen backbone, computed once and then read from disk in every epoch."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlic_runtime.annotations.source.members import image_source
from mlic_runtime.base.output_files import atomic_path
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.data import Record, reading_picture_of
from mlic_train.errors import TrainError
from mlic_train.models import Model

from .transforms import flip

Flips = tuple[bool, bool]
_KEPT = np.dtype(np.float16)
_CHUNK = 32  # pictures per forward pass; bounds memory, does not change the result


class FeatureCache:
    """A memory-mapped float16 array (V, N, C, h, w): V variants (flips) of N pictures, and nothing else in the file.

    Float16 has half the bytes of float32, and its rounding (2**-11 of a value) is far below what dropout adds.

    Args:
        path: the file.
        variants: the flips, V of them.
        rows: the row in 0..N-1 of each record with a picture, by its index.
        shape: (C, h, w).

    Raises:
        TrainError: the file has another size.
    """

    def __init__(self, path: Path, variants: Sequence[Flips], rows: dict[int, int], shape: tuple[int, ...]) -> None:
        self.path = path
        self.variants = {flips: index for index, flips in enumerate(variants)}
        self.rows = rows
        whole = (len(variants), len(rows), *shape)
        found, expected = path.stat().st_size, math.prod(whole) * _KEPT.itemsize
        if found != expected:
            raise TrainError(f"{path} has {found} bytes instead of {expected}: delete it, and it is computed again")
        self._array: npt.NDArray[np.float16] = np.memmap(path, _KEPT, "r", shape=whole)

    def read(self, index: int, flips: Flips) -> npt.NDArray[np.float32]:
        """Feature maps float32 (C, h, w) of record `index`, mirrored by (horizontal, vertical)."""
        kept: npt.NDArray[np.float16] = self._array[self.variants[flips], self.rows[index]]
        return kept.astype(np.float32)


def build_cache(
    model: Model,
    records: Sequence[Record],
    spec: ImageSpec,
    variants: Sequence[Flips],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Open the cache of these pictures and this backbone; compute it first if it is missing.

    The file's name contains a hash of the backbone's weights, the preprocessing, the variants and every picture's
    bytes. So a cache is never used for other features, and is valid for a data folder that was copied or moved.

    Args:
        model: its normalisation and backbone are used, in eval mode.
        records: records without a picture take no space.
        spec: the preprocessing.
        variants: the (horizontal, vertical) flips of training.
        folder: the folder of all caches.
        progress: called with (pictures done, pictures in all).

    Raises:
        TrainError: a feature is not finite, or too large for float16.
        ImageError: a picture cannot be read.
    """
    indices = [index for index, record in enumerate(records) if record.image is not None]
    pictured = [records[index] for index in indices]
    rows = {index: row for row, index in enumerate(indices)}
    file = folder / f"features-{_key(model, pictured, spec, variants)}.float16"
    shape = (model.backbone.num_features, *model.grid)
    if not file.exists():
        _compute(model, pictured, spec, variants, file, shape, progress)
    return FeatureCache(file, variants, rows, shape)


def _compute(
    model: Model,
    records: Sequence[Record],
    spec: ImageSpec,
    variants: Sequence[Flips],
    file: Path,
    shape: tuple[int, ...],
    progress: Callable[[int, int], None] | None,
) -> None:
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    with atomic_path(file) as temporary, torch.inference_mode():
        array = np.memmap(temporary, _KEPT, "w+", shape=(len(variants), len(records), *shape))
        _allocate(temporary)
        for start in range(0, len(records), _CHUNK):
            pixels = [_read(record, spec) for record in records[start : start + _CHUNK]]
            for variant, flips in enumerate(variants):
                batch = torch.from_numpy(np.stack([flip(picture, *flips) for picture in pixels]))
                features = model.encode_picture(batch.to(device)).cpu()
                array[variant, start : start + len(pixels)] = _to_float16(features, records[start:])
            if progress is not None:
                progress(start + len(pixels), len(records))
        array.flush()
    model.train(training)


def _read(record: Record, spec: ImageSpec) -> npt.NDArray[np.uint8]:
    assert record.image is not None
    with reading_picture_of(record):
        return read_pixels(image_source(record.image), spec)


def _to_float16(features: Tensor, records: Sequence[Record]) -> npt.NDArray[np.float16]:
    """Round feature maps float32 (B, C, h, w) of the first B of the records to float16.

    Raises:
        TrainError: see `build_cache`.
    """
    largest = features.abs().flatten(1).amax(dim=1)  # NaN where one is
    bad = ~(largest <= torch.finfo(torch.float16).max)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise TrainError(
            f"{records[row].image}: the backbone gives a feature of size {float(largest[row]):.4g}, and features "
            "are kept in float16, up to 65504: give --no-cache-features, or other --backbone-weights"
        )
    kept: npt.NDArray[np.float16] = features.half().numpy()
    return kept


def _allocate(file: Path) -> None:
    """Allocate the disk space of a sparse file, or fail: mapped memory on a full disk kills the process silently."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with file.open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)


def _key(model: nn.Module, records: Sequence[Record], spec: ImageSpec, variants: Sequence[Flips]) -> str:
    digest = hashlib.sha256(repr((spec, tuple(variants))).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(("backbone.", "normalize.")):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    for record in records:
        assert record.image is not None
        with reading_picture_of(record):
            digest.update(hashlib.sha256(record.image.read_bytes()).digest())
    return digest.hexdigest()[:24]
