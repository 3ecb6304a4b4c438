"""What a file holds, in every format and mode, against the upright RGB original."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlic_runtime.picture.decode import load_image

Encode = Callable[..., bytes]
Pixels = npt.NDArray[np.uint8]

# The mean and the largest difference from the original, in levels of 255. Lossy WebP halves the resolution of colour.
EXACT = (0.0, 0)
JPEG = (2.0, 40)
WEBP = (6.0, 170)

# What was done to an upright picture by a camera that then wrote this EXIF orientation.
TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# The best that each format can do: (format of Pillow, options, what may differ).
BEST: dict[str, tuple[str, dict[str, Any], tuple[float, int]]] = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}, JPEG),
    "JPEG progressive": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, JPEG),
    "PNG": ("PNG", {}, EXACT),
    "WebP": ("WEBP", {"lossless": True, "exact": True}, EXACT),
    "WebP lossy": ("WEBP", {"quality": 95}, WEBP),
    "GIF": ("GIF", {}, EXACT),
    "BMP": ("BMP", {}, EXACT),
    "TIFF": ("TIFF", {}, EXACT),
    "TIFF LZW": ("TIFF", {"compression": "tiff_lzw"}, EXACT),
    "TIFF deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}, EXACT),
    "TIFF LZMA": ("TIFF", {"compression": "lzma"}, EXACT),
    "TIFF group 4": ("TIFF", {"compression": "group4"}, EXACT),
}


@pytest.fixture
def greys() -> Pixels:
    """uint8 (24, 40, 3): a ramp of 240 levels, none of which a neighbour shares."""
    levels = (np.arange(24 * 40) % 240).astype(np.uint8).reshape(24, 40, 1)
    return np.repeat(levels, 3, axis=2)


@pytest.fixture
def black_white() -> Pixels:
    """uint8 (24, 40, 3): black on white, different in every corner."""
    pixels = np.full((24, 40, 3), 255, dtype=np.uint8)
    pixels[:6, :20] = pixels[9:20, 3:9] = pixels[5, 21:37] = 0
    return pixels


def check(data: bytes, original: Pixels, tolerance: tuple[float, int] = EXACT) -> None:
    """That a file shows the upright RGB original."""
    image = load_image(data)
    assert (image.mode, image.size) == ("RGB", (original.shape[1], original.shape[0]))
    difference = np.abs(np.asarray(image).astype(int) - original)
    assert difference.mean() <= tolerance[0]
    assert difference.max() <= tolerance[1]


@pytest.mark.parametrize("name", [name for name in BEST if name != "TIFF group 4"])
def test_rgb(encode: Encode, colours: Pixels, name: str) -> None:
    format_, options, tolerance = BEST[name]
    check(encode(Image.fromarray(colours), format_, **options), colours, tolerance)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "TIFF LZW"])
def test_grey_levels(encode: Encode, greys: Pixels, name: str) -> None:
    format_, options, tolerance = BEST[name]
    check(encode(Image.fromarray(greys[..., 0]), format_, **options), greys, tolerance)


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TIFF", "TIFF group 4"])
def test_one_bit(encode: Encode, black_white: Pixels, name: str) -> None:
    format_, options, tolerance = BEST[name]
    check(encode(Image.fromarray(black_white[..., 0] > 0), format_, **options), black_white, tolerance)


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TIFF", "TIFF LZW"])
def test_palettes(encode: Encode, colours: Pixels, name: str) -> None:
    format_, options, tolerance = BEST[name]
    check(encode(Image.fromarray(colours).quantize(4), format_, **options), colours, tolerance)


@pytest.mark.parametrize("name", ["TIFF", "TIFF LZW"])
def test_cmyk(encode: Encode, colours: Pixels, name: str) -> None:
    format_, options, tolerance = BEST[name]
    check(encode(Image.fromarray(colours).convert("CMYK"), format_, **options), colours, tolerance)


def test_cmyk_in_a_jpeg_is_inverted_as_adobe_does_it(encode: Encode, colours: Pixels) -> None:
    format_, options, _ = BEST["JPEG"]
    data = encode(Image.fromarray(colours).convert("CMYK"), format_, **options)
    assert b"Adobe" in data
    check(data, colours, JPEG)


# --- sixteen bits


@pytest.mark.parametrize("name", ["PNG", "TIFF", "TIFF LZW"])
def test_sixteen_bits_of_grey(encode: Encode, greys: Pixels, name: str) -> None:
    format_, options, _ = BEST[name]
    wide = greys[..., 0].astype(np.uint16) * 257
    for noise in (-128, 0, 128):  # the nearest of 256 levels
        values = np.clip(wide.astype(int) + noise, 0, 65535).astype(np.uint16)
        check(encode(Image.fromarray(values), format_, **options), greys)


def test_sixteen_bits_of_grey_in_a_big_endian_tiff(encode: Encode, greys: Pixels) -> None:
    image = Image.frombytes("I;16B", (40, 24), (greys[..., 0].astype(">u2") * 257).tobytes())
    data = encode(image, "TIFF")
    assert data.startswith(b"MM")
    check(data, greys)


def png_of_sixteen_bits(values: npt.NDArray[np.uint16], transparent: "tuple[int, ...] | None" = None) -> bytes:
    """(H, W, C) as PNG, C from 1 to 4 (Pillow writes none but C = 1); `transparent`: a colour that is not seen."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if transparent is not None:
        chunks.append(chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def test_sixteen_bits_of_every_channel(colours: Pixels, greys: Pixels) -> None:
    check(png_of_sixteen_bits(greys[..., :1].astype(np.uint16) * 257), greys)
    check(png_of_sixteen_bits(colours.astype(np.uint16) * 257), colours)


def test_sixteen_bits_with_transparency(colours: Pixels, greys: Pixels) -> None:
    seen = np.ones((24, 40, 1), dtype=bool)
    seen[12:, 20:] = False
    alpha = np.where(seen, 65535, 0).astype(np.uint16)
    for original, channels in ((colours, 3), (greys, 1)):
        values = original[..., :channels].astype(np.uint16) * 257
        hidden = np.where(seen, original, 255).astype(np.uint8)
        check(png_of_sixteen_bits(np.concatenate([values, alpha], axis=2)), hidden)


def test_sixteen_bits_with_a_transparent_level(greys: Pixels) -> None:
    hidden = greys.copy()
    hidden[greys == 7] = 255
    check(png_of_sixteen_bits(greys[..., :1].astype(np.uint16) * 257, (7 * 257,)), hidden)


def test_an_image_in_mode_i_is_sixteen_bits_wide() -> None:
    image = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32))
    assert image.mode == "I"
    assert np.asarray(load_image(image))[0, :, 0].tolist() == [0, 1, 255]


