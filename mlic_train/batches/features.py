"""Feature maps of a frozen backbone, computed once and then read from disk in every epoch."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.base.files import atomic_path
from mlic_train.data import Record
from mlic_train.data.source.members import PictureFile, image_source
from mlic_train.models import Model

from .transforms import flip

Flips = tuple[bool, bool]
_CHUNK = 32  # pictures per forward pass; bounds memory, does not change the result


class FeatureCache:
    """A memory-mapped float32 array (V, N, C, h, w): V variants (flips) of N pictures.

    Float32, so that training from the cache equals training without it.
    """

    def __init__(self, path: Path, variants: Sequence[Flips], rows: dict[int, int]) -> None:
        self.path = path
        self.variants = {flips: index for index, flips in enumerate(variants)}
        self.rows = rows
        self._array: npt.NDArray[np.float32] = np.load(path, mmap_mode="r")

    def read(self, index: int, flips: Flips) -> npt.NDArray[np.float32]:
        """Feature maps float32 (C, h, w) of record `index`, mirrored by (horizontal, vertical)."""
        return np.array(self._array[self.variants[flips], self.rows[index]])


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
    """
    indices = [index for index, record in enumerate(records) if record.image is not None]
    paths = [path for record in records if (path := record.image) is not None]
    rows = {index: row for row, index in enumerate(indices)}
    file = folder / f"features-{_key(model, paths, spec, variants)}.npy"
    if not file.exists():
        _compute(model, paths, spec, variants, file, progress)
    return FeatureCache(file, variants, rows)


def _compute(
    model: Model,
    paths: Sequence[PictureFile],
    spec: ImageSpec,
    variants: Sequence[Flips],
    file: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    with atomic_path(file) as temporary, torch.inference_mode():
        array: np.memmap[Any, np.dtype[np.float32]] | None = None
        for start in range(0, len(paths), _CHUNK):
            pixels = [read_pixels(image_source(path), spec) for path in paths[start : start + _CHUNK]]
            for variant, flips in enumerate(variants):
                batch = torch.from_numpy(np.stack([flip(picture, *flips) for picture in pixels]))
                features = model.encode_picture(batch.to(device)).cpu().numpy()
                if array is None:
                    shape = (len(variants), len(paths), *features.shape[1:])
                    array = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
                    _allocate(temporary)
                array[variant, start : start + len(pixels)] = features
            if progress is not None:
                progress(start + len(pixels), len(paths))
        if array is not None:
            array.flush()
    model.train(training)


def _allocate(file: Path) -> None:
    """Allocate the disk space of a sparse file, or fail: mapped memory on a full disk kills the process silently."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with file.open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)


def _key(model: nn.Module, paths: Sequence[PictureFile], spec: ImageSpec, variants: Sequence[Flips]) -> str:
    digest = hashlib.sha256(repr((spec, tuple(variants))).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(("backbone.", "normalize.")):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]
