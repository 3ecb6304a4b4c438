from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlic_runtime.errors import ImageError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image, read_pixels, to_pixels

Encode = Callable[..., bytes]
Pixels = npt.NDArray[np.uint8]

SPEC = ImageSpec(height=6, width=8)


@pytest.fixture
def picture(colours: Pixels) -> Image.Image:
    return Image.fromarray(colours)


def pixels_of(image: Image.Image) -> Pixels:
    assert image.mode == "RGB"
    return np.asarray(image)


# --- sources


def test_every_kind_of_source_gives_the_same_picture(picture: Image.Image, colours: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture.save(path)
    with path.open("rb") as stream:
        for source in (path, str(path), path.read_bytes(), stream, BytesIO(path.read_bytes()), picture, colours):
            assert (pixels_of(load_image(source)) == colours).all()


def test_an_array_is_not_copied_into_the_result_by_reference(colours: Pixels) -> None:
    image = load_image(colours)
    colours[:] = 0
    assert pixels_of(image).any()


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_image_of_the_caller_stays_as_it_is(
    encode: Encode, picture: Image.Image, colours: Pixels, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(BytesIO(encode(picture, "PNG", exif=exif, pnginfo=_note()))) as image:
        loaded = load_image(image)
        read_pixels(image, SPEC)
        assert image.info["note"] == "mine"
        assert image.getexif()[0x0112] == orientation
        loaded.paste("black", (0, 0, *loaded.size))
        assert (np.asarray(image) == colours).all()


def test_what_is_loaded_is_a_plain_image_without_metadata(encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "PNG", pnginfo=_note())
    for source in (data, Image.open(BytesIO(data)), np.asarray(picture)):
        image = load_image(source)
        assert type(image) is Image.Image
        assert image.info == {}


def _note() -> PngInfo:
    info = PngInfo()
    info.add_text("note", "mine")
    return info


# --- reduced decoding


def test_a_jpeg_is_decoded_at_a_reduced_size_that_all_but_covers_the_target(encode: Encode, noise: Image.Image) -> None:
    large = noise.resize((1000, 600))
    data = encode(large, "JPEG")
    assert load_image(data, spec=ImageSpec(height=150, width=200)).size == (250, 150)
    assert load_image(data, spec=ImageSpec(height=160, width=200)).size == (250, 150), "15/16 is enough"
    assert load_image(data, spec=ImageSpec(height=161, width=200)).size == (500, 300)
    assert load_image(data, spec=ImageSpec(height=2000, width=2000)).size == (1000, 600)
    assert load_image(data).size == (1000, 600)


@pytest.mark.parametrize("orientation", [6, 8])
def test_the_reduced_size_minds_a_quarter_turn(encode: Encode, picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.resize((640, 320)).transpose(Image.Transpose.ROTATE_90)
    image = load_image(encode(stored, "JPEG", exif=exif), spec=ImageSpec(height=32, width=64))
    assert image.size == (80, 40)


def test_reduced_decoding_changes_little(encode: Encode, picture: Image.Image) -> None:
    large = picture.resize((800, 480), Image.Resampling.BICUBIC)
    data = encode(large, "JPEG", quality=95, subsampling=0)
    exact = to_pixels(load_image(data), SPEC).astype(int)
    assert np.abs(read_pixels(data, SPEC) - exact).mean() < 2


# --- resizing


def test_a_picture_of_the_target_size_passes_through() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for resize in ("stretch", "crop"):
        for interpolation in ("bilinear", "bicubic"):
            assert (read_pixels(pixels, ImageSpec(6, 8, interpolation, resize)) == pixels).all()


def test_stretch_uses_the_whole_picture(colours: Pixels) -> None:
    found = read_pixels(colours, ImageSpec(height=2, width=2))
    assert found.shape == (2, 2, 3)
    assert np.abs(found.astype(int) - colours[[[6, 6], [18, 18]], [[10, 30], [10, 30]]]).max() < 64


def test_crop_cuts_the_centre_out() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    assert (read_pixels(wide, ImageSpec(10, 10, "bilinear", "crop")) == 255).all()
    assert (read_pixels(wide.transpose(1, 0, 2), ImageSpec(5, 5, "bilinear", "crop"))[1:-1] == 255).all()


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (3, 7, 3)])
def test_every_shape_gives_the_target_shape(shape: tuple[int, int, int], resize: str) -> None:
    found = read_pixels(np.full(shape, 7, dtype=np.uint8), ImageSpec(6, 8, "bicubic", resize))
    assert found.shape == (6, 8, 3)
    assert found.dtype == np.uint8
    assert (found == 7).all()


def test_downscaling_averages() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = read_pixels(stripes, ImageSpec(8, 8))
    assert np.abs(found.astype(int) - 127).max() <= 4


def test_the_result_can_go_into_a_row_of_a_batch(colours: Pixels) -> None:
    batch = np.zeros((2, 6, 8, 3), dtype=np.uint8)
    row = batch[1]
    assert read_pixels(colours, SPEC, row) is row
    assert (batch[1] == read_pixels(colours, SPEC)).all()
    assert not batch[0].any()
    with pytest.raises(ValueError, match="out must be uint8"):
        to_pixels(load_image(colours), SPEC, np.zeros((8, 6, 3), dtype=np.uint8))


def test_to_pixels_needs_rgb() -> None:
    with pytest.raises(ImageError, match="found mode 'L': use load_image"):
        to_pixels(Image.new("L", (4, 4)), SPEC)
