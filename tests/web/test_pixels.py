"""The pixels that the browser's decoder and the JavaScript module make of picture files, against the runtime's."""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import read_pixels

from .conftest import ROOT

_SIZE = (331, 203)  # so odd that blocks of 2 pixels do not end at the edge
_READ = """async ([content, spec]) => {
    const { readPixels } = await import("./picture.js");
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const levels = await readPixels(new Blob([bytes]), spec);
    return btoa(Array.from(levels, (level) => String.fromCharCode(level)).join(""));
}"""
_LARGEST = 1  # levels: 16 bits and transparency may be rounded the other way
_LARGEST_REDUCED, _MEAN_REDUCED = 12, 0.75  # where libjpeg makes the picture smaller, and JavaScript averages


@pytest.fixture(scope="module")
def blank(browser: Browser, address: str) -> Iterator[Page]:
    """A page of the site on which nothing else happens."""
    page = browser.new_page()
    page.goto(address + "style.css")
    yield page
    page.close()


def picture() -> Image.Image:
    return Image.open(ROOT / "examples" / "astronaut.jpg").convert("RGB").resize(_SIZE)


def transparent(mode: str) -> Image.Image:
    image = picture().convert(mode[:-1])
    image.putalpha(Image.linear_gradient("L").resize(_SIZE))
    return image


def sixteen_bits() -> Image.Image:
    levels = np.asarray(picture().convert("L")).astype(np.uint16)
    return Image.fromarray(levels * 256 + levels[::-1])


def encode(image: Image.Image, format_: str, orientation: int | None = None, **options: Any) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def compare(page: Page, content: bytes, side: int) -> npt.NDArray[np.int64]:
    """Return the difference in levels for an input of `side` x `side`."""
    spec = {"height": side, "width": side, "interpolation": "bilinear", "resize": "stretch"}
    found = page.evaluate(_READ, [base64.b64encode(content).decode(), spec])
    expected = read_pixels(content, ImageSpec(side, side))
    levels = np.frombuffer(base64.b64decode(found), np.uint8).reshape(expected.shape)
    return np.abs(levels.astype(np.int64) - expected.astype(np.int64))


_KINDS = {
    "jpeg": encode(picture(), "JPEG"),
    "progressive": encode(picture(), "JPEG", progressive=True, subsampling=0),
    "grey": encode(picture().convert("L"), "JPEG"),
    "cmyk": encode(picture().convert("CMYK"), "JPEG"),
    "png": encode(picture(), "PNG", orientation=6),
    "rgba": encode(transparent("RGBA"), "PNG"),
    "la": encode(transparent("LA"), "PNG"),
    "palette": encode(picture().quantize(64), "PNG", transparency=5),
    "16-bit": encode(sixteen_bits(), "PNG"),
    "gif": encode(picture().quantize(64), "GIF"),
    "webp": encode(picture(), "WEBP"),
    "webp-6": encode(picture(), "WEBP", orientation=6, lossless=True),
    "webp-3": encode(picture(), "WEBP", orientation=3, lossless=True),
    "webp-rgba": encode(transparent("RGBA"), "WEBP", lossless=True, exact=True),
    "bmp": encode(picture(), "BMP"),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_picture_file_gives_the_pixels_of_the_runtime(blank: Page, kind: str) -> None:
    assert compare(blank, _KINDS[kind], 256).max() <= _LARGEST


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_a_jpeg_is_made_smaller_before_it_is_turned(blank: Page, orientation: int | None) -> None:
    difference = compare(blank, encode(picture(), "JPEG", orientation, quality=90), 96)
    assert difference.max() <= _LARGEST_REDUCED
    assert difference.mean() <= _MEAN_REDUCED
