"""Numbers to colours, and a heat map over a picture."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlic_runtime.base.arrays import Pixels

# Vermillion and blue of Okabe and Ito 2008, "Color Universal Design": told apart with every kind of colour blindness.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)

Colour = tuple[int, int, int]
_OPAQUE = 0.7  # of the strongest shade: a picture stays visible below it, and black text has a contrast above 4.5
_PALE = 0.45  # how far a picture below a heat map goes from grey to white
TICKS = (-1.0, -0.25, 0.0, 0.25, 1.0)  # of a legend, in parts of the scale


def strength(values: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
    """Return how strongly numbers are coloured, in [-1, 1]: the signed square root of number / scale.

    The best place of a picture weighs as much as all others together (see `PictureLabels`). Without the root nothing
    but this place would be seen.
    """
    if scale <= 0:
        return np.zeros_like(values, dtype=np.float32)
    parts = np.clip(np.asarray(values, dtype=np.float32) / scale, -1, 1)
    return np.asarray(np.sign(parts) * np.sqrt(np.abs(parts)), dtype=np.float32)


def on_white(part: float) -> Colour:
    """Return the colour of a strength in [-1, 1] on white."""
    colour = FOR if part >= 0 else AGAINST
    alpha = _OPAQUE * abs(part)
    red, green, blue = (round(255 + alpha * (channel - 255)) for channel in colour)
    return red, green, blue


def signed(value: float) -> str:
    """Return a number of logits with its sign and two digits; "0.00" has none."""
    text = f"{value:+.2f}"
    return text if float(text) else "0.00"


def display_size(pixels: Pixels, side: int) -> tuple[int, int]:
    """Return (width, height) for a picture whose longer side shall be `side`."""
    height, width = pixels.shape[:2]
    factor = side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def picture(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    """Return the picture in another size, (width, height)."""
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)


def heat_map(pixels: Pixels, values: npt.NDArray[np.float32], scale: float, size: tuple[int, int]) -> Image.Image:
    """Return the picture in pale grey under one cell of colour for each number.

    Cells are drawn as they are, without smoothing, because there are no numbers between them.

    Args:
        pixels: uint8 (H, W, 3).
        values: float32 (h, w), row by row from the top left; they cover the picture.
        scale: the number that gets the strongest colour.
        size: (width, height) of the result.
    """
    grey = np.asarray(picture(pixels, size).convert("L"), dtype=np.float32)[..., None]
    grey = grey + _PALE * (255 - grey)
    parts = strength(values, scale)
    rows = np.minimum(np.arange(size[1]) * parts.shape[0] // size[1], parts.shape[0] - 1)
    columns = np.minimum(np.arange(size[0]) * parts.shape[1] // size[0], parts.shape[1] - 1)
    at = parts[rows][:, columns][..., None]  # (height, width, 1)
    colour = np.where(at >= 0, np.array(FOR, dtype=np.float32), np.array(AGAINST, dtype=np.float32))
    alpha = _OPAQUE * np.abs(at)
    return Image.fromarray((grey + alpha * (colour - grey)).round().astype(np.uint8))
