"""Hostile TIFF (6.0, BigTIFF) and WebP (RFC 9649) files."""

import struct
import zlib
from typing import Any

from PIL import Image

from .cases import Expected, Picture, broken_exif, encode, exif, ifd, noise, patched, picture, truncated

_BYTE, _SHORT, _LONG, _SIGNED, _UNDEFINED = 1, 3, 4, 9, 7
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, SAMPLES, ROWS, _BYTES, _PLANAR, _PREDICTOR, _COLOURS = 273, 277, 278, 279, 284, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
# All of libtiff's: run lengths, fax, LZW, JPEG, deflate, LZMA, Zstandard, WebP, JPEG 2000; and one that is none.
_COMPRESSIONS = (
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    32766,
    32773,
    32809,
    32895,
    32946,
    34661,
    34676,
    34712,
    34925,
    50000,
    50001,
    99,
)
_DATA = 8 + 2 + 12 * 30 + 4  # where the pixels lie; a directory of up to 30 entries fits before them


def tiff(data: bytes = bytes(64), changes: "dict[int, Any] | None" = None, *, next_: int = 0) -> bytes:
    """A grey picture of 8x8; `changes` are {tag: value, or (type, count, value), or None to leave it out}."""
    entries: dict[int, Any] = {
        WIDTH: 8,
        HEIGHT: 8,
        BITS: 8,
        COMPRESSION: 1,
        PHOTOMETRIC: 1,
        _STRIPS: _DATA,
        SAMPLES: 1,
        ROWS: 8,
        _BYTES: len(data),
    }
    entries.update(changes or {})
    rows = []
    for tag, value in sorted(entries.items()):
        if value is not None:
            kind, count, number = value if isinstance(value, tuple) else (_LONG, 1, value)
            rows.append((tag, kind, count, struct.pack("<i" if number < 0 else "<I", number)))
    return exif([], tail=b"")[:8] + ifd(rows, next_=next_).ljust(_DATA - 8, b"\0") + data


def _tiled(width: int, height: int, tile: int, data: bytes, compression: int = 1) -> bytes:
    changes = {_STRIPS: None, ROWS: None, _BYTES: None, WIDTH: width, HEIGHT: height, COMPRESSION: compression}
    tiles = {TILE_WIDTH: tile, TILE_HEIGHT: tile, TILES: _DATA, TILE_BYTES: len(data)}
    return tiff(data, changes | tiles)


