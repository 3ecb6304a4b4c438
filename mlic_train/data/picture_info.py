"""Facts about pictures, each read once: a digest of the file, the size, and a tiny grey copy to compare."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlic_runtime.annotations.source.members import PictureFile
from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import ImageError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image
from mlic_runtime.picture.signatures import FORMATS

from .records import Split

GREY_SHAPE = (8, 9)  # (H, W): eight differences in each of eight lines
# A large JPEG can be decoded at an eighth of its size, which is several times faster. With anything smaller, the points
# of two sizes of one picture no longer match: of copies 100 pixels wide 3 % were found at 8 x 9, and 99 % at this size.
_DECODED = ImageSpec(8 * GREY_SHAPE[0], 8 * GREY_SHAPE[1])
_MODES_WITHOUT_COLOUR = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What is known of a picture without its pixels.

    Attributes:
        digest: sha256 of the file, 64 hex digits.
        width: in pixels, upright.
        height: in pixels, upright.
        grey: uint8 (8, 9), the upright picture in shades of grey.
        colour: False where the file stores shades of grey.
    """

    digest: str
    width: int
    height: int
    grey: npt.NDArray[np.uint8]
    colour: bool


def read_pictures(
    splits: Mapping[str, Split], progress: Callable[[int, int], None]
) -> tuple[dict[PictureFile, PictureInfo], dict[PictureFile, str]]:
    """Read every picture of the splits once.

    Args:
        splits: the splits, by name.
        progress: called with the number of pictures read so far, and with their total.

    Returns:
        The facts about every picture that can be decoded, and for every other picture the reason why it cannot.
    """
    images = (record.image for split in splits.values() for record in split.records)
    paths = list(dict.fromkeys(image for image in images if image is not None))
    infos: dict[PictureFile, PictureInfo] = {}
    broken: dict[PictureFile, str] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for done, (path, result) in enumerate(zip(paths, threads.map(_read_picture, paths), strict=True), start=1):
            if isinstance(result, PictureInfo):
                infos[path] = result
            else:
                broken[path] = result
            progress(done, len(paths))
    return infos, broken


def _read_bytes(path: PictureFile) -> bytes:
    if not isinstance(path, Path):
        return path.read_bytes()
    with open_regular(path) as stream:
        return stream.read()


def _read_picture(path: PictureFile) -> PictureInfo | str:
    """Return the facts about one picture, or the reason why it cannot be decoded."""
    try:
        content = _read_bytes(path)
        small = load_image(content, spec=_DECODED)
    except OSError as error:
        return f"cannot be read: {os_error_reason(error)}"
    except ImageError as error:
        return str(error).partition(": ")[2]
    with Image.open(BytesIO(content), formats=FORMATS) as header:
        width, height = header.size
        colour = header.mode not in _MODES_WITHOUT_COLOUR
    # `small` is upright: where it is higher than wide and the header says the opposite, EXIF data turned the picture.
    if (width - height) * (small.width - small.height) < 0:
        width, height = height, width
    grey = small.convert("L").resize(GREY_SHAPE[::-1], Image.Resampling.BOX)
    return PictureInfo(hashlib.sha256(content).hexdigest(), width, height, np.array(grey, dtype=np.uint8), colour)
