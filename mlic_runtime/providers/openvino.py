"""The package `openvino`: graphs compiled for the CPU, behind the few methods of ONNX Runtime's session that we use.

The runtime imports `openvino` from here only. It is an extra: pip install 'mlic-runtime[openvino]'.
"""

import contextlib
import importlib.util
import io
import json
import os
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlic_runtime.base.text import error_line
from mlic_runtime.errors import ProviderError

from .names import HOW_TO_GET

if TYPE_CHECKING:
    import numpy.typing as npt

_TYPES = {"u8": "tensor(uint8)", "i64": "tensor(int64)", "f32": "tensor(float)", "f16": "tensor(float16)"}
_HEAD = struct.Struct("<I")  # bytes of the JSON in front of a saved graph
_TELEMETRY = "openvino_telemetry"


class Node(NamedTuple):
    """An input or output of a graph, as ONNX Runtime describes it; an open side is None."""

    name: str
    type: str
    shape: list[int | None]


def is_installed() -> bool:
    """Return whether the package `openvino` is there; it is not imported."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"] is not None
    return importlib.util.find_spec("openvino") is not None


def load_library() -> Any:
    """Return the package `openvino`.

    Its converter reports to its makers, over the network, and keeps an identifier in the user's home folder as soon as
    it is imported with `openvino_telemetry`. It does without that package where it is missing, so it does not see it.
    A program that imported `openvino` itself before decides for itself.

    Raises:
        ProviderError: it is missing or does not load.
    """
    try:
        with _hidden(_TELEMETRY):
            import openvino
    except ImportError as error:
        raise ProviderError(f"cannot import openvino ({error_line(error)}): {HOW_TO_GET}") from error
    return openvino


@cache
def library_version() -> str:
    """Return the version of `openvino`, such as "2026.4.1".

    Raises:
        ProviderError: it is missing or does not load.
    """
    return str(load_library().__version__).partition("-")[0]


class OpenVINOSession:
    """A compiled graph with the methods of `onnxruntime.InferenceSession` that `GraphSession` uses. Thread-safe.

    Runs wait for each other: `threads` is what OpenVINO uses in all, in one stream, so a second run could only wait
    inside. A graph computes what it was compiled for, so the outputs for people (evidence) are compiled when they are
    first fetched, and a plain run does not compute them.

    Args:
        graph: the content of an .onnx file.
        first: names of the outputs that are compiled at once.
        threads: threads of one run.
        saved: what an earlier session of the same graph, version and processor wrote to `save_to`; it loads faster.
        save_to: write the compiled graph to this file.

    Raises:
        ProviderError: OpenVINO is missing.
        Exception: OpenVINO cannot read or compile the graph, or load what was saved; it has no error class of its own.
    """

    def __init__(
        self,
        graph: bytes,
        first: Sequence[str],
        *,
        threads: int,
        saved: bytes | None = None,
        save_to: Path | None = None,
    ) -> None:
        _require_no_fork()
        self._openvino = load_library()
        self._core = _core()
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            # Otherwise a CPU with bfloat16 computes a float32 graph in bfloat16, which is another model.
            "INFERENCE_PRECISION_HINT": "f32",
            # Every process would pin its threads to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._lock = threading.Lock()
        if saved is None:
            model = self._core.read_model(graph)
            self._inputs, self._outputs = ([_node(port) for port in ports] for ports in (model.inputs, model.outputs))
            compiled = self._compile(model, first)
        else:
            self._inputs, self._outputs, blob = _unpack(saved)
            compiled = self._core.import_model(blob, "CPU", self._config)
        if save_to is not None:
            save_to.write_bytes(_pack(self._inputs, self._outputs, _exported(compiled)))
        self._requests = {frozenset(first): compiled.create_infer_request()}
        # Kept to compile the other outputs, if there are any.
        self._graph = graph if {node.name for node in self._outputs} - set(first) else b""

    def get_inputs(self) -> list[Node]:
        """Return the inputs of the graph."""
        return self._inputs

    def get_outputs(self) -> list[Node]:
        """Return all outputs of the graph."""
        return self._outputs

    def run(
        self, names: Sequence[str], feed: "dict[str, npt.NDArray[Any]]", options: object = None
    ) -> "list[npt.NDArray[Any]]":
        """Return the named outputs for these inputs, in arrays of their own.

        Args:
            names: of outputs.
            feed: {name: array} of all inputs.
            options: not used; ONNX Runtime's.

        Raises:
            Exception: as the constructor's.
        """
        with self._lock:
            key = frozenset(names)
            if key not in self._requests:
                self._requests[key] = self._compile(self._core.read_model(self._graph), names).create_infer_request()
            result = self._requests[key].infer(feed, share_inputs=True)
            return [result[name].copy() for name in names]  # copies: the next run reuses the request's memory

    def _compile(self, model: Any, names: Sequence[str]) -> Any:
        results = [model.output(name).get_node() for name in names]
        # OpenVINO 2026.4 merges a sum over an axis with the addition of a bias behind it, and then adds wrong values in
        # every batch of more than one row: 0.1 in the logits of hybrid. What is an output as well is not merged.
        for node in model.get_ordered_ops():
            if node.get_type_name().startswith("Reduce"):
                results.append(self._openvino.opset1.result(node.output(0)))
        model = self._openvino.Model(results, model.get_parameters(), "graph")
        return self._core.compile_model(model, "CPU", self._config)


def reason(error: BaseException) -> str:
    """Return what an error of OpenVINO says, on one line, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith("Exception from ")]
    return " ".join(" ".join(kept).split()) or error_line(error)


@cache
def _core() -> Any:
    """Return the one `Core` of this process.

    It is never freed: its threads wait for the next graph, and a forked child, which has the object and not the
    threads, aborts if it frees it.
    """
    import ctypes

    core = load_library().Core()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))
    return core


_process = 0  # that first loaded a graph


def _require_no_fork() -> None:
    """Check that no process above this one used OpenVINO before the fork: its threads are gone, and a run would wait.

    Raises:
        ProviderError: one did.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise ProviderError(
            f"process {_process} used OpenVINO before its fork {os.getpid()}, which therefore cannot: load models only "
            "in the workers (gunicorn: without --preload), or start workers with 'spawn'"
        )


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make `import name` fail inside the block, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # documented: the import then fails
    try:
        yield
    finally:
        del sys.modules[name]


def _node(port: Any) -> Node:
    shape = port.get_partial_shape()
    sides = [] if shape.rank.is_dynamic else [None if side.is_dynamic else int(side.get_length()) for side in shape]
    kind = port.get_element_type().get_type_name()
    return Node(port.get_any_name(), _TYPES.get(kind, f"tensor({kind})"), sides)


def _exported(compiled: Any) -> bytes:
    exported = compiled.export_model()
    return exported.getvalue() if isinstance(exported, io.BytesIO) else bytes(exported)


def _pack(inputs: list[Node], outputs: list[Node], blob: bytes) -> bytes:
    head = json.dumps([inputs, outputs]).encode()
    return _HEAD.pack(len(head)) + head + blob


def _unpack(saved: bytes) -> tuple[list[Node], list[Node], bytes]:
    (size,) = _HEAD.unpack_from(saved)
    end = _HEAD.size + size
    inputs, outputs = ([Node(*node) for node in nodes] for nodes in json.loads(saved[_HEAD.size : end]))
    return inputs, outputs, saved[end:]
