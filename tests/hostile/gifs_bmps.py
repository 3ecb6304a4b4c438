"""Hostile GIF (89a) and BMP files."""

import struct

from PIL import Image

from .cases import Expected, Picture, encode, noise, patched, picture, truncated

_PALETTE = bytes(range(12))  # of four colours
_TRAILER = b";"
_GREYS = b"".join(bytes([level, level, level, 0]) for level in range(256))


def screen(width: int, height: int, *, flags: int = 0x81, palette: bytes = _PALETTE) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0) + palette


def frame(
    width: int, height: int, *, x: int = 0, y: int = 0, flags: int = 0, code: int = 2, data: bytes = b""
) -> bytes:
    """An image block; without `data` the LZW code of a few pixels."""
    data = data or b"\x84\x8f\xa9\xcb\xed\x0f"
    return b"," + struct.pack("<HHHHBB", x, y, width, height, flags, code) + bytes([len(data)]) + data + b"\0"


def control(disposal: int = 0, transparent: int | None = None) -> bytes:
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\4" + struct.pack("<BHB", flags, 1, transparent or 0) + b"\0"


def gifs() -> list[Picture]:
    """All of them."""
    good = encode(picture(), "GIF")
    several = encode(picture(), "GIF", save_all=True, append_images=[picture(30, 20), picture(8, 8)])
    lzw = good.rfind(b",") + 11
    cases: list[tuple[str, bytes, Expected]] = [
        ("animated", several, "answer"),
        ("1x1", encode(picture(1, 1), "GIF"), "answer"),
        ("65535-wide", encode(picture(65535, 1, "L"), "GIF"), "answer"),
        ("65535-high", encode(picture(1, 65535, "L"), "GIF"), "answer"),
        ("screen-65535x65535", screen(65535, 65535) + frame(1, 1) + _TRAILER, "error"),
        ("screen-10000x10000", screen(10_000, 10_000) + frame(1, 1) + _TRAILER, "error"),
        ("screen-0", screen(0, 0) + frame(0, 0) + _TRAILER, "error"),
        ("frame-65535x65535", screen(1, 1) + frame(65535, 65535) + _TRAILER, "error"),
        ("frame-at-65535", screen(1, 1) + frame(1, 1, x=65535, y=65535) + _TRAILER, "error"),
        ("frame-9000x9999-at-9000", screen(1, 1) + frame(9000, 9999, x=9000) + _TRAILER, "error"),
        ("frame-larger-than-screen", screen(4, 4) + frame(40, 40) + _TRAILER, "either"),
        ("frame-0", screen(8, 8) + frame(0, 0) + _TRAILER, "either"),
        ("frame-outside", screen(8, 8) + frame(4, 4, x=100, y=100) + _TRAILER, "either"),
        ("second-65535x65535", good[:-1] + frame(65535, 65535) + _TRAILER, "answer"),
        ("second-disposed-65535x65535", good[:-1] + control(2) + frame(65535, 65535) + _TRAILER, "answer"),
        ("disposed-9000x9000", screen(1, 1) + control(2, 1) + frame(9000, 9000) + _TRAILER, "either"),
        ("disposed-60000x60000", screen(1, 1) + control(3, 1) + frame(60_000, 60_000) + _TRAILER, "error"),
        ("no-frame", screen(8, 8) + _TRAILER, "error"),
        ("no-trailer", good[:-1], "answer"),
        ("no-palette", screen(8, 8, flags=0, palette=b"") + frame(8, 8) + _TRAILER, "either"),
        ("palette-cut", screen(8, 8, flags=0x87), "error"),
        ("transparent-255", screen(2, 2) + control(0, 255) + frame(2, 2) + _TRAILER, "either"),
        ("interlaced-garbage", screen(40, 40) + frame(40, 40, flags=0x40, data=noise(200)) + _TRAILER, "either"),
        ("code-size-0", patched(good, lzw - 1, b"\0"), "either"),
        ("code-size-12", patched(good, lzw - 1, b"\x0c"), "either"),
        ("code-size-13", patched(good, lzw - 1, b"\x0d"), "either"),
        ("code-size-255", patched(good, lzw - 1, b"\xff"), "either"),
        ("codes-garbage", screen(200, 200) + frame(200, 200, code=8, data=noise(255)) + _TRAILER, "either"),
        ("codes-all-clear", screen(200, 200) + frame(200, 200, code=7, data=b"\x80" * 255) + _TRAILER, "either"),
        ("codes-end-early", screen(200, 200) + frame(200, 200, data=b"\x2c\x05") + _TRAILER, "either"),
        ("blocks-lie", patched(good, lzw, b"\xff\xff\xff"), "either"),
        ("blocks-empty", screen(8, 8) + b"," + struct.pack("<HHHHBB", 0, 0, 8, 8, 0, 2) + b"\0" + _TRAILER, "error"),
        ("5000-frames", good[:-1] + (control() + frame(2, 2)) * 5000 + _TRAILER, "answer"),
        (
            "megabyte-of-comment",
            good[:-1][: len(screen(1, 1)) - 12 + 768]
            + b"!\xfe"
            + (b"\xff" + b"x" * 255) * 4000
            + b"\0"
            + good[len(screen(1, 1)) - 12 + 768 :],
            "answer",
        ),
        ("extension-unknown", screen(8, 8) + b"!\x99\x02ab\0" + frame(8, 8) + _TRAILER, "either"),
        ("extension-without-end", screen(8, 8) + b"!\xfe" + b"\xff" * 600, "error"),
        ("extension-control-cut", screen(8, 8) + b"!\xf9\1\0\0" + frame(8, 8) + _TRAILER, "either"),
        ("loop-cut", screen(8, 8) + b"!\xff\x0bNETSCAPE2.0\x01\1\0" + frame(8, 8) + _TRAILER, "either"),
        ("junk-between-blocks", screen(8, 8) + b"\0" * 10_000 + frame(8, 8) + _TRAILER, "either"),
        ("header-alone", b"GIF89a", "error"),
        ("version-99", b"GIF99a" + good[6:], "error"),
    ]
    return [*truncated("gif", good), *(Picture(f"gif-{name}", data, expected) for name, data, expected in cases)]


