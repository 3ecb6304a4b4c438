"""HEIC through a plug-in that stands in for pillow-heif: no test needs it, and none can tell that it is there."""

import builtins
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from mlic_runtime.errors import ImageError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image, read_pixels
from mlic_runtime.picture.signatures import is_heic

Encode = Callable[..., bytes]
Pixels = npt.NDArray[np.uint8]


def heic(brand: bytes = b"heic", others: tuple[bytes, ...] = (b"mif1",), content: bytes = b"") -> bytes:
    """A file with the first box of a HEIC file; after it, whatever the plug-in reads."""
    box = b"ftyp" + brand + b"\0\0\0\0" + b"".join(others)
    return (len(box) + 4).to_bytes(4, "big") + box + content


class StandIn(ImageFile.ImageFile):
    """Reads the width and height, a byte each, and the RGB pixels that follow the first box."""

    format = "HEIF"

    def _open(self) -> None:
        file: Any = self.fp
        start = int.from_bytes(file.read(4), "big")
        file.seek(start)
        self._size = (file.read(1)[0], file.read(1)[0])
        self._mode = "RGB"
        self.tile = [ImageFile._Tile("raw", (0, 0, *self._size), start + 2, "RGB")]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """pillow-heif as far as MLIC asks for it; the list says when it was asked."""
    calls: list[str] = []

    def register() -> None:
        calls.append("register_heif_opener")
        Image.register_open("HEIF", StandIn)

    module: Any = ModuleType("pillow_heif")
    module.register_heif_opener = register
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    Image.init()  # all of Pillow's own formats, before the table is copied
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    return calls


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # importing it raises ImportError


@pytest.fixture
def picture(colours: Pixels) -> bytes:
    return heic(content=bytes([40, 24]) + colours.tobytes())


def test_a_heic_picture_is_read_through_the_plugin(
    plugin: list[str], picture: bytes, colours: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"  # phones and messengers often misname them
    path.write_bytes(picture)
    for source in (picture, path, BytesIO(picture)):
        assert (np.asarray(load_image(source)) == colours).all()
    assert plugin == ["register_heif_opener"] * 3
    assert read_pixels(picture, ImageSpec(height=6, width=8)).shape == (6, 8, 3)


def test_the_limit_for_pixels_holds_for_heic(plugin: list[str], picture: bytes) -> None:
    with pytest.raises(ImageError, match="40 x 24 pixels are more than the limit of 959"):
        load_image(picture, max_pixels=959)
    assert plugin


def test_a_damaged_heic_picture_is_an_image_error(plugin: list[str], picture: bytes) -> None:
    for length in (len(picture) // 2, 20):
        with pytest.raises(ImageError, match=r"^cannot read picture \(bytes\): ."):
            load_image(picture[:length])
    assert plugin


@pytest.mark.usefixtures("no_plugin")
def test_without_the_plugin_the_error_says_what_to_install(picture: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(picture)
    with pytest.raises(ImageError, match=r"photo\.heic': it is a HEIC picture, .*: pip install pillow-heif$"):
        load_image(path)


def test_the_plugin_is_not_asked_for_other_files(
    plugin: list[str], encode: Encode, colours: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    real = builtins.__import__

    def note(name: str, *arguments: Any, **options: Any) -> Any:
        imported.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", note)
    load_image(encode(Image.fromarray(colours), "PNG"))
    for other in (b"text", heic(b"avif"), b""):
        with pytest.raises(ImageError, match=r"not a picture of a known format|it is empty"):
            load_image(other)
    assert "pillow_heif" not in imported
    assert plugin == []


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (heic(b"heic", ()), True),
        (heic(b"heix", (b"mif1",)), True),
        (heic(b"mif1", (b"mif1", b"heic")), True),
        (heic(b"msf1", (b"msf1", b"hevc")), True),
        (heic(b"mif1", (b"mif1", b"avif")), False),
        (heic(b"avif", (b"mif1", b"miaf")), False),
        (heic(b"isom", (b"mp42",)), False),
        (heic(b"isom", (), b"heic"), False),  # behind the box
        (b"\0\0\0\x18ftyp", False),
        (b"heic", False),
        (b"", False),
    ],
)
def test_heic_is_told_by_the_first_box(head: bytes, expected: bool) -> None:
    assert is_heic(head) is expected
