"""Pictures that are small in pixels and large in cost; tests/hostile has the files that made them known."""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from PIL import Image

from mlic_runtime.errors import ImageError
from mlic_runtime.limits import MAX_JPEG_SCANS
from mlic_runtime.picture.decode import load_image
from tests.hostile.gifs_bmps import rle
from tests.hostile.jpegs import bomb_of_scans, segment, with_segment
from tests.hostile.tiffs_webps import TILE_BYTES, TILE_HEIGHT, TILE_WIDTH, TILES, solid, tiff

Encode = Callable[..., bytes]


def test_a_jpeg_may_have_a_hundred_scans_and_no_more() -> None:
    assert load_image(bomb_of_scans(80, 80, MAX_JPEG_SCANS)).size == (80, 80)
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_image(bomb_of_scans(80, 80, MAX_JPEG_SCANS + 1))


def test_scans_are_found_behind_segments_of_any_length(tmp_path: Path) -> None:
    scan = bomb_of_scans(8, 8, 1)
    start = scan.index(b"\xff\xda")
    header, body = scan[:start], scan[start:-2]
    for between in (b"", segment(0xFE, bytes(65_533)), b"\xff" * 70_000, segment(0xFE, b"\xff\xd9" * 100), b"junk" * 5):
        path = tmp_path / "picture.jpg"
        path.write_bytes(header + (between + body) * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")
        with pytest.raises(ImageError, match="more than 100 scans"):
            load_image(path)


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_scan_is_found_where_two_reads_meet(shift: int) -> None:
    data = bomb_of_scans(8, 8, MAX_JPEG_SCANS + 1)
    start = data.index(b"\xff\xda")
    fill = bytes(2 + (1 << 16) - 1 + shift - start)  # the first read begins at byte 2 and takes 64 KiB
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_image(data[:start] + fill + data[start:])


def test_only_the_scans_of_the_picture_itself_count(encode: Encode, noise: Image.Image) -> None:
    many = bomb_of_scans(8, 8, MAX_JPEG_SCANS + 1)
    for options in ({"progressive": True}, {}):
        data = encode(noise, "JPEG", **options)
        assert load_image(data + bytes(10) + many).size == (64, 64), "behind its end"
        assert load_image(with_segment(data, 0xE1, b"thumbnail" + many)).size == (64, 64), "in its metadata"


def test_a_scan_for_each_colour_counts_as_one(encode: Encode, noise: Image.Image) -> None:
    """Not progressive, and still read once for each scan: a component at a time, again and again."""
    data = encode(noise.convert("L").convert("RGB"), "JPEG", subsampling=0)
    start = data.index(b"\xff\xda")
    one = b"".join(segment(0xDA, bytes([1, number, 0, 0, 63, 0])) for number in (1, 2, 3))
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_image(data[:start] + one * 40 + b"\xff\xd9")


def test_pixels_of_webp_count_twice() -> None:
    assert load_image(solid(100, 50), max_pixels=10_000).size == (100, 50)
    with pytest.raises(ImageError, match=r"100 x 50 pixels of WebP count 2 times, .* limit of 9999"):
        load_image(solid(100, 50), max_pixels=9_999)


def test_pixels_of_runs_count_ten_times(encode: Encode, noise: Image.Image) -> None:
    runs = rle(8, 2, b"\x08\x07\0\0\x08\x09\0\1")
    assert load_image(runs, max_pixels=160).size == (8, 2)
    with pytest.raises(ImageError, match=r"8 x 2 pixels of run-length coded BMP count 10 times, .* limit of 159"):
        load_image(runs, max_pixels=159)
    assert load_image(encode(noise, "BMP"), max_pixels=64 * 64).size == (64, 64)


def test_a_tile_must_keep_the_limit_too() -> None:
    tiles = {TILE_WIDTH: 32, TILE_HEIGHT: 16, TILES: 374, TILE_BYTES: 512, 273: None, 278: None, 279: None}
    data = tiff(bytes(512), {256: 1, 257: 1, **tiles})
    assert load_image(data, max_pixels=512).size == (1, 1)
    with pytest.raises(ImageError, match="a tile of 32 x 16 pixels is more than the limit of 511"):
        load_image(data, max_pixels=511)


def test_the_second_picture_of_a_file_is_not_asked_about(encode: Encode, noise: Image.Image) -> None:
    for format_ in ("GIF", "TIFF", "MPO"):  # those of an animated PNG or WebP lie within its canvas
        data = encode(noise, format_, save_all=True, append_images=[noise.resize((300, 300))])
        assert load_image(data, max_pixels=64 * 64).size == (64, 64)


def test_a_canvas_that_grows_by_its_frame_is_measured_as_it_is_decoded() -> None:
    frame = b"," + struct.pack("<HHHHBB", 90, 0, 10, 10, 0, 2) + b"\x02\x2c\x05\0;"
    data = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x81, 0, 0) + bytes(12) + frame
    with pytest.raises(ImageError, match="100 x 10 pixels are more than the limit of 999"):
        load_image(data, max_pixels=999)


def test_large_pictures_are_converted_in_strips_as_in_one(monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    dice = np.random.default_rng(0)
    files = [
        encode(Image.fromarray(dice.integers(0, 256, (37, 11, 4), dtype=np.uint8)), "PNG"),
        encode(Image.fromarray(dice.integers(0, 65536, (37, 11), dtype=np.uint16)), "PNG"),
        encode(Image.fromarray(dice.integers(0, 256, (37, 11, 3), dtype=np.uint8)).quantize(9), "PNG", transparency=3),
    ]
    whole = [np.asarray(load_image(data)) for data in files]
    for size in (1, 11, 30, 370):
        monkeypatch.setattr("mlic_runtime.picture.decode._STRIP", size)
        for data, expected in zip(files, whole, strict=True):
            assert (np.asarray(load_image(data)) == expected).all()


def frames_of(error: BaseException | None) -> "list[TracebackType]":
    found = []
    while error is not None:
        step = error.__traceback__
        while step is not None:
            found.append(step)
            step = step.tb_next
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("cause", ["truncated", "too large", "garbage"])
def test_an_error_that_is_kept_does_not_keep_the_picture(encode: Encode, noise: Image.Image, cause: str) -> None:
    data = encode(noise, "PNG")
    limit = 64 * 64 - (cause == "too large")
    source = BytesIO({"truncated": data[: len(data) // 2], "garbage": data[:20]}.get(cause, data))
    with pytest.raises(ImageError) as caught:
        load_image(source, max_pixels=limit)
    steps = frames_of(caught.value)
    names = {step.tb_frame.f_code.co_name for step in steps}
    assert "_load_file" in names, "where it came from can still be seen"
    frames = [step.tb_frame for step in steps if step.tb_frame.f_code.co_filename != __file__]
    held = [value for frame in frames for value in frame.f_locals.values()]
    assert not any(isinstance(value, Image.Image) for value in held)


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch, encode: Encode, noise: Image.Image) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    data = encode(noise, "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ImageError, match="there is not enough memory to decode it"):
        load_image(data)
