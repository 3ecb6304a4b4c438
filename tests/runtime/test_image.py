import contextlib
import os
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlic_runtime.errors import ImageError
from mlic_runtime.image import FORMATS, load_image, read_pixels, to_pixels
from mlic_runtime.manifest import ImageSpec

Pixels = npt.NDArray[np.uint8]

SPEC = ImageSpec(height=6, width=8)
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


@pytest.fixture
def colours() -> Pixels:
    """uint8 (24, 40, 3): four corners of different colours, so that every turn shows."""
    pixels = np.zeros((24, 40, 3), dtype=np.uint8)
    pixels[:12, :20] = (255, 0, 0)
    pixels[:12, 20:] = (0, 255, 0)
    pixels[12:, :20] = (0, 0, 255)
    pixels[12:, 20:] = (255, 255, 255)
    return pixels


@pytest.fixture
def picture(colours: Pixels) -> Image.Image:
    return Image.fromarray(colours)


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


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


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "lzma"}),
    ],
)
def test_lossless_formats_keep_every_pixel(
    picture: Image.Image, colours: Pixels, format_: str, options: dict[str, object]
) -> None:
    assert (pixels_of(load_image(encode(picture, format_, **options))) == colours).all()


def test_a_jpeg_is_close_to_the_original(picture: Image.Image, colours: Pixels) -> None:
    found = pixels_of(load_image(encode(picture, "JPEG", quality=95, subsampling=0)))
    assert np.abs(found.astype(int) - colours).mean() < 2


def test_of_several_frames_the_first_counts(picture: Image.Image, colours: Pixels) -> None:
    black = Image.new("RGB", picture.size)
    for format_ in ("GIF", "PNG", "TIFF"):
        data = encode(picture, format_, save_all=True, append_images=[black])
        assert (pixels_of(load_image(data)) == colours).all()


def test_an_array_is_not_copied_into_the_result_by_reference(colours: Pixels) -> None:
    image = load_image(colours)
    colours[:] = 0
    assert pixels_of(image).any()


def test_the_image_of_the_caller_stays_as_it_is(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(BytesIO(encode(picture, "PNG", exif=exif))) as image:
        load_image(image)
        assert image.size == picture.size
        assert image.getexif()[0x0112] == 6


# --- modes


def test_grey_levels_become_three_equal_channels() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = pixels_of(load_image(encode(Image.fromarray(ramp), "PNG")))
    assert (found == ramp[..., np.newaxis]).all()


def test_one_bit_becomes_black_and_white() -> None:
    bits = np.eye(16, dtype=bool)
    found = pixels_of(load_image(encode(Image.fromarray(bits), "PNG")))
    assert (found == np.where(bits, 255, 0)[..., np.newaxis]).all()


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(format_: str) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    found = pixels_of(load_image(encode(Image.fromarray(values), format_)))
    assert (found[..., 0] == np.arange(256).reshape(16, 16)).all()


def test_an_image_in_mode_i_is_sixteen_bits_wide() -> None:
    image = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32))
    assert image.mode == "I"
    assert pixels_of(load_image(image))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[-1, 0]], dtype=np.int32), "its pixels reach from -1 to 0"),
        (np.array([[0, 65536]], dtype=np.int32), "its pixels reach from 0 to 65536"),
        (np.array([[0.5]], dtype=np.float32), "floating-point numbers"),
    ],
)
def test_pixels_without_a_known_range_are_refused(values: npt.NDArray[np.generic], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(encode(Image.fromarray(values), "TIFF"))


def test_a_palette_is_looked_up(picture: Image.Image, colours: Pixels) -> None:
    assert (pixels_of(load_image(encode(picture.quantize(4), "PNG"))) == colours).all()


@pytest.mark.parametrize("format_", ["TIFF", "JPEG"])
def test_cmyk_is_converted(picture: Image.Image, colours: Pixels, format_: str) -> None:
    options: dict[str, object] = {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}
    found = pixels_of(load_image(encode(picture.convert("CMYK"), format_, **options)))
    assert np.abs(found.astype(int) - colours).mean() < 3


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_other_colour_spaces_in_memory_are_converted(picture: Image.Image, colours: Pixels, mode: str) -> None:
    assert np.abs(pixels_of(load_image(picture.convert(mode))).astype(int) - colours).mean() < 2


@pytest.mark.parametrize(("alpha", "expected"), [(255, (255, 0, 0)), (0, (255, 255, 255)), (128, (255, 127, 127))])
def test_transparency_shows_white(alpha: int, expected: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, alpha))
    for source in (
        image,
        encode(image, "PNG"),
        encode(image, "WEBP", lossless=True, exact=True),
        encode(image, "TIFF"),
    ):
        assert np.abs(pixels_of(load_image(source)).astype(int) - expected).max() <= 1


