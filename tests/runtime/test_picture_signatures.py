from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from mlic_runtime.picture.signatures import (
    FORMATS,
    HEAD_BYTES,
    PICTURE_SUFFIXES,
    has_picture_suffix,
    is_picture,
    is_picture_file,
)


def saved(format_: str, **options: object) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (5, 3), "red").save(stream, format_, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_told_by_its_first_bytes(format_: str) -> None:
    assert is_picture(saved(format_)[:HEAD_BYTES])


def test_an_animated_png_is_a_png() -> None:
    second = Image.new("RGB", (5, 3), "blue")
    assert is_picture(saved("PNG", save_all=True, append_images=[second])[:HEAD_BYTES])


@pytest.mark.parametrize(
    "head",
    [
        b"", b"BM", b"BMW and Audi are makers of cars", b"RIFF\x24\0\0\0WAVEfmt ", b"RIFF\x24\0\0\0AVI LIST",
        b"\0\0\0\x1cftypavif\0\0\0\0mif1", b"<svg>", b"%PDF-1.7", b"GIF88a", b"\xff\xd8", b"II", b"PK\3\4",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_picture_is_none(head: bytes) -> None:
    assert not is_picture(head)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_endings_are_taken_in_upper_and_lower_case(suffix: str) -> None:
    assert has_picture_suffix(f"a{suffix}")
    assert has_picture_suffix(f"a{suffix.upper()}")
    assert not has_picture_suffix(f"a{suffix}.txt")


def test_files_are_read_only_where_the_ending_does_not_tell(tmp_path: Path) -> None:
    assert is_picture_file(tmp_path / "missing.jpg")
    assert not is_picture_file(tmp_path / "missing")
    assert not is_picture_file(tmp_path)
    (tmp_path / "a").write_bytes(saved("JPEG"))
    (tmp_path / "b").write_bytes(b"text")
    assert is_picture_file(tmp_path / "a")
    assert not is_picture_file(tmp_path / "b")
