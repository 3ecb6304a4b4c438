import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from mlic_runtime.picture.formats import open_picture
from mlic_runtime.picture.signatures import FORMATS

# Prints, after each of the files, which of Pillow's readers are loaded.
READERS = """
import io, json, sys
from pathlib import Path
from PIL import UnidentifiedImageError
from mlic_runtime.picture.formats import open_picture
for path in sys.argv[1:]:
    try:
        open_picture(io.BytesIO(Path(path).read_bytes()))
    except UnidentifiedImageError:
        pass
    found = [name for name in sys.modules if name.startswith("PIL.") and name.endswith("ImagePlugin")]
    print(json.dumps(sorted(found)))
"""


def encoded(format_: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), "green").save(stream, format_)
    return stream.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_known_by_its_first_bytes(format_: str) -> None:
    image = open_picture(io.BytesIO(encoded(format_)))
    assert (image.format, image.size) == (format_, (5, 4))


def test_only_the_reader_of_a_picture_is_loaded_and_none_for_what_is_no_picture(tmp_path: Path) -> None:
    contents = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "pdf": b"%PDF-1.7\n",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "riff": b"RIFF\x04\0\0\0WAVE",
        "jpg": encoded("JPEG"),
        "png": encoded("PNG"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", READERS, *(str(tmp_path / name) for name in contents)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = [{name.removeprefix("PIL.") for name in json.loads(line)} for line in done.stdout.splitlines()]
    assert loaded[:3] == [set()] * 3
    assert loaded[3] == {"WebPImagePlugin"}  # it alone says which RIFF files are its own
    assert loaded[4] - loaded[3] == {"JpegImagePlugin"}
    assert loaded[5] - loaded[4] == {"PngImagePlugin"}


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "BMP"])
def test_a_broken_header_is_no_picture(format_: str) -> None:
    with pytest.raises(UnidentifiedImageError):
        open_picture(io.BytesIO(encoded(format_)[:13]))


def test_a_pillow_without_a_library_says_that_it_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded("WEBP")
    factory, _ = Image.OPEN["WEBP"]
    monkeypatch.setitem(Image.OPEN, "WEBP", (factory, lambda head: "WEBP support not installed"))
    with pytest.raises(UnidentifiedImageError):
        open_picture(io.BytesIO(content))
