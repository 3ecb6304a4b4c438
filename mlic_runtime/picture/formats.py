"""Which of Pillow's readers gets a picture: one alone, by the picture's first bytes, from a list.

`PIL.Image.open` would load the readers of all common formats before it looks (12 ms of CPU time, a fifth of a
prediction's), and for bytes that begin like none of them all 40, among which are some that start other programs.
"""

import importlib
import struct
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from .heif import is_heic, open_heic


class _Reader(NamedTuple):
    module: str
    beginnings: tuple[bytes, ...]


# By Pillow's name of the format. TIFF: both byte orders, with magic numbers of 42 and, for BigTIFF, 43.
_READERS = {
    "JPEG": _Reader("JpegImagePlugin", (b"\xff\xd8\xff",)),
    "PNG": _Reader("PngImagePlugin", (b"\x89PNG\r\n\x1a\n",)),
    "WEBP": _Reader("WebPImagePlugin", (b"RIFF",)),
    "GIF": _Reader("GifImagePlugin", (b"GIF87a", b"GIF89a")),
    "BMP": _Reader("BmpImagePlugin", (b"BM",)),
    "TIFF": _Reader("TiffImagePlugin", (b"MM\0\x2a", b"II\x2a\0", b"MM\0\x2b", b"II\x2b\0")),
}
FORMATS = tuple(_READERS)
_HEAD_BYTES = 16  # what Pillow's readers are shown to say whether a picture is theirs


def open_picture(stream: BinaryIO) -> Image.Image:
    """`PIL.Image.open` for FORMATS, and for HEIC where its plug-in is installed; pixels are not decoded yet.

    Pillow's limit `PIL.Image.MAX_IMAGE_PIXELS` is not asked for: who calls must look at the size before decoding.

    Raises:
        UnidentifiedImageError: it begins like none of them, or its header is broken.
        ImageError: it is HEIC, and the plug-in is not installed.
        Exception: fed hostile bytes, Pillow's readers raise nearly anything.
    """
    stream.seek(0)
    head = stream.read(_HEAD_BYTES)
    for format_, reader in _READERS.items():
        if head.startswith(reader.beginnings):
            return _open_with(format_, reader, stream, head)
    if is_heic(stream):
        return open_heic(stream)
    raise UnidentifiedImageError


def _open_with(format_: str, reader: _Reader, stream: BinaryIO, head: bytes) -> Image.Image:
    importlib.import_module(f"PIL.{reader.module}")
    factory, accept = Image.OPEN[format_]
    if accept is not None and accept(head) is not True:  # a text says that Pillow was built without its library
        raise UnidentifiedImageError
    stream.seek(0)
    try:
        return factory(stream, "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # those that Pillow takes for "not mine"
        raise UnidentifiedImageError from error
