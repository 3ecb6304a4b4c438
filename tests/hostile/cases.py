"""What one hostile input is, and what the files of several formats have in common."""

import random
import struct
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

from PIL import Image

# "error": it must be refused; "answer": it is odd, yet has to be read; "either": the decoders' versions may differ.
Expected = Literal["error", "answer", "either"]


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture file, and how it must end: never by anything but an `MlicError` or an answer."""

    name: str
    data: bytes = field(repr=False)
    expected: Expected


@dataclass(frozen=True)
class Caption:
    """What is given as a caption; of any type."""

    name: str
    value: Any = field(repr=False)
    expected: Expected


def noise(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def picture(width: int = 40, height: int = 24, mode: str = "RGB") -> Image.Image:
    """A picture that no compression makes small."""
    return Image.frombytes("RGB", (width, height), noise(3 * width * height)).convert(mode)


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def truncated(name: str, data: bytes) -> list[Picture]:
    """The file, cut at every tenth of its length."""
    return [Picture(f"{name}-cut-{tenth}-of-10", data[: len(data) * tenth // 10], "error") for tenth in range(1, 10)]


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """The file with `new` in the place of as many bytes."""
    return data[:offset] + new + data[offset + len(new) :]


def ifd(entries: list[tuple[int, int, int, bytes]], *, next_: int = 0) -> bytes:
    """An image file directory of TIFF 6.0, little-endian: (tag, type, count, the 4 bytes of value or offset)."""
    rows = [struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0") for tag, kind, count, value in entries]
    return struct.pack("<H", len(rows)) + b"".join(rows) + struct.pack("<I", next_)


def exif(entries: list[tuple[int, int, int, bytes]], *, next_: int = 0, tail: bytes = b"") -> bytes:
    """EXIF data, which is a TIFF file without pixels; `tail` is what lies behind the directory."""
    return b"II*\0\x08\0\0\0" + ifd(entries, next_=next_) + tail


def broken_exif() -> dict[str, bytes]:
    """EXIF data that is wrong in one way each; none of it may cost a good picture."""
    short, long_, rational, undefined = 3, 4, 5, 7
    orientation, exif_ifd, gps_ifd = 0x0112, 0x8769, 0x8825
    return {
        "orientation-0": exif([(orientation, short, 1, b"\0")]),
        "orientation-9": exif([(orientation, short, 1, b"\x09")]),
        "orientation-65535": exif([(orientation, short, 1, b"\xff\xff")]),
        "orientation-text": exif([(orientation, 2, 4, b"abc\0")]),
        "orientation-a-billion": exif([(orientation, short, 1_000_000_000, b"\x08")]),
        "orientation-divided-by-0": exif([(orientation, rational, 1, struct.pack("<I", 26))], tail=bytes(8)),
        "orientation-undefined": exif([(orientation, undefined, 1, b"\x06")]),
        "orientation-two-values": exif([(orientation, short, 2, b"\x06\0\x03\0")]),
        "orientation-unknown-type": exif([(orientation, 99, 1, b"\x06")]),
        "directory-is-itself": exif([(exif_ifd, long_, 1, b"\x08"), (gps_ifd, long_, 1, b"\x08")], next_=8),
        "directory-outside": b"II*\0\xff\xff\xff\x7f",
        "directory-of-65535": b"II*\0\x08\0\0\0\xff\xff",
        "5000-overlapping-values": exif([(30000 + n, undefined, 60_000, b"\x08") for n in range(5000)]),
        "resolution-divided-by-0": exif([(0x011A, rational, 1, struct.pack("<I", 26))], tail=bytes(8)),
        "big-tiff": b"II+\0\x08\0\0\0" + b"\xff" * 24,
        "neither-endian": b"XX*\0\x08\0\0\0\0\0",
        "3-bytes": b"II*",
        "garbage": noise(500),
    }
