"""Pictures just below the limits: small as files, hundreds of megabytes or seconds when decoded."""

import zlib
from collections.abc import Iterator

from .cases import Picture, encode, picture
from .gifs_bmps import rle
from .jpegs import bomb_of_scans, resized
from .pngs import GREY, GREY_ALPHA, RGB, RGBA, png_of_zeros
from .tiffs_webps import BITS, COMPRESSION, HEIGHT, PHOTOMETRIC, ROWS, SAMPLES, WIDTH, solid, tiff

_SIDE = 9480  # 89.9 megapixels


def _deflated_tiff(bits: int, changes: dict[int, int]) -> bytes:
    row = bytes(_SIDE * bits // 8)
    squeeze = zlib.compressobj(1)
    data = b"".join([*(squeeze.compress(row) for _ in range(_SIDE)), squeeze.flush()])
    return tiff(data, {WIDTH: _SIDE, HEIGHT: _SIDE, ROWS: _SIDE, COMPRESSION: 8} | changes)


def heavy_pictures() -> Iterator[Picture]:
    """One after the other, for not even the files together are small."""
    jpeg, progressive = encode(picture(), "JPEG"), encode(picture(), "JPEG", progressive=True)
    cmyk = encode(picture(mode="CMYK"), "JPEG", progressive=True, subsampling=0)
    # First those that need memory in one piece: what the C library keeps of the others is in small ones.
    yield Picture("heavy-png-wide", png_of_zeros(89_000_000, 1, 8, GREY), "answer")
    yield Picture("heavy-webp", solid(6700, 6700), "answer")
    yield Picture("heavy-jpeg", resized(jpeg, _SIDE, _SIDE), "either")
    yield Picture("heavy-jpeg-progressive", resized(progressive, _SIDE, _SIDE), "either")
    yield Picture("heavy-jpeg-cmyk-progressive", resized(cmyk, _SIDE, _SIDE), "either")
    yield Picture("heavy-jpeg-scans", bomb_of_scans(_SIDE, _SIDE, 100), "either")
    yield Picture("heavy-png-1-bit", png_of_zeros(_SIDE, _SIDE, 1, GREY), "answer")
    yield Picture("heavy-png-rgb", png_of_zeros(_SIDE, _SIDE, 8, RGB), "answer")
    yield Picture("heavy-png-rgba", png_of_zeros(_SIDE, _SIDE, 8, RGBA), "answer")
    yield Picture("heavy-png-rgba-turned", png_of_zeros(_SIDE, _SIDE, 8, RGBA, orientation=6), "answer")
    yield Picture("heavy-png-grey-alpha-16", png_of_zeros(_SIDE, _SIDE, 16, GREY_ALPHA), "answer")
    yield Picture("heavy-png-16", png_of_zeros(_SIDE, _SIDE, 16, GREY), "answer")
    yield Picture("heavy-bmp-runs", rle(2900, 2900, b"\1\x07\0\0" * 2900), "answer")
    yield Picture("heavy-gif", encode(picture(1, 1, "L").resize((_SIDE, _SIDE)), "GIF"), "answer")
    yield Picture("heavy-tiff", _deflated_tiff(8, {}), "answer")
    yield Picture("heavy-tiff-turned", _deflated_tiff(24, {SAMPLES: 3, PHOTOMETRIC: 2, BITS: 8, 274: 6}), "either")
    yield Picture("heavy-tiff-16", _deflated_tiff(16, {BITS: 16}), "answer")
