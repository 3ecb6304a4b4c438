"""HEIC pictures, which phones write and Pillow cannot read, through the plug-in pillow-heif if it is installed."""

from typing import BinaryIO

from PIL import Image

from mlic_runtime.errors import ImageError

FORMAT = "HEIF"  # the plug-in's name of the format in Pillow

# Of a file whose pictures are coded in HEVC (ISO/IEC 23008-12, B.4); AVIF has the same container and other brands.
_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_HEAD_BYTES = 256  # enough for 60 brands; later ones are ignored


def is_heic(stream: BinaryIO) -> bool:
    """Return whether a stream begins like a HEIC file; it is rewound.

    The first box of such a file (ISO/IEC 14496-12, 4.3) has its length in 4 bytes, "ftyp", a brand, a version in
    4 bytes, and further brands.
    """
    stream.seek(0)
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if head[4:8] != b"ftyp":
        return False
    box = head[: int.from_bytes(head[:4], "big")]
    return any(box[start : start + 4] in _BRANDS for start in (8, *range(16, len(box), 4)))


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
