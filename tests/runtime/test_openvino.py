import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlic_runtime.bench.inputs import package_inputs
from mlic_runtime.bench.openvino import OpenVINOBackend
from mlic_runtime.errors import InputError, PackageError
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.model_package import load_package


class FakeCore:
    """Stands in for OpenVINO: runs the graph in ONNX Runtime, always into the same memory."""

    seen: "tuple[str, dict[str, Any]]"
    broken = False

    def read_model(self, graph: bytes) -> bytes:
        return graph

    def compile_model(self, graph: bytes, device: str, config: "dict[str, Any]") -> "FakeCore":
        if self.broken:
            raise RuntimeError("no\nsuch operator")
        type(self).seen = (device, config)
        self.session = create_session(graph)
        self.memory = np.zeros((2, 3), dtype=np.float32)
        return self

    def create_infer_request(self) -> "FakeCore":
        return self

    def infer(self, feed: "dict[str, Any]", share_inputs: bool) -> "dict[str, Any]":
        if len(feed["pixels"]) != 2:
            raise RuntimeError("no\nmemory")
        self.memory[:] = self.session.run(**feed)
        return {"logits": self.memory}


@pytest.fixture
def fake_openvino(monkeypatch: pytest.MonkeyPatch) -> "type[FakeCore]":
    module: Any = ModuleType("openvino")
    module.__version__ = "2026.1.0-123-abc"
    module.Core = type("Core", (FakeCore,), {})
    monkeypatch.setitem(sys.modules, "openvino", module)
    core: type[FakeCore] = module.Core
    return core


def test_the_same_graph_runs_with_the_same_threads(fake_openvino: "type[FakeCore]", tiny: Path) -> None:
    package = load_package(tiny)
    backend = OpenVINOBackend(package, 3, None, "fp16")
    assert (backend.name, backend.version) == ("openvino", "2026.1.0")
    device, config = fake_openvino.seen
    assert (device, config["INFERENCE_NUM_THREADS"], config["PERFORMANCE_HINT"]) == ("CPU", 3, "LATENCY")
    inputs = package_inputs(package, caption="red", batch_size=2)
    expected = create_session(package.read_graph("fp16")).run(*inputs.arrays)
    found = backend.run(*inputs.arrays)
    np.testing.assert_array_equal(found, expected)
    backend.run(np.zeros_like(inputs.pixels), inputs.input_ids, inputs.attention_mask)
    np.testing.assert_array_equal(found, expected)


def test_a_model_without_captions_has_one_input(fake_openvino: "type[FakeCore]", tiny_picture: Path) -> None:
    package = load_package(tiny_picture)
    inputs = package_inputs(package, batch_size=2)
    assert OpenVINOBackend(package, 1, None, "fp32").run(*inputs.arrays).shape == (2, 3)


def test_what_openvino_refuses_is_one_line(fake_openvino: "type[FakeCore]", tiny: Path) -> None:
    package = load_package(tiny)
    with pytest.raises(PackageError, match=r"^OpenVINO failed: no memory$"):
        OpenVINOBackend(package, 1, None, "fp32").run(*package_inputs(package).arrays)
    fake_openvino.broken = True
    with pytest.raises(PackageError, match=r"^OpenVINO cannot compile the fp32 graph: no such operator$"):
        OpenVINOBackend(package, 1, None, "fp32")


def test_without_openvino_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install openvino$"):
        OpenVINOBackend(load_package(tiny), 1, None, "fp32")
