"""Channels of one size: a graph that computes the same, but whose tensors lose less when they are rounded.

A tensor has one step for all of its channels, so the channels with small values are rounded much too coarsely. Where
nothing but convolutions and sums stand between (the narrow tensors between the blocks of a MobileNet or EfficientNet),
each channel can be divided by a number, if the convolutions that read it multiply by it: "cross-layer equalization",
Nagel et al. 2019, arXiv:1906.04721, section 4.1.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from .inputs import Inputs

_SMALLEST = 1e-3  # of the largest channel: smaller ones count as being of this size


def equalize(graph: bytes, batches: Sequence[Inputs]) -> bytes:
    """Return the graph with channels of one size where that is possible, judged by the batches; it computes the same.

    Args:
        graph: a float32 graph.
        batches: {name of an input: array}, rows with a picture.
    """
    model = onnx.load_from_string(graph)
    groups = _find_groups(model.graph)
    if not groups or not batches:
        return graph
    sizes = _measure_sizes(model, [tensor for group in groups for tensor in group], batches)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def multiply(name: str, factors: npt.NDArray[np.float64]) -> None:
        values = numpy_helper.to_array(tensors[name])
        tensors[name].CopyFrom(numpy_helper.from_array((values * factors).astype(np.float32), name))

    for group in groups:
        shares = [sizes[tensor] / max(float(sizes[tensor].max()), 1e-30) for tensor in sorted(group)]
        size = np.mean(shares, axis=0)
        size = np.maximum(size / max(float(size.max()), 1e-30), _SMALLEST)
        for node in model.graph.node:
            if node.op_type != "Conv":
                continue
            if node.output[0] in group:
                multiply(node.input[1], 1 / size[:, None, None, None])
                if len(node.input) > 2:
                    multiply(node.input[2], 1 / size)
            if node.input[0] in group:
                outputs, inputs = tensors[node.input[1]].dims[:2]
                of_group = size.reshape(-1, 1, inputs)  # of each group of the convolution
                factors = np.broadcast_to(of_group, (len(of_group), outputs // len(of_group), inputs))
                multiply(node.input[1], factors.reshape(outputs, inputs, 1, 1))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _find_groups(graph: onnx.GraphProto) -> list[set[str]]:
    """Find the sets of tensors whose channels have to be divided alike, because they are added up.

    Such a tensor is the output of a convolution or a sum of such, and only convolutions and sums read it.
    """
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 4}
    biases = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    uses = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    usable = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Conv"
        and node.input[1] in weights
        and all(name in biases for name in node.input[2:])
        and all(uses[name] == 1 for name in node.input[1:])
    }
    group_of: dict[str, set[str]] = {name: {name} for name in usable}
    broken: set[str] = {output.name for output in graph.output}
    for node in graph.node:
        if node.op_type == "Add" and any(name in group_of for name in node.input):
            joined = set().union({node.output[0]}, *(group_of.get(name, {name}) for name in node.input))
            broken |= {name for name in node.input if name not in group_of}
            group_of |= dict.fromkeys(joined, joined)
    unique = {id(group): group for group in group_of.values()}.values()

    def may_change(tensor: str) -> bool:
        return tensor not in broken and all(
            node.op_type == "Add" or (node.op_type == "Conv" and node.output[0] in usable and node.input[0] == tensor)
            for node in readers[tensor]
        )

    return [group for group in unique if all(may_change(tensor) for tensor in group)]


def _measure_sizes(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[Inputs]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return {tensor: the largest absolute value of each of its channels (C)}."""
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    outputs = []
    for tensor in tensors:
        for kind in ("ReduceMax", "ReduceMin"):
            outputs.append(f"{tensor}/{kind}")
            measuring.graph.node.append(helper.make_node(kind, [tensor], [outputs[-1]], axes=[0, 2, 3], keepdims=0))
            measuring.graph.output.append(helper.make_tensor_value_info(outputs[-1], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(measuring.SerializeToString(), providers=["CPUExecutionProvider"])
    ends = [session.run(outputs, batch) for batch in batches]
    largest = [np.max([np.abs(of_batch[index]) for of_batch in ends], axis=0) for index in range(len(outputs))]
    return {
        tensor: np.maximum(largest[2 * index], largest[2 * index + 1]).astype(np.float64)
        for index, tensor in enumerate(tensors)
    }
