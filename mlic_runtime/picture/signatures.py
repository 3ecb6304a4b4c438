"""What is a picture file: the usual endings of names, and the first bytes, which decide where a name does not tell."""

import os

from mlic_runtime.base.files import open_regular

# By Pillow's name of the format. TIFF: both byte orders, with magic numbers of 42 and, for BigTIFF, 43.
BEGINNINGS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WEBP": (b"RIFF",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"MM\0\x2a", b"II\x2a\0", b"MM\0\x2b", b"II\x2b\0"),
}
FORMATS = tuple(BEGINNINGS)
_HEIC = "HEIC"
KNOWN_FORMATS = f"{', '.join(FORMATS)} or {_HEIC}"  # for messages

# Of a file whose pictures are coded in HEVC (ISO/IEC 23008-12, B.4); AVIF has the same container and other brands.
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))

# A file with such an ending counts as a picture, also where it cannot be read: it is an error then, not passed over.
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic",
    ".heif", ".hif",
)  # fmt: skip

HEAD_BYTES = 256  # that `is_picture` needs: enough for 60 brands of HEIC; later ones are ignored


def has_picture_suffix(name: str) -> bool:
    """Return whether a file's name ends like a picture's, in upper or lower case."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def is_heic(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is HEIC.

    The first box of such a file (ISO/IEC 14496-12, 4.3) has its length in 4 bytes, "ftyp", a brand, a version in
    4 bytes, and further brands.
    """
    if head[4:8] != b"ftyp":
        return False
    box = head[: int.from_bytes(head[:4], "big")]
    return any(box[start : start + 4] in _HEIC_BRANDS for start in (8, *range(16, len(box), 4)))


def is_picture(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is a picture of a known format.

    It is stricter than the choice of a reader: "RIFF" begins sounds and films, too, and a text may begin with "BM".

    Args:
        head: the first HEAD_BYTES of the file, or all of a shorter one.
    """
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):
        # After the size of the file come four reserved bytes, zero, and an offset; then a header of 12 to 124 bytes.
        return head[6:10] == bytes(4) and 12 <= int.from_bytes(head[14:18], "little") <= 124
    return head.startswith(tuple(start for starts in BEGINNINGS.values() for start in starts)) or is_heic(head)


def is_picture_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file counts as a picture: by its ending, else by its first bytes; False if it cannot be read."""
    if has_picture_suffix(os.fspath(path)):
        return True
    try:
        with open_regular(path) as stream:
            return is_picture(stream.read(HEAD_BYTES))
    except OSError:
        return False
