"""An int8 graph from a float32 one: static quantization in QDQ form, block by block.

QuantizeLinear and DequantizeLinear are standard operators; ONNX Runtime fuses them with the operators between them into
int8 kernels. Activations are uint8 with the ranges of real rows. Weights are int8 per channel: with 8 bits in the graph
for processors with VNNI or the ARM dot product, with 7 in the graph for every processor, because x86 without VNNI adds
two products in 16 bits, which would overflow with 8 bits
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range").

The operators with weights are quantized (convolutions, products with a constant matrix, embeddings), and the
activations and residual sums that are fused with them. Everything else stays in float32: sums with attention masks and
of logits have ranges that 256 steps do not cover, and they cost no time; for LSTMs there is no standard int8 operator.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

from mlic_runtime.base.machine import has_dot_product
from mlic_runtime.graph.session import GraphSession, create_session
from mlic_runtime.package.manifest import FULL_RANGE, REDUCED_RANGE

from .inputs import Inputs
from .ranges import Ranges
from .rounding import Floats, choose_steps, round_weight

_WEIGHTED = ("Conv", "MatMul", "Gemm", "Gather")
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
class Effect:
    """What quantizing one block alone does.

    Attributes:
        block: the block.
        mean_square: the noise, which is the mean squared change of a logit. That of several blocks adds up.
        saving: the block's share of the multiplications of a row plus its share of the weights. int8 saves time with
            the ones and bytes with the others.
    """

    block: Block
    mean_square: float
    saving: float


class Quantizer:
    """A float32 graph whose blocks can be quantized, with the ranges of its tensors.

    Args:
        graph: the graph.
        ranges: of its tensors.
        weight_bits: 8, or 7 for every processor: see the top of this module.
    """

    def __init__(self, graph: bytes, ranges: Ranges, weight_bits: int = 7) -> None:
        self._model = save_and_reload_model_with_shape_infer(onnx.load_from_string(graph))
        self._ranges = ranges
        self._weight_bits = weight_bits
        # {convolution: its rounded weights and their steps}
        self._rounded: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}
        self.blocks = _find_blocks(self._model.graph)
        # Convolutions, and those whose weights are rounded one by one: their inputs' covariance is not known.
        weights = {tensor.name for tensor in self._model.graph.initializer}
        convolutions = [n.name for n in self._model.graph.node if n.op_type == "Conv" and n.input[1] in weights]
        self.num_convolutions = len(convolutions)
        self.num_rounded_alone = sum(name not in ranges.covariances for name in convolutions)

    def quantize(self, blocks: Sequence[Block]) -> bytes:
        """Return the graph with these blocks in int8; without any block it is in float32."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)  # the quantizer changes its argument
        operators = {name for block in blocks for name in block.operators}
        if operators:
            means, covariances = dict(self._ranges.means), dict(self._ranges.covariances)
            pixels = _read_pixels_directly(model.graph, operators, means, covariances)
            steps = self._round_weights(model.graph, operators, means, covariances)
            known = dict(self._ranges.data.data)
            for name, (low, high) in self._ranges.ends.items():
                known[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
            if pixels is not None:
                known[pixels.name] = TensorData(lowest=pixels.lowest, highest=pixels.highest)
            ranges = TensorsData(self._ranges.data.calibration_method, known)
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=self._weight_bits == 7,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=ranges,
                nodes_to_quantize=sorted(operators),
                nodes_to_exclude=[],
                op_types_to_quantize=sorted({node.op_type for node in model.graph.node if node.name in operators}),
                extra_options={"TensorQuantOverrides": steps},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()  # ONNX requires nodes before their readers; new ones are at the end
            model = quantizer.model.model
            if pixels is not None:
                _skip_second_quantization(model.graph, pixels.name)
            _remove_unread(model.graph)
        del model.metadata_props[:]  # notes of the quantizer
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _round_weights(
        self,
        graph: onnx.GraphProto,
        operators: set[str],
        means: Mapping[str, npt.NDArray[np.float32]],
        covariances: Mapping[str, Floats],
    ) -> dict[str, list[dict[str, object]]]:
        """Round the convolutions' weights, see `rounding`, and correct their biases.

        What rounding changes in the mean of the output is taken off the bias ("bias correction", Nagel et al. 2019,
        arXiv:1906.04721, section 4.2): error of the weights * mean of the input.

        Returns:
            {weight: its steps}, as the quantizer takes them.
        """
        limit = 64 if self._weight_bits == 7 else 127
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        readers = Counter(name for node in graph.node for name in node.input)
        steps_of: dict[str, list[dict[str, object]]] = {}
        for node in graph.node:
            if (
                node.op_type != "Conv"
                or node.name not in operators
                or any(readers[name] > 1 for name in node.input[1:])
            ):
                continue
            weight = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
            if node.name not in self._rounded:
                step = choose_steps(weight, limit)
                together = round_weight(weight, step, limit, covariances.get(node.name))
                self._rounded[node.name] = together.astype(np.float32), step.astype(np.float32)
            rounded, steps = self._rounded[node.name]
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(rounded, node.input[1]))
            steps_of[node.input[1]] = [{"axis": 0, "scale": each, "zero_point": np.int8(0)} for each in steps]
            mean = means.get(node.input[0])
            if mean is None or len(node.input) < 3:
                continue
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            of_group = mean.reshape(groups, 1, -1)
            error_sums = (rounded - weight).sum(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
            bias = numpy_helper.to_array(tensors[node.input[2]]) - (error_sums * of_group).sum(axis=2).reshape(-1)
            tensors[node.input[2]].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))
        return steps_of

    def measure_effects(self, batches: Sequence[Inputs]) -> list[Effect]:
        """Measure the effect of each block on the logits of these batches, those with the most noise first."""
        expected = self._logits([], batches)
        savings = self._measure_savings(batches[0])
        effects = [
            Effect(block, float(np.square(self._logits([block], batches) - expected).mean()), saving)
            for block, saving in zip(self.blocks, savings, strict=True)
        ]
        return sorted(effects, key=lambda effect: effect.mean_square, reverse=True)

    def _measure_savings(self, batch: Inputs) -> list[float]:
        """Return `Effect.saving` of each block; the shapes that multiplications follow from are those of the batch."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        operators = {node.name: node for node in model.graph.node}
        weighted = [
            [
                (operators[name].output[0], sizes[weight], operators[name].op_type)
                for name in block.operators
                for weight in operators[name].input[:2]
                if operators[name].op_type in _WEIGHTED and weight in sizes
            ]
            for block in self.blocks
        ]
        known = {output.name for output in model.graph.output}
        outputs = sorted({output for of_block in weighted for output, *_ in of_block})
        model.graph.output.extend(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name not in known
        )
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        shapes = dict(zip(outputs, (array.shape for array in session.run(outputs, batch)), strict=True))

        def multiplications(output: str, weight: tuple[int, ...], operator: str) -> float:
            if operator == "Gather":
                return 0.0
            # Each value of a channel is a product with that channel's share of the weights.
            channels = shapes[output][1 if operator == "Conv" else -1]
            return float(np.prod(shapes[output]) * np.prod(weight) / channels)

        work = [sum(multiplications(*each) for each in of_block) for of_block in weighted]
        weights = [float(sum(np.prod(weight) for _, weight, _ in of_block)) for of_block in weighted]
        all_work, all_weights = max(sum(work), 1.0), sum(weights)
        return [mine / all_work + own / all_weights for mine, own in zip(work, weights, strict=True)]

    def _logits(self, blocks: Sequence[Block], batches: Sequence[Inputs]) -> npt.NDArray[np.float32]:
        session = session_for_parity(self.quantize(blocks), FULL_RANGE if self._weight_bits == 8 else REDUCED_RANGE)
        return np.concatenate([session.run(*batch.values()) for batch in batches])  # type: ignore[arg-type] # in order


def session_for_parity(graph: bytes, precision: str) -> GraphSession:
    """Return a session that computes what a graph computes on the processors that it is for, if slowly.

    Where this one lacks the dot product, products of 8-bit weights would overflow in int8; unfused, they are floats.
    """
    if precision != FULL_RANGE or has_dot_product():
        return create_session(graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return GraphSession(session, "cpu", 1, f"onnxruntime {onnxruntime.__version__}")


class _PixelTensor(NamedTuple):
    """A float tensor that holds nothing but pixels on another scale: what 0 and 255 are in it, float32 each."""

    name: str
    lowest: npt.NDArray[np.float32]
    highest: npt.NDArray[np.float32]


def _read_pixels_directly(
    graph: onnx.GraphProto,
    operators: set[str],
    means: dict[str, npt.NDArray[np.float32]],
    covariances: dict[str, Floats],
) -> _PixelTensor | None:
    """Let the first convolution read the pixels as they are, if it is to be quantized; return its new input, or None.

    Pixels are eight bits already. With the convolution's weights W and bias b, the mean m_c and standard deviation s_c
    of channel c, the zero point z = round(mean of m_c) and the scale s = mean of s_c:
    W_c * (x - m_c) / s_c = (W_c * s / s_c) * (x - z) / s - W_c * (m_c - z) / s_c, whose last term is constant and goes
    into the bias. So normalisation costs neither time nor rounding; as operators of their own it took a fifth of
    the time of the int8 graph. Only what is padded changes, from 0 to (z - m_c) / s_c: 1/255 where all m_c are 127.5.
    The means of the new input's channels are added to `means`, and the covariance is that of the new input.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for convolution in graph.node:
        if convolution.op_type != "Conv" or convolution.name not in operators or len(convolution.input) < 3:
            continue
        chain = [made_by.get(convolution.input[0])]
        while chain[-1] is not None and chain[-1].op_type in ("Div", "Sub", "Cast"):
            chain.append(made_by.get(chain[-1].input[0]))
        if [node.op_type if node is not None else "" for node in chain] != ["Div", "Sub", "Cast", "Transpose"]:
            continue
        division, subtraction, _, planes = (node for node in chain if node is not None)
        mean, std = (constants[node.input[1]].astype(np.float64).reshape(-1) for node in (subtraction, division))
        zero, scale = int(np.clip(np.round(mean.mean()), 0, 255)), float(std.mean())
        weight, bias = (constants[name].astype(np.float64) for name in convolution.input[1:3])
        bias = bias - (weight * ((mean - zero) / std)[None, :, None, None]).sum(axis=(1, 2, 3))
        weight = weight * (scale / std)[None, :, None, None]
        values = {
            "scale": np.float32(1 / scale),
            "zero_point": np.uint8(zero),
            "weight": weight.astype(np.float32),
            "bias": bias.astype(np.float32),
        }
        names = {what: f"{convolution.name}_{what}" for what in ("pixels", *values)}
        graph.initializer.extend(numpy_helper.from_array(np.asarray(values[w]), names[w]) for w in values)
        inputs = [planes.output[0], names["scale"], names["zero_point"]]
        node = helper.make_node("DequantizeLinear", inputs, [names["pixels"]], name=names["pixels"])
        graph.node.insert(list(graph.node).index(convolution), node)
        if (of_channels := means.get(convolution.input[0])) is not None:
            means[names["pixels"]] = ((of_channels * std + mean - zero) / scale).astype(np.float32)
        if (covariance := covariances.get(convolution.name)) is not None:
            of_inputs = np.repeat(np.broadcast_to(std, len(weight[0])) / scale, weight[0, 0].size)
            covariances[convolution.name] = covariance * of_inputs[:, None] * of_inputs
        shape = next(info for info in graph.value_info if info.name == convolution.input[0])
        graph.value_info.add().CopyFrom(shape)
        graph.value_info[-1].name = names["pixels"]
        convolution.input[:] = [names["pixels"], names["weight"], names["bias"]]
        ends = (np.asarray((end - zero) / scale, dtype=np.float32) for end in (0, 255))
        return _PixelTensor(names["pixels"], *ends)
    return None


def _skip_second_quantization(graph: onnx.GraphProto, tensor: str) -> None:
    """Let the readers of a dequantized tensor that was quantized once more read the tensor itself."""
    again = [node.output[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == tensor]
    copies = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in again}
    for node in graph.node:
        node.input[:] = [tensor if name in copies else name for name in node.input]


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes whose outputs nobody reads, then what only they read: ONNX Runtime would run and load it."""
    read = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):  # readers are behind what they read
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


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
