import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from PIL import Image

from mlic_runtime.providers import openvino
from mlic_runtime.providers.names import PROVIDERS

DATA = Path(__file__).parents[1] / "data"

Encode = Callable[..., bytes]
Edit = Callable[[dict[str, Any]], object]
Field = Callable[[int, "int | str | bytes"], bytes]


@pytest.fixture(autouse=True)
def _no_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIC_MODEL", raising=False)


@pytest.fixture(autouse=True)
def settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's file of chosen precisions lies; the file is not there, and neither is its folder."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder / "mlic" / "precision.json"


@pytest.fixture(autouse=True)
def graph_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's optimised graphs lie; neither the folder nor the one above it is there."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "mlic" / "graphs"


@pytest.fixture(autouse=True)
def load_average(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Pretend a load average of the last minute; 0 unless a test says otherwise."""

    def pretend(load: float) -> None:
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0), raising=False)  # Windows has none

    pretend(0.0)
    return pretend


@pytest.fixture(autouse=True)
def _no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that OpenVINO is not installed, so that tests mean the same everywhere."""
    monkeypatch.setattr(openvino, "is_installed", lambda: False)


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
def colours() -> npt.NDArray[np.uint8]:
    """uint8 (24, 40, 3): four corners of different colours, so that every turn shows."""
    pixels = np.full((24, 40, 3), 255, dtype=np.uint8)
    pixels[:12, :20] = (255, 0, 0)
    pixels[:12, 20:] = (0, 255, 0)
    pixels[12:, :20] = (0, 0, 255)
    return pixels


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def encode() -> Encode:
    """The bytes of a picture file: (image, format of Pillow, options of `Image.save`)."""

    def save(image: Image.Image, format_: str, **options: object) -> bytes:
        stream = BytesIO()
        image.save(stream, format_, **options)
        return stream.getvalue()

    return save


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


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Pretend that a distribution is installed, which nothing else then is: (name, version, the package's folder)."""
    import email.message  # noqa: F401 # which reads METADATA; from Python 3.13 on it is loaded when it is needed

    folder = tmp_path_factory.mktemp("site-packages")
    monkeypatch.setattr(sys, "path", [str(folder)])

    def add(name: str, version: str, package: str | None = "onnxruntime", site: Path = folder) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if package is not None:
            (info / "RECORD").write_text(f"{package}/__init__.py,,\n{info.name}/METADATA,,\n")
            (site / package).mkdir(exist_ok=True)
            (site / package / "__init__.py").touch()  # from Python 3.12 on, files that are not there do not count
        return site

    return add


class FakeRuntime:
    """Stands in for onnxruntime.InferenceSession: records its arguments, loads only the providers in `loadable`."""

    def __init__(self, loadable: set[str], broken: bool = False) -> None:
        self.loadable, self.broken = {PROVIDERS[name] for name in loadable}, broken
        self.options: Any = None
        self.providers: list[list[str]] = []

    def __call__(self, graph: bytes, options: Any, providers: list[str], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        self.options = options
        self.providers.append(providers)
        if self.broken and providers[0] != PROVIDERS["cpu"]:
            raise RuntimeError("no\ndevice")
        real = _REAL_SESSION(graph, options, providers=[PROVIDERS["cpu"]])
        loaded = [name for name in providers if name in self.loadable]
        real.get_providers = lambda: loaded
        return real


_REAL_SESSION = onnxruntime.InferenceSession


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRuntime]:
    """Pretend that onnxruntime offers some providers, of which some load: (offered, loadable, broken)."""

    def install(offered: list[str], loadable: set[str], broken: bool = False) -> FakeRuntime:
        fake = FakeRuntime(loadable, broken)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDERS[n] for n in offered])
        monkeypatch.setattr(onnxruntime, "InferenceSession", fake)
        return fake

    return install