def test_transparency_of_grey_pictures_shows_white() -> None:
    found = pixels_of(load_image(encode(Image.merge("LA", [Image.new("L", (2, 1)), Image.new("L", (2, 1), 0)]), "PNG")))
    assert (found == 255).all()


def test_transparency_of_palettes_shows_white(picture: Image.Image, colours: Pixels) -> None:
    image = picture.quantize(4)
    for transparency in (0, bytes([0, 255, 255, 255])):
        found = pixels_of(load_image(encode(image, "PNG", transparency=transparency)))
        hidden = np.asarray(image) == 0
        assert (found[hidden] == 255).all()
        assert (found[~hidden] == colours[~hidden]).all()


def test_a_transparent_colour_shows_white(picture: Image.Image, colours: Pixels) -> None:
    found = pixels_of(load_image(encode(picture, "PNG", transparency=(255, 0, 0))))
    expected = colours.copy()
    expected[:12, :20] = 255
    assert (found == expected).all()


# --- orientation


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_pictures_are_turned_upright(picture: Image.Image, colours: Pixels, orientation: int, format_: str) -> None:
    turn = TURNED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if format_ == "WEBP" else {"quality": 95, "subsampling": 0}
    stored = picture if turn is None else picture.transpose(turn)
    image = load_image(encode(stored, format_, exif=exif, **options))
    assert np.abs(pixels_of(image).astype(int) - colours).mean() < (2 if format_ == "JPEG" else 1e-9)
    assert (pixels_of(load_image(image)) == pixels_of(image)).all(), "turned only once"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_broken_metadata_does_not_cost_the_picture(picture: Image.Image, exif: bytes) -> None:
    assert load_image(encode(picture, "JPEG", exif=exif)).size == picture.size


# --- reduced decoding


def test_a_jpeg_is_decoded_at_a_reduced_size_that_covers_the_target(noise: Image.Image) -> None:
    large = noise.resize((1000, 600))
    data = encode(large, "JPEG")
    assert load_image(data, spec=ImageSpec(height=150, width=200)).size == (250, 150)
    assert load_image(data, spec=ImageSpec(height=151, width=200)).size == (500, 300)
    assert load_image(data, spec=ImageSpec(height=2000, width=2000)).size == (1000, 600)
    assert load_image(data).size == (1000, 600)


