"""The choice of one of Pillow's readers for a picture, by its first bytes and from a fixed list.

`PIL.Image.open` would load the readers of all common formats first (12 ms of CPU time, a fifth of a prediction's). For
bytes of no common format it would load all 40, and some of those start other programs.
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
_HEAD_BYTES = 16  # from which Pillow's readers say whether a picture is theirs


def open_picture(stream: BinaryIO) -> Image.Image:
    """Open a picture of FORMATS, or HEIC where its plug-in is installed; pixels are not decoded yet.

    Pillow's limit `PIL.Image.MAX_IMAGE_PIXELS` is not checked: the caller must check the size before decoding.

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
    if accept is not None and accept(head) is not True:  # it returns a text if Pillow was built without its library
        raise UnidentifiedImageError
    stream.seek(0)
    try:
        return factory(stream, "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # Pillow takes these as "not this format"
        raise UnidentifiedImageError from error
