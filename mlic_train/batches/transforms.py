"""Picture augmentation, for training only; evaluation uses nothing but `mlic_runtime.picture.decode`.

The order for one picture: `random_crop`, `augment` (PIL images), the runtime's `to_pixels`, `flip`, `random_erasing`
(pixels); `mixup` follows on the batch. The crop comes first, so that nothing is computed for pixels that it drops.
A transform that is off draws nothing from `rng`.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mlic_runtime.package.manifest import ImageSpec

GREY = 127  # the middle of the range, for unknown pixels
_ASPECT = (3 / 4, 4 / 3)  # the range of aspect ratios of a random crop (Szegedy et al. 2014, torchvision's default)
_RAND_AUGMENT_OPERATIONS = 2
_RAND_AUGMENT_BINS = 31  # magnitudes 0 to 30, as in Cubuk et al. 2020


def random_crop(image: Image.Image, min_scale: float, rng: np.random.Generator) -> Image.Image:
    """Cut out a random rectangle that covers at least `min_scale` in (0, 1] of the picture's area."""
    if min_scale >= 1.0:
        return image
    from torchvision.transforms import RandomResizedCrop

    with _torch_draws_from(rng):
        top, left, height, width = RandomResizedCrop.get_params(image, [min_scale, 1.0], list(_ASPECT))
    return image.crop((left, top, left + width, top + height))


def augment(
    image: Image.Image, spec: ImageSpec, color_jitter: float, rand_augment: int, rng: np.random.Generator
) -> Image.Image:
    """Jitter the colours, then apply RandAugment (Cubuk et al. 2020), whose operations also shear, shift and rotate.

    Args:
        image: mode "RGB".
        spec: the final size. A picture of at least twice that size is first reduced by a whole factor, as
            reduced-scale JPEG decoding does, so that `spec` bounds the cost.
        color_jitter: brightness, contrast and saturation are each scaled by a factor in 1 +- this, in random order;
            0: they stay.
        rand_augment: the magnitude in 1..30 of two random operations; uncovered pixels become grey. 0: none.
        rng: the only source of randomness.

    Returns:
        An RGB image; `image` itself where both are 0.
    """
    if not color_jitter and not rand_augment:
        return image
    from torchvision.transforms import v2

    factor = min(image.width // spec.width, image.height // spec.height)
    if factor > 1:
        image = image.reduce(factor)
    with _torch_draws_from(rng):
        if color_jitter:
            image = v2.ColorJitter(color_jitter, color_jitter, color_jitter)(image)
        if rand_augment:
            fill = [GREY] * 3
            image = v2.RandAugment(_RAND_AUGMENT_OPERATIONS, rand_augment, _RAND_AUGMENT_BINS, fill=fill)(image)
    return image


def flip(pixels: npt.NDArray[np.uint8], horizontal: bool, vertical: bool) -> npt.NDArray[np.uint8]:
    """Mirror `pixels` uint8 (H, W, 3) horizontally, vertically or both."""
    if horizontal:
        pixels = pixels[:, ::-1]
    if vertical:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def random_erasing(
    pixels: npt.NDArray[np.uint8], probability: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Paint a random rectangle of `pixels` uint8 (H, W, 3) grey with `probability` in [0, 1] (Zhong et al. 2020).

    The rectangle covers 2 % to 33 % of the picture (torchvision's default, as in the paper). The input stays as it is.
    """
    if not probability:
        return pixels
    from torchvision.transforms import v2

    erase = v2.RandomErasing(probability, value=GREY)
    with _torch_draws_from(rng):
        erased: Tensor = erase(torch.from_numpy(pixels).permute(2, 0, 1))
    return np.ascontiguousarray(erased.permute(1, 2, 0).numpy())


def mixup(
    pixels: Tensor, targets: Tensor, rows: npt.NDArray[np.int64], alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix some rows of a batch with one another (Zhang et al. 2018, section 2).

    One w ~ Beta(alpha, alpha) and one permutation p of `rows` are drawn; row i becomes w * row i + (1 - w) * row p(i).

    Args:
        pixels: uint8 (B, H, W, 3).
        targets: float32 (B, L) in [0, 1].
        rows: the indices of the rows to mix; the others stay.
        alpha: greater than 0; a small alpha draws w close to 0 or 1.
        rng: the only source of randomness.

    Returns:
        New pixels, rounded to uint8, and new targets.
    """
    weight = float(rng.beta(alpha, alpha))
    mixed_pixels, mixed_targets = pixels.clone(), targets.clone()
    for row, partner in zip(rows.tolist(), rng.permutation(rows).tolist(), strict=True):
        # Row by row: the whole batch as floats takes twice as long.
        mixed_pixels[row] = torch.lerp(pixels[partner].float(), pixels[row].float(), weight).round_()
        mixed_targets[row] = torch.lerp(targets[partner], targets[row], weight)
    return mixed_pixels, mixed_targets


@contextlib.contextmanager
def _torch_draws_from(rng: np.random.Generator) -> Iterator[None]:
    """Seed torch's global generator, from which torchvision draws, by `rng`; restore the generator at the end.

    Only the CPU's generator is seeded: `torch.manual_seed` also reseeds those of accelerators, and is 20 times slower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        yield
