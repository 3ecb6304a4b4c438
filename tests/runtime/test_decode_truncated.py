"""`allow_truncated`: what there is of a file whose end is missing."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from mlic_runtime import Predictor
from mlic_runtime.errors import ImageError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image, read_pixels

Encode = Callable[..., bytes]
Pixels = npt.NDArray[np.uint8]

# (format of Pillow, options, how far the first quarter may be off, the colour of what is missing)
FORMATS = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}, 30, 128),
    "PNG": ("PNG", {}, 0, 0),
    "GIF": ("GIF", {"interlace": 0}, 0, None),  # the first colour of the palette
    "BMP": ("BMP", {}, 0, 0),
    "TIFF": ("TIFF", {}, 0, 0),
}


@pytest.fixture
def picture(noise: Image.Image) -> Image.Image:
    """64x64, no two rows of which are alike, and none of them is black."""
    return noise.point(lambda level: max(level, 8)).quantize(64).convert("RGB")


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_there_of_a_truncated_file_is_read(encode: Encode, picture: Image.Image, name: str) -> None:
    format_, options, tolerance, missing = FORMATS[name]
    whole = encode(picture, format_, **options)
    half = whole[: len(whole) // 2]
    with pytest.raises(ImageError):
        load_image(half)
    found = np.asarray(load_image(half, allow_truncated=True)).astype(int)
    difference = np.abs(found - np.asarray(load_image(whole)))
    there, gone = (slice(48, 64), slice(0, 8)) if format_ == "BMP" else (slice(0, 16), slice(56, 64))
    assert difference[there].max() <= tolerance, "a BMP begins at the bottom"
    assert difference[gone].mean() > 20
    if missing is not None:
        assert (found[gone] == missing).all()


def test_missing_pixels_of_a_picture_with_transparency_are_white(encode: Encode, picture: Image.Image) -> None:
    whole = encode(picture.convert("RGBA"), "PNG")
    found = np.asarray(load_image(whole[: len(whole) // 2], allow_truncated=True))
    assert (found[:16] == np.asarray(picture)[:16]).all()
    assert (found[56:] == 255).all()


def test_a_progressive_jpeg_is_read_as_far_as_its_scans_go(encode: Encode, noise: Image.Image) -> None:
    smooth = noise.resize((4, 4)).resize((256, 256))
    whole = encode(smooth, "JPEG", quality=95, progressive=True)
    start = whole.index(b"\xff\xda")
    original = np.asarray(smooth).astype(int)
    for length in range(start + 400, len(whole), 23):  # also within the tables between two scans
        found = np.asarray(load_image(whole[:length], allow_truncated=True)).astype(int)
        assert np.abs(found - original).mean() < 10


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_read_as_without_the_option(encode: Encode, picture: Image.Image, name: str) -> None:
    format_, options, _, _ = FORMATS[name]
    data = encode(picture, format_, **options)
    assert (np.asarray(load_image(data, allow_truncated=True)) == np.asarray(load_image(data))).all()


def test_a_truncated_file_is_read_from_every_kind_of_source(
    encode: Encode, picture: Image.Image, tmp_path: Path
) -> None:
    spec = ImageSpec(height=6, width=8)
    for format_ in ("JPEG", "PNG"):
        data = encode(picture, format_)
        half = data[: len(data) // 2]
        path = tmp_path / "half"
        path.write_bytes(half)
        expected = read_pixels(half, spec, allow_truncated=True)
        assert expected.any()
        for source in (path, str(path), BytesIO(half)):
            assert (read_pixels(source, spec, allow_truncated=True) == expected).all()


@pytest.mark.parametrize("name", [*FORMATS, "WEBP"])
def test_a_file_without_any_pixels_is_refused_all_the_same(encode: Encode, picture: Image.Image, name: str) -> None:
    format_, options, _, _ = FORMATS.get(name, ("WEBP", {}, 0, 0))
    data = encode(picture, format_, **options)
    for length in (0, 1, 3, 20):
        with pytest.raises(ImageError):
            load_image(data[:length], allow_truncated=True)


def test_where_nothing_could_be_decoded_the_file_is_refused(encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "PNG")
    with pytest.raises(ImageError, match="truncated"):
        load_image(data[: data.index(b"IDAT") + 8], allow_truncated=True)


def test_a_webp_is_read_whole_or_not_at_all(encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "WEBP")
    with pytest.raises(ImageError):
        load_image(data[: len(data) // 2], allow_truncated=True)


def test_the_limit_for_pixels_holds_all_the_same(encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "JPEG")
    with pytest.raises(ImageError, match="64 x 64 pixels are more than the limit of 4095"):
        load_image(data[: len(data) // 2], max_pixels=64 * 64 - 1, allow_truncated=True)


def test_a_picture_of_the_caller_is_not_changed(encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "PNG")
    with Image.open(BytesIO(data[: len(data) // 2])) as image:
        for _ in range(2):
            with pytest.raises(ImageError, match="truncated"):
                load_image(image, allow_truncated=True)


def test_the_setting_of_the_whole_process_is_left_alone(encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "JPEG")
    load_image(data[: len(data) // 2], allow_truncated=True)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    with pytest.raises(ImageError, match="truncated"):
        load_image(data[: len(data) // 2])


def test_a_predictor_takes_truncated_files_where_it_is_told_to(
    encode: Encode, picture: Image.Image, tiny: Path
) -> None:
    half = encode(picture, "PNG")
    half = half[: len(half) // 2]
    with pytest.raises(ImageError):
        Predictor.load(tiny).predict(half)
    assert Predictor.load(tiny, allow_truncated=True).predict(half).probabilities
