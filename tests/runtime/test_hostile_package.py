"""A package that was tampered with: nothing of it is parsed before its hash is known, and nothing of it is run."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mlic_runtime.caption import tokenizer as text
from mlic_runtime.errors import IntegrityError, ManifestError, MlicError
from mlic_runtime.graph import opening as loading
from mlic_runtime.package import model_package as package
from mlic_runtime.package.model_package import load_package
from mlic_runtime.predict.predictor import Predictor

PARSED = ("model.fp32.onnx", "model.fp16.onnx", "tokenizer.json")

Edit = Callable[[dict[str, Any]], object]


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position % len(data)] ^= 1
    file.write_bytes(data)


def pack(folder: Path) -> Path:
    """A `.mlic` file without damage of its own: its CRC-32 are those of what the folder holds now."""
    file = folder.with_suffix(".mlic")
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            info = zipfile.ZipInfo(path.name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, path.read_bytes())
    return file


@pytest.fixture
def parsed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reached a parser, file by file; bytes that are not the package's own fail the test at once."""
    names = {hashlib.sha256((tiny / name).read_bytes()).hexdigest(): name for name in PARSED}
    reached: list[str] = []

    def watch(module: object, attribute: str) -> None:
        real = getattr(module, attribute)

        def parser(content: bytes, *arguments: Any, **options: Any) -> Any:
            digest = hashlib.sha256(content).hexdigest()
            assert digest in names, f"{attribute} was given bytes that nobody has verified"
            reached.append(names[digest])
            return real(content, *arguments, **options)

        monkeypatch.setattr(module, attribute, parser)

    watch(package, "check_graph")
    watch(loading, "check_graph")
    watch(onnxruntime, "InferenceSession")
    watch(text, "load_tokenizer")
    return reached


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_a_whole_package_reaches_every_parser(tiny_copy: Path, parsed: list[str], packed: bool) -> None:
    """Without this, the tests below would pass for parsers that are somewhere else by now."""
    where = pack(tiny_copy) if packed else tiny_copy
    Predictor.load(where, precision="fp32", cache=False)
    load_package(where).verify()
    assert sorted(parsed) == sorted(["model.fp32.onnx"] * 3 + ["model.fp16.onnx", "tokenizer.json"])


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("name", PARSED)
@pytest.mark.parametrize("position", [0, 1, 7, 100, -100, -1])
def test_a_file_with_another_hash_is_never_parsed(tiny_copy: Path, name: str, position: int, packed: bool) -> None:
    flip(tiny_copy / name, position)
    where = pack(tiny_copy) if packed else tiny_copy
    precision = "fp16" if "fp16" in name else "fp32"
    with pytest.raises(IntegrityError, match=rf"{name} has sha256 \w+, expected"):
        Predictor.load(where, precision=precision, cache=False)
    with pytest.raises(IntegrityError, match=rf"{name} has sha256"):
        load_package(where).verify()


@pytest.mark.parametrize("name", PARSED)
def test_a_cached_graph_does_not_stand_in_for_a_file_with_another_hash(
    tiny_copy: Path, parsed: list[str], name: str
) -> None:
    """Reaching for the cache would give a prediction from a package that is not whole."""
    precision = "fp16" if "fp16" in name else "fp32"
    Predictor.load(tiny_copy, precision=precision, cache=False)
    flip(tiny_copy / name, 50)
    with pytest.raises(IntegrityError, match=rf"{name} has sha256"):
        Predictor.load(tiny_copy, precision=precision)


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize("name", PARSED)
@pytest.mark.parametrize("tenth", range(10))
def test_a_file_of_which_the_end_is_missing_is_never_parsed(tiny_copy: Path, name: str, tenth: int) -> None:
    data = (tiny_copy / name).read_bytes()
    (tiny_copy / name).write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(IntegrityError, match=rf"{name} has \d+ bytes, expected {len(data)}"):
        load_package(tiny_copy).verify()


@pytest.mark.parametrize("name", [*PARSED, "README.md", "manifest.json"])
def test_a_size_that_no_memory_holds_is_refused_before_it_is_read(
    tiny_copy: Path, edit_manifest: Callable[[Path, Edit], None], name: str
) -> None:
    """A hole in a file takes no room on the disk, and reading it all of the memory."""
    size = 2**40
    if name != "manifest.json":
        edit_manifest(tiny_copy, lambda data: data["files"][name].update(bytes=size))
    os.truncate(tiny_copy / name, size)
    with pytest.raises(ManifestError, match=r"bytes must be 0 or more, up to|is larger than 4194304 bytes"):
        load_package(tiny_copy)


