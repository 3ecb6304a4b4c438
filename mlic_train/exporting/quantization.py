"""An int8 graph from a float32 one: static quantization in QDQ form, block by block.

QuantizeLinear and DequantizeLinear are standard operators; ONNX Runtime fuses them with the operators between them into
int8 kernels. Activations are uint8 with the ranges of real rows. Weights are int8 per channel with 7 bits, because AVX2
without VNNI adds two products in 16 bits, which would overflow with 8 bits
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range").

The operators with weights are quantized (convolutions, products with a constant matrix, embeddings), and the
activations and residual sums that are fused with them. Everything else stays in float32: sums with attention masks and
of logits have ranges that 256 steps do not cover, and they cost no time; for LSTMs there is no standard int8 operator.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

from mlic_runtime.graph.session import LOGITS

from .ranges import Inputs, Ranges

_ACTIVATIONS = ("Clip", "Relu")  # ONNX Runtime fuses these with a quantized convolution


@dataclass(frozen=True)
class Block:
    """Operators that are quantized together or not at all, because a single one would cost two conversions.

    Attributes:
        name: the module's name in PyTorch.
        operators: the names of the graph's nodes.
    """

    name: str
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Noise:
    """The effect of quantizing one block alone: the mean squared change of a logit."""

    block: Block
    mean_square: float


class Quantizer:
    """A float32 graph whose blocks can be quantized, with the ranges of its tensors."""

    def __init__(self, graph: bytes, ranges: Ranges) -> None:
        self._model = save_and_reload_model_with_shape_infer(onnx.load_from_string(graph))
        self._ranges = ranges
        self.blocks = _find_blocks(self._model.graph)

    def quantize(self, blocks: Sequence[Block]) -> bytes:
        """Return the graph with these blocks in int8; without any block it is in float32."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)  # the quantizer changes its argument
        operators = {name for block in blocks for name in block.operators}
        if operators:
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=True,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges.data,
                nodes_to_quantize=sorted(operators),
                nodes_to_exclude=[],
                op_types_to_quantize=sorted({node.op_type for node in model.graph.node if node.name in operators}),
                extra_options={},  # its default fails
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()  # ONNX requires nodes before their readers; new ones are at the end
            model = quantizer.model.model
        del model.metadata_props[:]  # notes of the quantizer
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def measure_noise(self, batches: Sequence[Inputs]) -> list[Noise]:
        """Measure the noise of each block in the logits of these batches, largest first; noise of blocks adds up."""
        expected = _logits(self.quantize([]), batches)
        noise = [
            Noise(block, float(np.square(_logits(self.quantize([block]), batches) - expected).mean()))
            for block in self.blocks
        ]
        return sorted(noise, key=lambda of_block: of_block.mean_square, reverse=True)


def _logits(graph: bytes, batches: Sequence[Inputs]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([LOGITS], batch)[0] for batch in batches])


def _find_blocks(graph: onnx.GraphProto) -> list[Block]:
    """Find what can be quantized, in the graph's order: each block of the backbone, and each other operator alone."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    members: dict[str, list[str]] = defaultdict(list)
    convolved: dict[str, str] = {}  # {tensor computed by convolutions: its block}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            block = _module(node.name)
        elif node.op_type in _ACTIVATIONS and node.input[0] in convolved:
            block = convolved[node.input[0]]
        elif node.op_type == "Add" and all(name in convolved for name in node.input):
            block = _module(node.name)
        elif (node.op_type in ("MatMul", "Gemm") and node.input[1] in weights) or (
            node.op_type == "Gather" and _is_table(weights.get(node.input[0]))
        ):
            members[node.name].append(node.name)
            continue
        else:
            continue
        members[block].append(node.name)
        convolved[node.output[0]] = block
    return [Block(name, tuple(operators)) for name, operators in members.items()]


def _is_table(tensor: onnx.TensorProto | None) -> bool:
    """Return whether the tensor is an embedding, and not indices or a shape."""
    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _module(operator: str) -> str:
    """Return the module around the operator's own: "/backbone/layer1/layer1.0" for ".../layer1.0/conv1/Conv".

    An operator directly in its top-level module ("/backbone/conv_stem/Conv") is a block of its own.
    """
    parts = operator.split("/")
    around = parts[:-1] if operator.endswith("/Add") else parts[:-2]
    return "/".join(around if len(around) > 2 else parts[:-1])
