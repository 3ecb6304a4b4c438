import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from mlic_runtime.errors import ProviderError
from mlic_runtime.providers import library as ort
from mlic_runtime.providers.library import load_libraries

SOURCE = Path(__file__).parents[2] / "mlic_runtime"


@pytest.fixture
def capi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of ONNX Runtime's libraries, on a Linux without CUDA."""
    (tmp_path / "capi").mkdir()
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudart.so"), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "capi"


@pytest.fixture
def dlopen(capi: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], list[str]]:
    """Say why the libraries do not load, or None; the names of those that are loaded go to the returned list."""

    def say(error: str | None) -> list[str]:
        opened: list[str] = []

        def load(path: str, mode: int = 0) -> None:
            opened.append(Path(path).name)
            if error is not None and "shared" not in path:
                raise OSError(error)

        monkeypatch.setattr("ctypes.CDLL", load)
        return opened

    return say


@pytest.fixture
def import_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Import `mlic_runtime.providers.library` once more; the module that the others use stays what it was."""

    def run() -> object:
        monkeypatch.delitem(sys.modules, "mlic_runtime.providers.library")
        return importlib.import_module("mlic_runtime.providers.library")

    monkeypatch.setattr("mlic_runtime.providers.library", ort)  # the import binds the attribute anew; this puts it back
    return run


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_the_libraries_are_loaded_as_onnx_runtime_does(
    capi: Path, dlopen: Callable[[str | None], list[str]], provider: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (capi / f"libonnxruntime_providers_{provider}.so").touch()
    opened = dlopen(None)
    assert load_libraries(provider) is None
    assert opened == ["libonnxruntime_providers_shared.so", f"libonnxruntime_providers_{provider}.so"]
    assert capsys.readouterr().out == ""  # what preload_dlls prints is not data


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("libcuda.so.1: cannot open", "; it belongs to NVIDIA's driver"),
        ("libcublasLt.so.13: cannot open", "; CUDA and cuDNN come with 'pip install onnxruntime-gpu[cuda,cudnn]'"),
        ("libnvinfer.so.10: cannot open", ""),
        ("invalid\nELF header", ""),
    ],
)
def test_a_library_that_does_not_load_is_named(
    capi: Path, dlopen: Callable[[str | None], list[str]], error: str, advice: str
) -> None:
    (capi / "libonnxruntime_providers_cuda.so").touch()
    dlopen(error)
    assert load_libraries("cuda") == error.replace("\n", " ") + advice


def test_a_file_that_is_no_library_is_refused_by_the_system(capi: Path) -> None:
    for name in ("shared", "cuda"):
        (capi / f"libonnxruntime_providers_{name}.so").write_bytes(b"not a library")
    assert "libonnxruntime_providers_shared.so" in str(load_libraries("cuda"))


@pytest.mark.parametrize("provider", ["cpu", "openvino", "cuda"])
def test_what_has_no_library_of_its_own_loads_nothing(dlopen: Callable[[str | None], list[str]], provider: str) -> None:
    opened = dlopen("must not be asked")
    assert load_libraries(provider) is None
    assert opened == []


def test_on_windows_only_onnx_runtime_can_tell(
    dlopen: Callable[[str | None], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    preloaded: list[bool] = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: preloaded.append(True), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    opened = dlopen("must not be asked")
    assert load_libraries("cuda") is None
    assert (preloaded, opened) == ([True], [])


def test_an_onnxruntime_that_cannot_be_imported_is_an_error_of_ours(
    import_again: Callable[[], object], install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("onnxruntime", "1.32.0")
    install("onnxruntime-gpu", "1.31.1")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ProviderError, match=r"^cannot import onnxruntime \(.*\): onnxruntime 1.32.0 and onnxruntime-gpu"
    ):
        import_again()


def test_without_onnxruntime_the_error_says_how_to_install_it(
    import_again: Callable[[], object], install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("click", "8.1.0", "click")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"'pip install onnxruntime'$"):
        import_again()


def test_the_rest_of_two_distributions_of_which_one_was_removed_is_named(
    import_again: Callable[[], object], install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("onnxruntime-gpu", "1.31.1")
    (site / "onnxruntime").joinpath("__init__.py").unlink()  # Python takes the folder for a namespace package
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(
        ProviderError, match=r"not complete: 'pip install --force-reinstall --no-deps onnxruntime-gpu'$"
    ):
        import_again()


def test_the_runtime_imports_onnxruntime_in_one_place() -> None:
    files = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    lines = {name: path.read_text("utf-8").splitlines() for name, path in files.items()}
    direct = {name for name, text in lines.items() if any(line.strip() == "import onnxruntime" for line in text)}
    assert direct == {"providers/library.py"}


USE = """
import os, sys
from mlic_runtime.providers.library import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_onnx_runtime_reports_nothing_unless_it_was_asked_to(
    tiny: Path, tmp_path: Path, given: dict[str, str], expected: str
) -> None:
    unwanted = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE.parent), **given}
    line = [sys.executable, "-c", USE, str(tiny / "model.fp32.onnx")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == f"{expected}\n"
    if expected == "1":
        assert list(tmp_path.iterdir()) == []  # where it would keep an identifier of the device
