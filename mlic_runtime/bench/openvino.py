"""OpenVINO as a competitor in `mlic-bench`; found through the entry point `openvino`."""

from typing import Any

import numpy as np

from mlic_runtime.base.arrays import Logits, Pixels, Tokens
from mlic_runtime.base.override import override
from mlic_runtime.base.text import error_line
from mlic_runtime.errors import InputError, PackageError
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, LOGITS, PIXELS
from mlic_runtime.package.model_package import ModelPackage

from .benchmark import BenchBackend


class OpenVINOBackend(BenchBackend):
    """The same graph, byte for byte, in OpenVINO on the CPU.

    Args:
        package: the package that is measured.
        threads: threads of one inference.
        checkpoint: not used.
        precision: which graph of the package.

    Raises:
        InputError: OpenVINO is not installed.
        PackageError: the package is damaged, or OpenVINO cannot compile the graph.
    """

    name = "openvino"

    def __init__(self, package: ModelPackage, threads: int, checkpoint: str | None, precision: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise InputError(f"it cannot be imported ({error}): pip install openvino") from error
        self.version = str(openvino.__version__).partition("-")[0]
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Otherwise a CPU with bfloat16 computes a float32 graph in bfloat16, which is another model.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        graph = package.read_graph(precision)
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(graph), "CPU", config)
            self._request: Any = compiled.create_infer_request()
        except Exception as error:  # RuntimeError, and any other error of the Python bindings
            raise PackageError(f"OpenVINO cannot compile the {precision} graph: {error_line(error)}") from error

    @override
    def run(self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None) -> Logits:
        arrays = {PIXELS: pixels, INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask}
        inputs = {name: array for name, array in arrays.items() if array is not None}
        try:
            result = self._request.infer(inputs, share_inputs=True)
        except Exception as error:
            raise PackageError(f"OpenVINO failed: {error_line(error)}") from error
        return np.array(result[LOGITS], dtype=np.float32)  # a copy: the next run reuses the request's memory
