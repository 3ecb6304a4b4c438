"""Picture augmentation, used in training only; the evaluation path is `mlic_runtime.image` and nothing else."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

_ASPECT = (3 / 4, 4 / 3)  # the range of aspect ratios of a random crop (Szegedy et al. 2014, torchvision's default)


def random_crop(image: Image.Image, min_scale: float, rng: np.random.Generator) -> Image.Image:
    """Cut out a random rectangle that covers at least `min_scale` in (0, 1] of the picture's area."""
    if min_scale >= 1.0:
        return image
    from torchvision.transforms import RandomResizedCrop

    # get_params draws from torch's global generator; what it draws must depend on `rng` alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        top, left, height, width = RandomResizedCrop.get_params(image, [min_scale, 1.0], list(_ASPECT))
    return image.crop((left, top, left + width, top + height))


def flip(pixels: npt.NDArray[np.uint8], horizontal: bool, vertical: bool) -> npt.NDArray[np.uint8]:
    """Mirror `pixels` uint8 (H, W, 3) left-right and/or upside down."""
    if horizontal:
        pixels = pixels[:, ::-1]
    if vertical:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
