"""The choice of one of Pillow's readers for a picture, by its first bytes and from a fixed list.

`PIL.Image.open` would load the readers of all common formats first (12 ms of CPU time, a fifth of a prediction's). For
bytes of no common format it would load all 40, and some of those start other programs.
"""

import importlib
import struct
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from .heif import open_heic
from .signatures import BEGINNINGS, HEAD_BYTES, is_heic
from .signatures import FORMATS as FORMATS

# Pillow's modules, by its names of the formats.
_MODULES = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
}


def open_picture(stream: BinaryIO) -> Image.Image:
    """Open a picture of `signatures.FORMATS`, or HEIC where its plug-in is installed; pixels are not decoded yet.

    Pillow's limit `PIL.Image.MAX_IMAGE_PIXELS` is not checked: the caller must check the size before decoding.

    Raises:
        UnidentifiedImageError: it begins like none of them, or its header is broken.
        ImageError: it is HEIC, and the plug-in is not installed.
        Exception: fed hostile bytes, Pillow's readers raise nearly anything.
    """
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    for format_, beginnings in BEGINNINGS.items():
        if head.startswith(beginnings):
            return _open_with(format_, stream, head)
    if is_heic(head):
        stream.seek(0)
        return open_heic(stream)
    raise UnidentifiedImageError


def _open_with(format_: str, stream: BinaryIO, head: bytes) -> Image.Image:
    importlib.import_module(f"PIL.{_MODULES[format_]}")
    factory, accept = Image.OPEN[format_]
    if (
        accept is not None and accept(head[:16]) is not True
    ):  # it returns a text if Pillow was built without its library
        raise UnidentifiedImageError
    stream.seek(0)
    try:
        return factory(stream, "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # Pillow takes these as "not this format"
        raise UnidentifiedImageError from error
