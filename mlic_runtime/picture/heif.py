"""HEIC pictures, which phones write and Pillow cannot read: through the plug-in pillow-heif, if it is installed."""

from typing import BinaryIO

from PIL import Image

from mlic_runtime.errors import ImageError

FORMAT = "HEIF"  # what the plug-in calls it in Pillow

# Of a file whose pictures are coded in HEVC (ISO/IEC 23008-12, B.4); AVIF has the same container and other brands.
_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_HEAD_BYTES = 256  # for a box of type and brands that is longer, its first 60 brands have to do


def is_heic(stream: BinaryIO) -> bool:
    """Whether a stream, which is rewound, begins like a HEIC file.

    The first box of such a file (ISO/IEC 14496-12, 4.3) is: its length in 4 bytes, "ftyp", a brand, a version in
    4 bytes, further brands.
    """
    stream.seek(0)
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if head[4:8] != b"ftyp":
        return False
    box = head[: int.from_bytes(head[:4], "big")]
    return any(box[start : start + 4] in _BRANDS for start in (8, *range(16, len(box), 4)))


def open_heic(stream: BinaryIO) -> Image.Image:
    """`PIL.Image.open` for a HEIC file; registers the plug-in with Pillow, for the whole process.

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
