import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mlic_runtime.bench.openvino import OpenVINOBackend
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import PackageError, ProviderError
from mlic_runtime.graph.session import GraphSession, create_session
from mlic_runtime.package.model_package import load_package
from mlic_runtime.providers import openvino
from mlic_runtime.providers.openvino import load_library


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that OpenVINO is installed: a package whose every use fails as its own errors look."""
    module: Any = ModuleType("openvino")
    module.__version__ = "2026.1.0-123-abc"
    monkeypatch.setitem(sys.modules, "openvino", module)
    monkeypatch.setattr(openvino, "is_installed", lambda: True)

    class Core:
        available_devices = ("CPU",)

        def read_model(self, graph: bytes) -> None:
            raise RuntimeError("Exception from src/core.cpp:1:\nException from src/x.cpp:2:\nno such\n\noperator")

    monkeypatch.setattr(openvino, "_core", Core)
    openvino.library_version.cache_clear()
    yield module
    openvino.library_version.cache_clear()


def test_what_openvino_refuses_is_one_line(installed: Any, tiny: Path) -> None:
    graph = (tiny / "model.fp32.onnx").read_bytes()
    with pytest.raises(ProviderError) as caught:
        create_session(graph, provider="openvino")
    assert str(caught.value) == (
        "provider 'openvino' did not load: OpenVINO cannot compile the graph: no such operator; "
        "also offered here: cpu, auto"
    )
    assert create_session(graph, provider="auto").provider == "cpu"


def test_a_saved_graph_that_is_damaged_is_one_line(installed: Any, tiny: Path) -> None:
    with pytest.raises(PackageError, match=r"^OpenVINO cannot load what it had compiled: .*[^\n]$"):
        create_session((tiny / "model.fp32.onnx").read_bytes(), provider="openvino", optimised=b"\x01")


class FakeSession:
    """Two outputs; fails as OpenVINO does."""

    def get_inputs(self) -> "list[openvino.Node]":
        return [openvino.Node("pixels", "tensor(uint8)", [None, 6, 8, 3])]

    def get_outputs(self) -> "list[openvino.Node]":
        return [openvino.Node("logits", "tensor(float)", [None, 3])]

    def run(self, *_: object) -> None:
        raise RuntimeError("Exception from src/inference.cpp:1:\nno\nmemory")


def test_a_run_that_fails_is_one_line() -> None:
    session = GraphSession(FakeSession(), "openvino", 1, "openvino 2026.1.0")
    with pytest.raises(PackageError, match=r"^the graph failed on pixels uint8 \(1, 6, 8, 3\): no memory$"):
        session.run(np.zeros((1, 6, 8, 3), dtype=np.uint8))


def test_a_package_that_does_not_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r"^cannot import openvino \(.*\): pip install 'mlic-runtime\[openvino\]'$"):
        load_library()


def test_its_telemetry_stays_out_while_it_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("")
    (tmp_path / "openvino.py").write_text(
        "try:\n    import openvino_telemetry\n    telemetry = True\nexcept ImportError:\n    telemetry = False\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("openvino", "openvino_telemetry"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert load_library().telemetry is False
    import openvino_telemetry  # others may

    assert openvino_telemetry
    del sys.modules["openvino"]  # not by monkeypatch, which would bring the stand-in back
    assert load_library().telemetry is True, "the program imported it itself"
    for name in ("openvino", "openvino_telemetry"):
        del sys.modules[name]


def test_without_the_package_the_command_says_what_to_install(tiny: Path) -> None:
    result = CliRunner().invoke(infer, ["x.jpg", "--model", str(tiny), "--provider", "openvino"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: provider 'openvino' needs the package openvino, which is not installed: "
        "pip install 'mlic-runtime[openvino]'; available here: cpu, auto\n"
    )


def test_without_the_package_the_benchmark_says_what_to_install(tiny: Path) -> None:
    with pytest.raises(ProviderError, match=r"pip install 'mlic-runtime\[openvino\]'"):
        OpenVINOBackend(load_package(tiny), 1, None, "fp32")