# --- transparency: the original has white where nothing is


@pytest.fixture
def cut_out(colours: Pixels) -> Image.Image:
    """RGBA: as `colours`, whose last corner is white, with a black there that is not seen."""
    alpha = np.full((24, 40, 1), 255, dtype=np.uint8)
    alpha[12:, 20:] = 0
    return Image.fromarray(np.concatenate([np.where(alpha > 0, colours, 0).astype(np.uint8), alpha], axis=2))


@pytest.mark.parametrize("name", ["PNG", "WebP", "TIFF", "TIFF LZW", "GIF"])
def test_transparency_shows_white(encode: Encode, cut_out: Image.Image, colours: Pixels, name: str) -> None:
    format_, options, tolerance = BEST[name]
    check(encode(cut_out, format_, **options), colours, tolerance)


def test_transparency_in_memory_shows_white(cut_out: Image.Image, colours: Pixels) -> None:
    for image in (cut_out, cut_out.convert("RGBa")):
        assert (np.asarray(load_image(image)) == colours).all()


@pytest.mark.parametrize("name", ["PNG", "WebP", "TIFF"])
def test_half_transparency_is_mixed_with_white(encode: Encode, name: str) -> None:
    format_, options, _ = BEST[name]
    found = np.asarray(load_image(encode(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), format_, **options)))
    assert np.abs(found.astype(int) - (255, 127, 127)).max() <= 1


