import contextlib
import os
import random
import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlic_runtime.errors import ImageError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image
from mlic_runtime.picture.signatures import FORMATS

Encode = Callable[..., bytes]
Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def picture(colours: Pixels) -> Image.Image:
    return Image.fromarray(colours)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[-1, 0]], dtype=np.int32), "its pixels reach from -1 to 0"),
        (np.array([[0, 65536]], dtype=np.int32), "its pixels reach from 0 to 65536"),
        (np.array([[0.5]], dtype=np.float32), "floating-point numbers"),
    ],
)
def test_pixels_without_a_known_range_are_refused(
    encode: Encode, values: npt.NDArray[np.generic], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(encode(Image.fromarray(values), "TIFF"))


def test_what_is_not_a_picture_file_is_named_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, cause in {
        "missing.jpg": "there is no such file or folder",
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
    assert (np.asarray(load_image(tmp_path / "link.png")) == colours).all()


def test_links_that_lead_nowhere_or_to_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for target, cause in {
        "nothing": "there is no such file or folder",
        "itself.jpg": "Too many levels of symbolic links",
        "pipe": "it is not a regular file",
        "folder": "it is a directory",
        "/dev/null": "it is not a regular file",
    }.items():
        link = tmp_path / "itself.jpg"
        link.symlink_to(target)
        with pytest.raises(ImageError, match=rf"^cannot read picture '{link}': {cause}"):
            load_image(link)
        link.unlink()


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("picture.jpg")
        with pytest.raises(ImageError, match=r"'picture\.jpg': it is not a regular file"):
            load_image("picture.jpg")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="File name too long"):
        load_image(tmp_path / ("x" * 5000 + ".jpg"))


@pytest.mark.parametrize(
    "name",
    ["two words.png", "line\nbreak.png", "tab\t.png", "caf\udce9.png", "-rf.png", "*.png", "'\".png", "\u202egnp.png"],
    ids=ascii,
)
def test_odd_names_of_good_pictures_are_read(
    picture: Image.Image, colours: Pixels, encode: Encode, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(encode(picture, "PNG"))
    assert (np.asarray(load_image(tmp_path / name)) == colours).all()
    assert (np.asarray(load_image(str(tmp_path / name))) == colours).all()


@pytest.mark.parametrize("format_", FORMATS)
def test_the_ending_of_a_name_says_nothing(encode: Encode, picture: Image.Image, tmp_path: Path, format_: str) -> None:
    for ending in (".jpg", ".png", ".txt", ".svg", ""):
        path = tmp_path / f"picture{ending}"
        path.write_bytes(encode(picture, format_))
        assert load_image(path).size == picture.size


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
def test_a_truncated_file_is_refused(encode: Encode, noise: Image.Image, format_: str) -> None:
    data = encode(noise, format_)
    for length in (20, len(data) // 2):
        with pytest.raises(ImageError, match=r"^cannot read picture \(bytes\): ."):
            load_image(data[:length])


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_files_give_a_picture_or_an_image_error(encode: Encode, noise: Image.Image, format_: str) -> None:
    data = encode(noise.resize((16, 16)), format_)
    dice = random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with contextlib.suppress(ImageError):
            assert load_image(bytes(damaged), spec=ImageSpec(height=6, width=8), max_pixels=10_000).mode == "RGB"


def test_formats_that_are_not_listed_are_refused(encode: Encode, picture: Image.Image) -> None:
    for format_ in ("PPM", "ICO", "PDF", "EPS"):
        with pytest.raises(ImageError, match="not a picture of a known format"):
            load_image(encode(picture, format_))


def test_too_many_pixels_are_refused_before_decoding(encode: Encode, noise: Image.Image) -> None:
    data = encode(noise, "PNG")
    assert load_image(data, max_pixels=64 * 64).size == (64, 64)
    undecodable = data[:100]
    for source in (undecodable, noise, np.asarray(noise)):
        with pytest.raises(ImageError, match="64 x 64 pixels are more than the limit of 4095"):
            load_image(source, max_pixels=64 * 64 - 1)


def test_the_limit_is_max_pixels_whatever_that_of_pillow_is(
    encode: Encode, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert load_image(encode(picture, "PNG")).size == picture.size


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
