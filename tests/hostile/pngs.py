"""Hostile PNG and APNG files, chunk by chunk (PNG, third edition)."""

import struct
import zlib

from .cases import Expected, Picture, broken_exif, encode, exif, noise, patched, picture, truncated

_START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_END = (b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return _START + b"".join(chunk(name, content) for name, content in chunks)


def header(
    width: int, height: int, depth: int = 8, colour: int = RGB, interlaced: int = 0, rest: bytes = b"\0\0"
) -> tuple[bytes, bytes]:
    """IHDR; `rest` is the compression and the filter method."""
    return b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest + bytes([interlaced])


def pixels(width: int, height: int, depth: int = 8, colour: int = RGB, *, filter_: int = 0) -> tuple[bytes, bytes]:
    """IDAT: a picture of zeros, compressed a piece at a time, for it may be large."""
    row = bytes([filter_]) + bytes(-(-width * depth * _CHANNELS[colour] // 8))
    return b"IDAT", _deflated(row, height)


def _deflated(piece: bytes, times: int) -> bytes:
    squeeze = zlib.compressobj(1)
    return b"".join([*(squeeze.compress(piece) for _ in range(times)), squeeze.flush()])


def png_of_zeros(
    width: int, height: int, depth: int = 8, colour: int = RGB, *, orientation: int | None = None
) -> bytes:
    turned = [] if orientation is None else [(b"eXIf", exif([(0x0112, 3, 1, bytes([orientation]))]))]
    return png(header(width, height, depth, colour), *turned, pixels(width, height, depth, colour), _END)


def interlaced(width: int, height: int, depth: int, colour: int) -> bytes:
    """Adam7: seven passes, each with its own size."""
    rows = []
    for left, top, step_x, step_y in _PASSES:
        columns, lines = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and lines > 0:
            rows.append((b"\0" + noise(-(-columns * depth * _CHANNELS[colour] // 8))) * lines)
    return png(header(width, height, depth, colour, 1), (b"IDAT", zlib.compress(b"".join(rows))), _END)


def _control(number: int, width: int, height: int, x: int = 0, y: int = 0) -> tuple[bytes, bytes]:
    return b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, x, y, 1, 0, 2, 1)


def _animated(frames: int, *chunks: tuple[bytes, bytes]) -> bytes:
    return png(header(8, 8), (b"acTL", struct.pack(">II", frames, 0)), *chunks, _END)


def pictures() -> list[Picture]:
    """All of them."""
    good = encode(picture(), "PNG")
    ihdr, idat = header(8, 8), pixels(8, 8)
    packed = idat[1]
    million = b"keyword\0\0" + _deflated(bytes(1_000_000), 50)
    frame = (b"fdAT", struct.pack(">I", 2) + packed)
    cases: list[tuple[str, bytes, Expected]] = [
        ("1x1", png_of_zeros(1, 1), "answer"),
        ("65535-wide", png_of_zeros(65535, 1), "answer"),
        ("65535-high", png_of_zeros(1, 65535), "answer"),
        ("million-wide", png_of_zeros(1_000_000, 1, 1, GREY), "answer"),
        ("million-high", png_of_zeros(1, 1_000_000, 1, GREY), "answer"),
        ("grey-16", png_of_zeros(9, 9, 16, GREY), "answer"),
        (
            "bomb-50000x50000",
            png(header(50_000, 50_000, 1, GREY), (b"IDAT", zlib.compress(bytes(1_000_000))), _END),
            "error",
        ),
        (
            "bomb-10000x10000",
            png(header(10_000, 10_000, 1, GREY), (b"IDAT", zlib.compress(bytes(1_000_000))), _END),
            "error",
        ),
        ("size-0", png(header(0, 0), idat, _END), "error"),
        ("size-2-to-31", png(header(2**31 - 1, 2**31 - 1), idat, _END), "error"),
        ("size-2-to-32", png(header(2**32 - 1, 2**32 - 1), idat, _END), "error"),
        ("wide-2-to-31", png(header(2**31 - 1, 1), idat, _END), "error"),
        ("size-larger-than-data", png(header(2000, 2000), idat, _END), "error"),
        ("depth-3", png(header(8, 8, 3), idat, _END), "error"),
        ("depth-0", png(header(8, 8, 0), idat, _END), "error"),
        ("colour-5", png(header(8, 8, 8, 5), idat, _END), "error"),
        ("compression-1", png(header(8, 8, rest=b"\1\0"), idat, _END), "either"),
        ("filter-method-1", png(header(8, 8, rest=b"\0\1"), idat, _END), "error"),
        ("interlace-7", png(header(8, 8, interlaced=7), idat, _END), "either"),
        ("row-filter-9", png(ihdr, pixels(8, 8, filter_=9), _END), "error"),
        ("header-missing", png(idat, _END), "error"),
        ("header-short", png((b"IHDR", b"\0\0\0\1"), idat, _END), "error"),
        ("header-twice-larger", png(ihdr, header(60_000, 60_000), idat, _END), "error"),
        ("header-behind-pixels", png(ihdr, idat, header(60_000, 60_000), _END), "either"),
        ("header-crc", patched(good, 29, b"\0\0\0\0"), "error"),
        ("pixels-crc", patched(png(ihdr, idat, _END), -16, b"\0\0\0\0"), "either"),
        ("pixels-missing", png(ihdr, _END), "error"),
        ("pixels-empty", png(ihdr, (b"IDAT", b""), _END), "error"),
        ("pixels-garbage", png(ihdr, (b"IDAT", noise(300)), _END), "error"),
        ("pixels-garbage-behind", png(ihdr, (b"IDAT", packed + noise(300)), _END), "either"),
        ("pixels-end-early", png(ihdr, (b"IDAT", zlib.compress(bytes(50))), _END), "either"),
        ("pixels-without-end", png(ihdr, (b"IDAT", _deflated(bytes(1_000_000), 100)), _END), "either"),
        ("pixels-with-dictionary", png(ihdr, (b"IDAT", b"\x78\xbb\0\0\0\1" + packed[2:]), _END), "error"),
        ("pixels-window-lies", png(ihdr, (b"IDAT", b"\xf8\x87" + packed[2:]), _END), "either"),
        ("pixels-byte-by-byte", png(ihdr, *((b"IDAT", bytes([byte])) for byte in packed), _END), "answer"),
        ("end-missing", png(ihdr, idat), "answer"),
        ("chunk-of-4-gigabytes", png(ihdr) + b"\xff\xff\xff\xfftEXt" + noise(50), "error"),
        ("chunk-of-2-gigabytes", png(ihdr) + b"\x7f\xff\xff\xffIDAT" + packed, "either"),
        ("chunk-name-not-letters", png(ihdr, (b"\0\1\2\3", b""), idat, _END), "error"),
        ("chunk-unknown-critical", png(ihdr, (b"ABCD", b""), idat, _END), "either"),
        ("chunk-of-an-iphone", png((b"CgBI", b"\x50\0\x20\2"), ihdr, (b"IDAT", packed[2:]), _END), "error"),
        ("palette-missing", png(header(8, 8, 8, PALETTE), pixels(8, 8, 8, PALETTE), _END), "either"),
        (
            "palette-of-1000",
            png(header(8, 8, 8, PALETTE), (b"PLTE", bytes(3000)), pixels(8, 8, 8, PALETTE), _END),
            "either",
        ),
        (
            "palette-of-2-bytes",
            png(header(8, 8, 8, PALETTE), (b"PLTE", b"ab"), pixels(8, 8, 8, PALETTE), _END),
            "either",
        ),
        (
            "palette-too-small",
            png(header(8, 8, 8, PALETTE), (b"PLTE", b"abc"), (b"IDAT", zlib.compress((b"\0" + b"\xff" * 8) * 8)), _END),
            "either",
        ),
        (
            "transparency-longer-than-palette",
            png(header(8, 8, 8, PALETTE), (b"PLTE", b"abc"), (b"tRNS", bytes(600)), pixels(8, 8, 8, PALETTE), _END),
            "either",
        ),
        ("transparency-cut", png(ihdr, (b"tRNS", b"\0"), idat, _END), "either"),
        ("transparency-of-16-bits", png(header(8, 8, 16), (b"tRNS", b"\xff" * 6), pixels(8, 8, 16), _END), "answer"),
        (
            "transparency-twice",
            png(header(8, 8, 8, RGBA), (b"tRNS", bytes(6)), pixels(8, 8, 8, RGBA), _END),
            "either",
        ),
        ("text-bomb", png(ihdr, (b"zTXt", million), idat, _END), "either"),
        (
            "text-bomb-100-times",
            png(ihdr, *[(b"zTXt", b"k\0\0" + _deflated(bytes(1_000_000), 1))] * 100, idat, _END),
            "error",
        ),
        (
            "international-text-bomb",
            png(ihdr, (b"iTXt", b"k\0\1\0\0\0" + _deflated(bytes(1_000_000), 50)), idat, _END),
            "either",
        ),
        ("international-text-cut", png(ihdr, (b"iTXt", b"k\0\1"), idat, _END), "either"),
        ("text-not-compressed", png(ihdr, (b"zTXt", b"k\0\0garbage"), idat, _END), "either"),
        ("text-compression-9", png(ihdr, (b"zTXt", b"k\0\x09garbage"), idat, _END), "either"),
        ("20000-texts", png(ihdr, *[(b"tEXt", b"k\0v")] * 20_000, idat, _END), "answer"),
        ("text-behind-pixels-bomb", png(ihdr, idat, (b"zTXt", million), _END), "either"),
        ("profile-bomb", png(ihdr, (b"iCCP", million), idat, _END), "either"),
        ("profile-garbage", png(ihdr, (b"iCCP", b"k\0\0" + zlib.compress(noise(400))), idat, _END), "answer"),
        ("profile-not-compressed", png(ihdr, (b"iCCP", b"k\0\0" + noise(400)), idat, _END), "either"),
        ("profile-without-name", png(ihdr, (b"iCCP", b""), idat, _END), "either"),
        ("gamma-0", png(ihdr, (b"gAMA", bytes(4)), idat, _END), "answer"),
        ("gamma-cut", png(ihdr, (b"gAMA", b"\0"), idat, _END), "either"),
        ("chromaticity-cut", png(ihdr, (b"cHRM", b"\0\0\0"), idat, _END), "either"),
        ("resolution-0", png(ihdr, (b"pHYs", bytes(8) + b"\1"), idat, _END), "answer"),
        ("resolution-cut", png(ihdr, (b"pHYs", b"\0"), idat, _END), "either"),
        ("sixteen-bits-cut", png(header(8, 8, 16, GREY), pixels(8, 8, 8, GREY), _END), "error"),
        ("animated", _animated(2, _control(0, 8, 8), idat, _control(1, 8, 8), frame), "answer"),
        ("animated-0-frames", _animated(0, idat), "either"),
        ("animated-2-to-31-frames", _animated(2**31 - 1, _control(0, 8, 8), idat), "either"),
        ("animated-frame-outside", _animated(2, _control(0, 8, 8, 2**31, 2**31), idat), "either"),
        ("animated-frame-60000x60000", _animated(2, _control(0, 60_000, 60_000), idat), "either"),
        ("animated-frame-smaller", _animated(2, _control(0, 1, 1), idat), "either"),
        ("animated-frame-cut", _animated(2, (b"fcTL", b"\0" * 8), idat), "either"),
        ("animated-out-of-order", _animated(2, _control(7, 8, 8), idat, _control(3, 8, 8), frame), "either"),
        ("animated-without-control", _animated(2, idat, frame), "either"),
        ("animated-control-cut", png(ihdr, (b"acTL", b"\0"), idat, _END), "either"),
        ("animated-control-twice", _animated(2, (b"acTL", bytes(8)), idat), "either"),
        (
            "animated-second-60000x60000",
            _animated(2, _control(0, 8, 8), idat, _control(1, 60_000, 60_000), frame),
            "either",
        ),
    ]
    cases += [
        (f"interlaced-{depth}-bits-of-colour-{colour}", interlaced(11, 7, depth, colour), "answer")
        for depth, colour in ((1, GREY), (8, RGB), (16, GREY), (16, RGB), (16, GREY_ALPHA), (16, RGBA))
    ]
    cases += [
        (f"exif-{name}", png(ihdr, (b"eXIf", data), idat, _END), "answer") for name, data in broken_exif().items()
    ]
    return [
        *truncated("png", good),
        *(Picture(f"png-{name}", data, expected) for name, data, expected in cases),
    ]