def tiffs() -> list[Picture]:
    """All of them."""
    good = encode(picture(), "TIFF")
    packed = encode(picture(), "TIFF", compression="tiff_lzw")
    billion = 1_000_000_000
    cases: list[tuple[str, bytes, Expected]] = [
        ("by-hand", tiff(), "answer"),
        ("1x1", encode(picture(1, 1), "TIFF"), "answer"),
        ("65535-wide", encode(picture(65535, 1), "TIFF"), "answer"),
        ("65535-high", encode(picture(1, 65535), "TIFF"), "answer"),
        (
            "65535-high-packed",
            tiff(zlib.compress(bytes(65535)), {WIDTH: 1, HEIGHT: 65535, ROWS: 65535, COMPRESSION: 8}),
            "answer",
        ),
        ("next-is-itself", tiff(next_=8), "answer"),
        ("next-outside", tiff(next_=2**32 - 1), "answer"),
        ("directory-outside", b"II*\0\xff\xff\xff\xff", "error"),
        ("directory-in-header", b"II*\0\0\0\0\0" + bytes(50), "error"),
        ("directory-empty", b"II*\0\x08\0\0\0\0\0\0\0\0\0", "error"),
        ("directory-of-65535", b"II*\0\x08\0\0\0\xff\xff" + noise(900), "error"),
        ("5000-overlapping-values", exif([(30000 + n, _UNDEFINED, 60_000, b"\x08") for n in range(5000)]), "error"),
        ("value-of-4-gigabytes", tiff(changes={270: (2, 2**32 - 1, 8)}), "either"),
        ("strips-a-billion", tiff(changes={_STRIPS: (_LONG, billion, 8)}), "either"),
        ("strips-none", tiff(changes={_STRIPS: None, _BYTES: None}), "error"),
        ("strip-at-4-gigabytes", tiff(changes={_STRIPS: 2**32 - 1}), "error"),
        ("strip-at-minus-1", tiff(changes={_STRIPS: (_SIGNED, 1, -1)}), "error"),
        ("strip-as-text", tiff(changes={_STRIPS: (2, 1, 65)}), "error"),
        ("strip-of-0-bytes", tiff(changes={_BYTES: 0}), "either"),
        ("strip-of-4-gigabytes", tiff(changes={_BYTES: 2**32 - 1}), "either"),
        ("strip-of-4-gigabytes-packed", tiff(zlib.compress(bytes(64)), {_BYTES: 2**32 - 1, COMPRESSION: 8}), "either"),
        ("strip-at-4-gigabytes-packed", tiff(zlib.compress(bytes(64)), {_STRIPS: 2**32 - 1, COMPRESSION: 8}), "error"),
        ("rows-0", tiff(changes={ROWS: 0}), "either"),
        ("rows-2-to-32", tiff(changes={ROWS: 2**32 - 1}), "either"),
        ("rows-0-packed", tiff(zlib.compress(bytes(64)), {ROWS: 0, COMPRESSION: 8}), "either"),
        ("rows-2-to-32-packed", tiff(zlib.compress(bytes(64)), {ROWS: 2**32 - 1, COMPRESSION: 8}), "either"),
        ("width-0", tiff(changes={WIDTH: 0}), "error"),
        ("width-missing", tiff(changes={WIDTH: None}), "error"),
        ("width-minus-8", tiff(changes={WIDTH: (_SIGNED, 1, -8)}), "error"),
        ("width-as-text", tiff(changes={WIDTH: (2, 2, 0x38)}), "error"),
        ("size-2-to-32", tiff(changes={WIDTH: 2**32 - 1, HEIGHT: 2**32 - 1}), "error"),
        ("size-10000x10000", tiff(changes={WIDTH: 10_000, HEIGHT: 10_000}), "error"),
        ("size-larger-than-data", tiff(changes={WIDTH: 900, HEIGHT: 900}), "error"),
        ("bits-0", tiff(changes={BITS: 0}), "error"),
        ("bits-64", tiff(changes={BITS: 64}), "error"),
        ("bits-65535", tiff(changes={BITS: 65535}), "error"),
        ("bits-a-billion", tiff(changes={BITS: (_SHORT, billion, 8)}), "either"),
        ("samples-0", tiff(changes={SAMPLES: 0}), "either"),
        ("samples-3-of-1", tiff(changes={SAMPLES: 3}), "either"),
        ("samples-65535", tiff(changes={SAMPLES: 65535}), "error"),
        ("samples-extra", tiff(changes={EXTRA: (_SHORT, 1, 65535)}), "either"),
        ("planes", tiff(changes={_PLANAR: 2}), "either"),
        ("planes-99", tiff(changes={_PLANAR: 99}), "either"),
        ("colours-missing", tiff(changes={PHOTOMETRIC: 3}), "either"),
        ("colours-cut", tiff(changes={PHOTOMETRIC: 3, _COLOURS: (_SHORT, 2, 8)}), "either"),
        ("photometric-6-of-1", tiff(changes={PHOTOMETRIC: 6}), "either"),
        ("photometric-99", tiff(changes={PHOTOMETRIC: 99}), "error"),
        ("floats", tiff(bytes(256), {BITS: 32, _FORMAT: 3}), "error"),
        ("signed-16-bits", tiff(b"\xff" * 128, {BITS: 16, _FORMAT: 2}), "either"),
        ("predictor-99", tiff(zlib.compress(bytes(64)), {_PREDICTOR: 99, COMPRESSION: 8}), "error"),
        ("predictor-of-floats", tiff(zlib.compress(bytes(64)), {_PREDICTOR: 3, COMPRESSION: 8}), "error"),
        ("deflate-bomb", tiff(zlib.compress(bytes(50_000_000)), {COMPRESSION: 8}), "either"),
        ("orientation-6", tiff(changes={274: 6}), "answer"),
        ("orientation-99", tiff(changes={274: 99}), "answer"),
        ("exif-is-itself", tiff(changes={34665: 8}), "answer"),
        ("exif-outside", tiff(changes={34665: 2**32 - 1}), "either"),
        ("children-are-itself", tiff(changes={330: 8}), "answer"),
        ("tile-0", _tiled(8, 8, 0, bytes(64)), "either"),
        ("tile-larger", _tiled(1, 1, 256, bytes(65536)), "answer"),
        ("tile-2-to-31", _tiled(1, 1, 2**31, bytes(64)), "error"),
        ("tile-13000x13000", _tiled(1, 1, 13_000, bytes(64)), "error"),
        ("tile-13000x13000-packed", _tiled(1, 1, 13_000, zlib.compress(bytes(64)), 8), "error"),
        ("tile-100000x100000-packed", _tiled(1, 1, 100_000, zlib.compress(bytes(64)), 8), "error"),
        ("tile-without-size", tiff(changes={TILES: _DATA, TILE_BYTES: 64, _STRIPS: None}), "error"),
        ("big-endian-in-name", b"MM" + good[2:], "error"),
        ("big-tiff", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1) + noise(50), "error"),
        ("big-tiff-outside", b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63), "error"),
        ("big-tiff-of-2-to-64", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1) + noise(2000), "error"),
        ("header-alone", b"II*\0", "error"),
    ]
    cases += [
        (f"compression-{number}-garbage", tiff(noise(200), {COMPRESSION: number}), "either") for number in _COMPRESSIONS
    ]
    # LZMA allocates the dictionary that the stream's header names: 1.5 GiB of them here.
    lzma = encode(picture(), "TIFF", compression="lzma")
    cases.append(("lzma-dictionary", _lzma_dictionary(lzma), "either"))
    several = encode(picture(), "TIFF", save_all=True, append_images=[Image.new("L", (400, 400))])
    return [
        *truncated("tiff", good),
        *truncated("tiff-lzw", packed),
        *(Picture(f"tiff-{name}", data, expected) for name, data, expected in cases),
        Picture("tiff-several", several, "answer"),
    ]


