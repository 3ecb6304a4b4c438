import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

DATA = Path(__file__).parents[1] / "data"

Edit = Callable[[dict[str, Any]], object]
Field = Callable[[int, "int | str | bytes"], bytes]


@pytest.fixture(autouse=True)
def _no_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIC_MODEL", raising=False)


@pytest.fixture
def tiny() -> Path:
    """The package that reads a picture and a caption (see tests/tiny_package.py)."""
    return DATA / "tiny"


@pytest.fixture
def tiny_picture() -> Path:
    """The package that reads only a picture."""
    return DATA / "tiny_picture"


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


@pytest.fixture
def tiny_picture_copy(tiny_picture: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_picture, tmp_path / "tiny_picture"))


@pytest.fixture
def edit_manifest() -> Callable[[Path, Edit], None]:
    """Change the manifest of a package as plain JSON."""

    def edit(folder: Path, change: Edit) -> None:
        path = folder / "manifest.json"
        data = json.loads(path.read_text("utf-8"))
        change(data)
        path.write_text(json.dumps(data), "utf-8")

    return edit


@pytest.fixture
def replace_file(edit_manifest: Callable[[Path, Edit], None]) -> Callable[[Path, str, bytes], None]:
    """Give a file of a package another content, and record it in the manifest."""

    def replace(folder: Path, name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        edit_manifest(folder, lambda data: data["files"][name].update(sha256=digest, bytes=len(content)))

    return replace


@pytest.fixture
def tiny_logits() -> Callable[[npt.NDArray[np.uint8], str], npt.NDArray[np.float32]]:
    """What the tiny package computes, in numpy: (H, W, 3) and a caption of known words -> (3,)."""
    embedding = {"red": [3, 0, 0], "green": [0, 3, 0], "blue": [0, 0, 3], "bright": [1, 1, 1], "no": [-4, -4, -4]}

    def logits(pixels: npt.NDArray[np.uint8], caption: str = "") -> npt.NDArray[np.float32]:
        seen = 4 * (pixels.mean(axis=(0, 1)) / 255 - 0.5)
        words = [embedding[word] for word in caption.split()]
        return np.asarray(seen + (np.mean(words, axis=0) if words else 0), dtype=np.float32)

    return logits


@pytest.fixture
def proto() -> Field:
    """A protobuf field: an int becomes a varint, text and bytes are length-delimited."""

    def varint(value: int) -> bytes:
        encoded = bytearray()
        while value >= 0x80:
            encoded.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*encoded, value])

    def field(number: int, value: int | str | bytes) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        payload = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(payload)) + payload

    return field