@pytest.mark.parametrize("orientation", [6, 8])
def test_the_reduced_size_minds_a_quarter_turn(picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.resize((640, 320)).transpose(Image.Transpose.ROTATE_90)
    image = load_image(encode(stored, "JPEG", exif=exif), spec=ImageSpec(height=32, width=64))
    assert image.size == (80, 40)


def test_reduced_decoding_changes_little(picture: Image.Image) -> None:
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


# --- refusals


def test_what_is_not_a_picture_file_is_named_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, cause in {
        "missing.jpg": "there is no such file",
        "empty.jpg": "it is empty",
        "text.jpg": "it is not a picture of a known format",
        "page.svg": "it is not a picture of a known format",
        "folder.jpg": "it is a directory",
        "pipe.jpg": "it is not a regular file",
        "empty.jpg/x.jpg": "Not a directory",
    }.items():
        with pytest.raises(ImageError, match=rf"^cannot read picture '{tmp_path}/{name}': {cause}"):
            load_image(tmp_path / name)


def test_a_device_is_refused() -> None:
    with pytest.raises(ImageError, match="'/dev/zero': it is not a regular file"):
        load_image("/dev/zero")


def test_a_picture_behind_a_symbolic_link_is_read(picture: Image.Image, colours: Pixels, tmp_path: Path) -> None:
    picture.save(tmp_path / "picture.png")
    (tmp_path / "link.png").symlink_to("picture.png")
    assert (pixels_of(load_image(tmp_path / "link.png")) == colours).all()


def test_a_file_without_permission_says_so(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    picture.save(tmp_path / "picture.png")
    monkeypatch.setattr(os, "open", refuse)  # a test may run as root, whom no file mode stops
    with pytest.raises(ImageError, match="Permission denied"):
        load_image(tmp_path / "picture.png")


@pytest.mark.parametrize("name", ["line\nbreak.jpg", "nul\0.jpg", "surrogate\udcff.jpg"])
def test_odd_names_stay_on_one_line(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_truncated_file_is_refused(noise: Image.Image, format_: str) -> None:
    data = encode(noise, format_)
    for length in (20, len(data) // 2):
        with pytest.raises(ImageError, match=r"^cannot read picture \(bytes\): ."):
            load_image(data[:length])


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_files_give_a_picture_or_an_image_error(noise: Image.Image, format_: str) -> None:
    data = encode(noise.resize((16, 16)), format_)
    dice = random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with contextlib.suppress(ImageError):
            assert load_image(bytes(damaged), spec=SPEC, max_pixels=10_000).mode == "RGB"


def test_formats_that_are_not_listed_are_refused(picture: Image.Image) -> None:
    for format_ in ("PPM", "ICO", "PDF", "EPS"):
        with pytest.raises(ImageError, match="not a picture of a known format"):
            load_image(encode(picture, format_))


def test_too_many_pixels_are_refused_before_decoding(noise: Image.Image) -> None:
    data = encode(noise, "PNG")
    assert load_image(data, max_pixels=64 * 64).size == (64, 64)
    undecodable = data[:100]
    for source in (undecodable, noise, np.asarray(noise)):
        with pytest.raises(ImageError, match="64 x 64 pixels are more than the limit of 4095"):
            load_image(source, max_pixels=64 * 64 - 1)


def test_a_decompression_bomb_is_an_image_error(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="could be decompression bomb"):
        load_image(encode(picture, "PNG"))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4), dtype=np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"uint8 \(4, 4, 4\)"),
        (np.zeros((3, 4, 4), dtype=np.uint8), r"uint8 \(3, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), dtype=np.uint8), r"uint8 \(1, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), dtype=np.float32), r"float32 \(4, 4, 3\)"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_what_was_found(array: npt.NDArray[np.generic], found: str) -> None:
    with pytest.raises(ImageError, match=rf"expected a uint8 array of shape \(H, W, 3\), found {found}"):
        load_image(array)


def test_pictures_without_pixels_are_refused() -> None:
    for source in (np.zeros((0, 4, 3), dtype=np.uint8), Image.new("RGB", (0, 4))):
        with pytest.raises(ImageError, match="it has no pixels"):
            load_image(source)


@pytest.mark.parametrize("source", [b"", BytesIO(b"")])
def test_nothing_is_not_a_picture(source: "bytes | BytesIO") -> None:
    with pytest.raises(ImageError, match="it is empty"):
        load_image(source)


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"]])
def test_another_type_is_refused(source: object) -> None:
    with pytest.raises(ImageError, match="expected a path, bytes, a binary stream"):
        load_image(source)  # type: ignore[arg-type] # the point of the test


def test_a_text_stream_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_text("hello")
    with (
        (tmp_path / "picture.txt").open() as stream,
        pytest.raises(ImageError, match="gave str, expected bytes: open it in binary mode"),
    ):
        load_image(stream)  # type: ignore[arg-type] # the point of the test
