"""An int8 graph from a float32 one: static quantization in QDQ form, block by block.

QuantizeLinear and DequantizeLinear are standard operators; ONNX Runtime fuses them with what stands between them into
int8 kernels. Activations are uint8 with the ranges of real rows, weights int8 per channel with 7 bits, because AVX2
without VNNI adds two products in 16 bits, which 8 bits would overflow
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range").

Quantized are the operators with weights (and what is fused with them: activations and residual sums): convolutions,
products with a constant matrix, embeddings. Everything else stays in float32: sums with attention masks and of logits
have ranges that 256 steps do not cover, and cost no time. So do LSTMs, for which there is no standard int8 operator.
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
    """Operators that are quantized together or not at all, so that no lone one costs two conversions.

    Attributes:
        name: of the module in PyTorch.
        operators: the names of the graph's nodes.
    """

    name: str
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Noise:
    """What quantizing one block alone does: the mean squared change of a logit."""

    block: Block
    mean_square: float


class Quantizer:
    """Quantizes a graph, in whole or in part.

    Args:
        graph: the float32 graph, an ONNX file's content.
        ranges: of its tensors, on rows like those it will see.
    """

    def __init__(self, graph: bytes, ranges: Ranges) -> None:
        self._model = save_and_reload_model_with_shape_infer(onnx.load_from_string(graph))
        self._ranges = ranges
        self.blocks = _find_blocks(self._model.graph)

    def quantize(self, blocks: Sequence[Block]) -> bytes:
        """The graph with these of its blocks in int8; none gives a graph in float32."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)  # the quantizer changes what it is given
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
                extra_options={},  # not optional, whatever its default
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()  # it appends its nodes; ONNX wants them before those that read them
            model = quantizer.model.model
        del model.metadata_props[:]  # the quantizer's own notes
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def measure_noise(self, feeds: Sequence[Inputs]) -> list[Noise]:
        """What each block does to the logits of these batches, the worst first. Noise of several blocks adds up."""
        expected = _logits(self.quantize([]), feeds)
        noise = [
            Noise(block, float(np.square(_logits(self.quantize([block]), feeds) - expected).mean()))
            for block in self.blocks
        ]
        return sorted(noise, key=lambda found: found.mean_square, reverse=True)


def _logits(graph: bytes, feeds: Sequence[Inputs]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([LOGITS], feed)[0] for feed in feeds])


def _find_blocks(graph: onnx.GraphProto) -> list[Block]:
    """What can be quantized, in the graph's order: a block for each block of the backbone and each other operator."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    members: dict[str, list[str]] = defaultdict(list)
    convolved: dict[str, str] = {}  # tensor that comes from convolutions -> block that it belongs to
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
    """Whether it is an embedding, and not indices or a shape."""
    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _module(operator: str) -> str:
    """The module around an operator's own ("/backbone/layer1/layer1.0" of ".../layer1.0/conv1/Conv").

    What stands alone in its top-level module ("/backbone/conv_stem/Conv") is its own block.
    """
    parts = operator.split("/")
    around = parts[:-1] if operator.endswith("/Add") else parts[:-2]
    return "/".join(around if len(around) > 2 else parts[:-1])