def _lzma_dictionary(data: bytes) -> bytes:
    """The file with the largest dictionary in the first block of its .xz stream (5.3.1 of its specification)."""
    block = data.find(b"\xfd7zXZ\0") + 12
    size = (data[block] + 1) * 4
    header = bytearray(data[block : block + size - 4])
    where = header.find(b"\x21\1")  # LZMA2, one byte of properties
    header[where + 2] = 39  # 3 GiB
    return patched(data, block, bytes(header) + struct.pack("<I", zlib.crc32(header)))


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def solid(width: int, height: int) -> bytes:
    """A lossless WebP of one colour: codes of one symbol take no bits, so no pixel takes any (RFC 9649, 3.7)."""
    bits = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 4)]  # signature, size, no alpha, version
    bits += [(0, 3)]  # no transform, no cache of colours, one group of codes
    bits += [(0b0001, 4)] * 5  # a simple code, of one symbol, which takes one bit: 0
    number = length = 0
    for value, count in bits:
        number, length = number | value << length, length + count
    return riff((b"VP8L", number.to_bytes(-(-length // 8), "little")))


def _canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The chunk VP8X; flags: 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    return b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _frame(width: int, height: int, x: int, y: int, data: bytes) -> tuple[bytes, bytes]:
    place = b"".join(number.to_bytes(3, "little") for number in (x // 2, y // 2, width - 1, height - 1, 100))
    return b"ANMF", place + b"\0" + data


def webps() -> list[Picture]:
    """All of them."""
    lossy, lossless = encode(picture(), "WEBP"), encode(picture(), "WEBP", lossless=True)
    several = encode(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 24))])
    vp8, vp8l = lossy[20:], lossless[20:]  # behind "RIFF", size, "WEBP", name and size of the chunk
    lossless_1x1 = encode(picture(1, 1), "WEBP", lossless=True)[12:]
    anim = (b"ANIM", bytes(6))
    cases: list[tuple[str, bytes, Expected]] = [
        ("animated", several, "answer"),
        ("1x1", encode(picture(1, 1), "WEBP"), "answer"),
        ("16383-wide", encode(picture(16383, 1, "L"), "WEBP"), "answer"),
        ("16383-high", encode(picture(1, 16383, "L"), "WEBP"), "answer"),
        ("solid", solid(500, 300), "answer"),
        ("solid-of-268-megapixels", solid(16384, 16384), "error"),
        ("solid-of-89-megapixels", solid(9400, 9500), "error"),
        ("riff-0", patched(lossy, 4, bytes(4)), "error"),
        ("riff-4-gigabytes", patched(lossy, 4, b"\xff" * 4), "error"),
        ("riff-short", patched(lossy, 4, b"\x20\0\0\0"), "error"),
        ("chunk-4-gigabytes", patched(lossy, 16, b"\xff" * 4), "error"),
        ("chunk-0", patched(lossy, 16, bytes(4)), "error"),
        ("lossy-size-0", patched(lossy, 26, bytes(4)), "error"),
        ("lossy-size-16383", patched(lossy, 26, b"\xff\x3f\xff\x3f"), "error"),
        ("lossy-size-larger", patched(lossy, 26, b"\xd0\x07\xd0\x07"), "either"),
        ("lossy-no-key-frame", patched(lossy, 20, bytes([lossy[20] | 1])), "error"),
        ("lossy-start-code", patched(lossy, 23, bytes(3)), "error"),
        ("lossy-garbage", riff((b"VP8 ", vp8[:10] + noise(len(vp8) - 10))), "either"),
        ("lossless-size-16384", patched(lossless, 21, b"\xff\xff\xff\x0f"), "error"),
        ("lossless-signature", patched(lossless, 20, b"\0"), "error"),
        ("lossless-version-7", patched(lossless, 24, bytes([lossless[24] | 0xE0])), "error"),
        ("lossless-garbage", riff((b"VP8L", vp8l[:5] + noise(len(vp8l) - 5))), "either"),
        ("canvas-2-to-24", riff(_canvas(2**24, 2**24), (b"VP8 ", vp8)), "error"),
        ("canvas-2-to-24-wide", riff(_canvas(2**24, 1), (b"VP8 ", vp8)), "error"),
        ("canvas-12000x12000", riff(_canvas(12_000, 12_000, 2), anim, _frame(2, 2, 0, 0, lossless_1x1)), "error"),
        ("canvas-other-than-frame", riff(_canvas(400, 400), (b"VP8 ", vp8)), "error"),
        ("canvas-alone", riff(_canvas(40, 24)), "error"),
        ("canvas-cut", riff((b"VP8X", b"\0\0")), "error"),
        ("animated-no-frame", riff(_canvas(40, 24, 2), anim), "error"),
        ("animated-frame-outside", riff(_canvas(4, 4, 2), anim, _frame(1, 1, 2**20, 2**20, lossless_1x1)), "error"),
        ("animated-frame-lies", riff(_canvas(40, 24, 2), anim, _frame(40, 24, 0, 0, lossless_1x1)), "either"),
        ("animated-frame-cut", riff(_canvas(40, 24, 2), anim, (b"ANMF", b"\0" * 8)), "error"),
        ("animated-in-itself", riff(_canvas(1, 1, 2), anim, _frame(1, 1, 0, 0, riff((b"VP8L", vp8l)))), "error"),
        ("alpha-garbage", riff(_canvas(40, 24, 16), (b"ALPH", noise(50)), (b"VP8 ", vp8)), "either"),
        ("profile-garbage", riff(_canvas(40, 24, 32), (b"ICCP", noise(50)), (b"VP8 ", vp8)), "answer"),
        ("xmp-garbage", riff(_canvas(40, 24, 4), (b"VP8 ", vp8), (b"XMP ", noise(50))), "answer"),
        ("20000-chunks", riff(_canvas(40, 24), (b"VP8 ", vp8), *[(b"JUNK", b"")] * 20_000), "answer"),
        ("header-alone", b"RIFF\x04\0\0\0WEBP", "error"),
        ("sound", b"RIFF\x04\0\0\0WAVE", "error"),
    ]
    cases += [
        (f"exif-{name}", riff(_canvas(40, 24, 8), (b"VP8 ", vp8), (b"EXIF", data)), "answer")
        for name, data in broken_exif().items()
    ]
    return [
        *truncated("webp", lossy),
        *truncated("webp-lossless", lossless),
        *(Picture(f"webp-{name}", data, expected) for name, data, expected in cases),
    ]