# --- nothing of a package is run, and nobody is called

# Executed by another process: audit hooks cannot be removed.
WATCHED = r"""
import os, sys
events, package, strict = [], sys.argv[1], False
NEVER = ("socket.", "pickle.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
         "urllib.", "ctypes.dlopen", "shutil.unpack", "webbrowser.", "http.", "ftplib.", "smtplib.")
ONCE_LOADED = ("exec", "compile", "import", "marshal.")

def hook(event, arguments):
    if strict and (event.startswith(NEVER) or event in ONCE_LOADED or event.startswith("marshal.")):
        events.append((event, repr(arguments)[:200]))
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and package in os.fsdecode(arguments[0]):
        events.append((event, os.path.basename(os.fsdecode(arguments[0]))))

sys.addaudithook(hook)
import numpy, concurrent.futures, zipfile, encodings.cp437  # of what is imported late, the standard library's
from mlic_runtime import Predictor
import mlic_runtime.predict.stream, mlic_runtime.caption.tokenizer, mlic_runtime.rows.reader
picture = numpy.full((6, 8, 3), 200, dtype=numpy.uint8)
Predictor.load(sys.argv[2], cache=False).predict(picture, "red")  # imports whatever is imported late
strict = True
predictor = Predictor.load(package, cache=False)
predictor.predict(picture, "red")
predictor.predict_many([picture] * 3, ["red", None, "no blue"])
from mlic_runtime.package.model_package import load_package
load_package(package).verify()
strict = False
import json
print(json.dumps(events))
"""


def watched(package_path: Path, other: Path) -> list[list[str]]:
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED, str(package_path), str(other)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    events: list[list[str]] = json.loads(result.stdout)
    return events


def test_loading_and_predicting_opens_the_listed_files_and_does_nothing_else(tiny: Path, tiny_copy: Path) -> None:
    """No socket, no pickle, no process, no import and no code, with everything in the package that might be run."""
    (tiny_copy / "__init__.py").write_text("raise SystemExit('was run')\n")
    (tiny_copy / "__pycache__").mkdir()
    (tiny_copy / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"\0" * 64)
    listed = {"manifest.json", "tokenizer.json", "README.md", "model.fp32.onnx", "model.fp16.onnx"}
    events = watched(tiny_copy, tiny)
    # By `verify` and a folder's listing too, several times each.
    assert {tuple(event) for event in events} == {("open", name) for name in listed}


def test_of_an_archive_only_the_archive_is_opened(tiny: Path, tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    assert {tuple(event) for event in watched(file, tiny)} == {("open", file.name)}


# What a program does with a model that is installed; it prints the modules of the distribution that it imported.
BY_NAME = r"""
import sys
import numpy
from mlic_runtime import Predictor
from mlic_runtime.package.catalog import list_models
from mlic_runtime.package.model_package import load_package
assert "small" in {model.name for model in list_models()}
load_package("small").verify()
Predictor.load("small", cache=False).predict(numpy.zeros((6, 8, 3), dtype=numpy.uint8), "red")
print([name for name in sys.modules if name.startswith("acme")])
"""


@pytest.mark.parametrize("module", ["acme_small", "acme.models.small"])
def test_of_an_installed_model_no_module_is_run(tiny: Path, tmp_path: Path, module: str) -> None:
    """Whatever the wheel brings beside the model package: a module, one above it, one that Python would find first."""
    site, marker = tmp_path / "site", tmp_path / "was-run"
    run = f"open({str(marker)!r}, 'w').close()\n"
    info = site / "acme_small-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-small\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mlic_runtime.models]\nsmall = {module}\n")
    folder = site.joinpath(*module.split("."))
    shutil.copytree(tiny, folder)
    while folder != site:
        (folder / "__init__.py").write_text(run)
        folder = folder.parent
    (site / "acme.py").write_text(run)
    root = str(Path(__file__).parents[2])
    paths = [root, str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BY_NAME],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr
    assert not marker.exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "model.fp32.onnx"])
def test_a_pickle_in_the_place_of_a_file_is_not_loaded(
    tiny_copy: Path, replace_file: Callable[[Path, str, bytes], None], tmp_path: Path, name: str
) -> None:
    marker = tmp_path / "was-run"
    evil = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    replace_file(tiny_copy, name, evil)
    with pytest.raises(MlicError, match=r"is not a (tokenizer|valid ONNX file)"):
        Predictor.load(tiny_copy, precision="fp32").predict(np.zeros((6, 8, 3), dtype=np.uint8))
    assert not marker.exists()