@pytest.mark.parametrize("name", ["PNG", "WebP"])
def test_transparency_of_grey_pictures_shows_white(encode: Encode, greys: Pixels, name: str) -> None:
    format_, options, _ = BEST[name]
    alpha = np.where(greys[..., 0] < 100, 0, 255).astype(np.uint8)
    image = Image.merge("LA", [Image.fromarray(greys[..., 0]), Image.fromarray(alpha)])
    check(encode(image, format_, **options), np.where(greys < 100, 255, greys).astype(np.uint8))


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_shows_white(encode: Encode, colours: Pixels, format_: str) -> None:
    image = Image.fromarray(colours).quantize(4)
    hidden = np.where(np.asarray(image)[..., np.newaxis] == 0, 255, colours).astype(np.uint8)
    check(encode(image, format_, transparency=0), hidden)


def test_alpha_for_each_colour_of_a_palette_shows_white(encode: Encode, colours: Pixels) -> None:
    image = Image.fromarray(colours).quantize(4)
    hidden = np.where(np.asarray(image)[..., np.newaxis] == 0, 255, colours).astype(np.uint8)
    check(encode(image, "PNG", transparency=bytes([0, 255, 255, 255])), hidden)


def test_a_transparent_colour_shows_white(encode: Encode, colours: Pixels, greys: Pixels, black_white: Pixels) -> None:
    without_red = colours.copy()
    without_red[:12, :20] = 255
    check(encode(Image.fromarray(colours), "PNG", transparency=(255, 0, 0)), without_red)
    without_seven = np.where(greys == 7, 255, greys).astype(np.uint8)
    check(encode(Image.fromarray(greys[..., 0]), "PNG", transparency=7), without_seven)
    check(encode(Image.fromarray(black_white[..., 0] > 0), "PNG", transparency=0), np.full_like(black_white, 255))


# --- frames


@pytest.mark.parametrize(
    ("format_", "options"), [("GIF", {}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("MPO", {})]
)
def test_of_several_frames_the_first_counts(
    encode: Encode, colours: Pixels, format_: str, options: dict[str, object]
) -> None:
    black = Image.new("RGB", (40, 24))
    quality = {"quality": 95, "subsampling": 0} if format_ == "MPO" else options
    data = encode(Image.fromarray(colours), format_, save_all=True, append_images=[black], **quality)
    check(data, colours, JPEG if format_ == "MPO" else EXACT)


# --- orientation


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "TIFF"])
def test_pictures_are_turned_upright(encode: Encode, colours: Pixels, orientation: int, name: str) -> None:
    format_, options, tolerance = BEST[name]
    turn = TURNED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(colours)
    data = encode(upright if turn is None else upright.transpose(turn), format_, exif=exif, **options)
    check(data, colours, tolerance)
    image = load_image(data)
    assert (np.asarray(load_image(image)) == np.asarray(image)).all(), "turned only once"


def test_orientation_and_transparency_go_together(encode: Encode, cut_out: Image.Image, colours: Pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    check(encode(cut_out.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif), colours)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_broken_metadata_does_not_cost_the_picture(encode: Encode, colours: Pixels, exif: bytes) -> None:
    check(encode(Image.fromarray(colours), "JPEG", exif=exif, quality=95, subsampling=0), colours, JPEG)


# --- colour spaces in memory


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX", "P", "RGBA"])
def test_other_colour_spaces_in_memory_are_converted(colours: Pixels, mode: str) -> None:
    found = np.asarray(load_image(Image.fromarray(colours).convert(mode)))
    assert np.abs(found.astype(int) - colours).mean() < 2
