"""HEIC pictures, which phones write and Pillow cannot read, through the plug-in pillow-heif if it is installed."""

from typing import BinaryIO

from PIL import Image

from mlic_runtime.errors import ImageError

FORMAT = "HEIF"  # the plug-in's name of the format in Pillow


def open_heic(stream: BinaryIO) -> Image.Image:
    """Open a HEIC file as `PIL.Image.open` does. This registers the plug-in with Pillow, for the whole process.

    The plug-in turns the picture upright itself.

    Raises:
        ImageError: the plug-in is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("it is a HEIC picture, which needs a plug-in: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()
    return Image.open(stream, formats=(FORMAT,))