def bmp(
    width: int,
    height: int,
    data: bytes,
    *,
    bits: int = 24,
    compression: int = 0,
    colours: int = 0,
    palette: bytes = b"",
    header: int = 40,
    offset: int | None = None,
) -> bytes:
    """A file header and a BITMAPINFOHEADER, any of whose fields may lie."""
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    start = 14 + len(info) + len(palette) if offset is None else offset
    return struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(palette) + len(data), 0, 0, start) + info + palette + data


def rle(width: int, height: int, data: bytes, *, bits: int = 8) -> bytes:
    """A BMP of runs: a count and a value; or 0 and 0 for the end of the row, 1 of the picture, 2 for a jump."""
    return bmp(width, height, data, bits=bits, compression=2 if bits == 4 else 1, palette=_GREYS)


def bmps() -> list[Picture]:
    """All of them."""
    good = encode(picture(), "BMP")
    rows = bytes(3 * 8 * 8)

    cases: list[tuple[str, bytes, Expected]] = [
        ("1x1", encode(picture(1, 1), "BMP"), "answer"),
        ("65535-wide", encode(picture(65535, 1, "L"), "BMP"), "answer"),
        ("65535-high", encode(picture(1, 65535, "L"), "BMP"), "answer"),
        ("top-down", bmp(8, -8, rows), "answer"),
        ("width-negative", bmp(-8, 8, rows), "error"),
        ("width-0", bmp(0, 8, rows), "error"),
        ("height-0", bmp(8, 0, rows), "error"),
        ("height-minus-2-to-31", bmp(8, -(2**31), rows), "error"),
        ("size-2-to-31", bmp(2**31 - 1, 2**31 - 1, rows), "error"),
        ("size-65535x65535", bmp(65535, 65535, rows), "error"),
        ("size-larger-than-data", bmp(2000, 2000, rows), "error"),
        ("header-0", bmp(8, 8, rows, header=0), "error"),
        ("header-12", bmp(8, 8, rows, header=12), "either"),
        ("header-13", bmp(8, 8, rows, header=13), "error"),
        ("header-124", bmp(8, 8, rows, header=124), "either"),
        ("header-a-billion", bmp(8, 8, rows, header=1_000_000_000), "error"),
        ("offset-0", bmp(8, 8, rows, offset=0), "either"),
        ("offset-beyond", bmp(8, 8, rows, offset=2**32 - 1), "error"),
        ("bits-0", bmp(8, 8, rows, bits=0), "error"),
        ("bits-3", bmp(8, 8, rows, bits=3), "error"),
        ("bits-64", bmp(8, 8, rows, bits=64), "error"),
        ("bits-65535", bmp(8, 8, rows, bits=65535), "error"),
        ("compression-2", bmp(8, 8, rows, compression=2), "either"),
        ("compression-jpeg", bmp(8, 8, rows, compression=4), "error"),
        ("compression-png", bmp(8, 8, rows, compression=5), "error"),
        ("compression-99", bmp(8, 8, rows, compression=99), "error"),
        ("masks-cut", bmp(8, 8, b"", bits=32, compression=3), "error"),
        ("masks-of-0", bmp(8, 8, bytes(300), bits=32, compression=3, palette=bytes(12)), "either"),
        ("masks-overlap", bmp(8, 8, bytes(300), bits=16, compression=3, palette=b"\xff\xff\0\0" * 3), "error"),
        ("palette-2-to-31", bmp(8, 8, rows, bits=8, colours=2**31), "error"),
        ("palette-of-65537", bmp(8, 8, rows, bits=8, colours=65537, palette=_GREYS), "error"),
        ("palette-cut", bmp(8, 8, b"", bits=8, colours=256), "error"),
        ("palette-of-1", bmp(8, 8, b"\xff" * 64, bits=8, colours=1, palette=bytes(4)), "either"),
        ("runs", rle(8, 2, b"\x08\x07\0\0\x08\x09\0\1"), "answer"),
        ("runs-beyond-the-row", rle(8, 2, b"\xff\x07" * 50 + b"\0\1"), "either"),
        ("runs-beyond-the-picture", rle(8, 2, b"\x08\x07\0\0" * 50 + b"\0\1"), "either"),
        ("runs-end-early", rle(800, 800, b"\x08\x07\0\1"), "either"),
        ("runs-without-end", rle(8, 2, b"\x08\x07"), "either"),
        ("runs-literal-cut", rle(8, 8, b"\0\xff\1\2\3"), "either"),
        ("runs-jump-outside", rle(8, 8, b"\0\2\xff\xff\x08\x07\0\1"), "either"),
        ("runs-million-jumps-nowhere", rle(800, 800, b"\0\2\0\0" * 250_000), "either"),
        ("runs-of-nothing", rle(800, 800, b"\0\0" * 500_000), "either"),
        ("runs-filled-by-the-decoder", rle(9400, 9400, b"\1\x07\0\0" * 9400), "error"),
        ("runs-4000x4000", rle(4000, 4000, b"\1\x07\0\0" * 4000, bits=4), "error"),
        ("runs-of-4-bits", rle(8, 2, b"\x08\x79\0\0\x08\x9a\0\1", bits=4), "answer"),
        ("runs-of-4-bits-odd", rle(7, 3, b"\0\x07\x12\x34\x56\x78\0\0\x09\x12", bits=4), "either"),
        ("header-alone", b"BM", "error"),
        ("named-os2", b"BA" + good[2:], "error"),
    ]
    return [
        *truncated("bmp", good),
        *(Picture(f"bmp-{name}", data, expected) for name, data, expected in cases),
        Picture("bmp-second-format-inside", bmp(8, 8, encode(Image.new("RGB", (8, 8)), "PNG"), compression=5), "error"),
    ]
