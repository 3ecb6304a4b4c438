"""float16 in graphs: to compute with, where nothing would overflow; to store weights, where none of them changes."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from .ranges import Ranges

LIMIT = 65504.0 / 4
"""The largest value for float16. Its own limit is four times as large, since other rows may give larger values."""


_WORTH_A_CAST = 1024  # values: smaller tensors would save less than the operator's own bytes and time


def to_float16(graph: bytes, ranges: Ranges) -> tuple[bytes, tuple[str, ...]]:
    """Convert weights and arithmetic of a float32 graph to float16; inputs and outputs keep their types.

    Returns:
        The graph, and the names of the operators that stay in float32 because one of their values exceeds LIMIT.
    """
    model = onnx.load_from_string(graph)
    largest = {**ranges.largest(), **{tensor.name: _largest(tensor) for tensor in model.graph.initializer}}
    kept = tuple(
        node.name
        for node in model.graph.node
        if any(largest.get(name, 0.0) > LIMIT for name in (*node.input, *node.output))
    )
    converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(kept))
    _remove_cast_pairs(converted.graph)
    data: bytes = converted.SerializeToString(deterministic=True)
    return data, kept


def store_as_float16(graph: bytes) -> bytes:
    """Store float32 weights as float16 in front of a Cast, where that changes none of them.

    Those of a checkpoint in float16 (`runs.folder.save_half`) are such, unless something was folded into them. ONNX
    Runtime and OpenVINO cast them once, when they load the graph.
    """
    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _WORTH_A_CAST:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half, values):
            name, stored = tensor.name, f"{tensor.name}_float16"
            tensor.CopyFrom(numpy_helper.from_array(half, stored))
            casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}_Cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]  # ONNX requires nodes before their readers
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _remove_cast_pairs(graph: onnx.GraphProto) -> None:
    """Remove float32 -> float16 -> float32, which the converter puts between operators that stay in float32."""
    made_by = {name: node for node in graph.node for name in node.output}
    renamed: dict[str, str] = {}
    for node in graph.node:
        before = made_by.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if before is not None and _casts_to(before, onnx.TensorProto.FLOAT16):
            renamed[node.output[0]] = before.input[0]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):  # the second of each pair, then the first
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [node for node in graph.node if _casts_to(node, kind) and node.output[0] not in used]:
            graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def _largest(tensor: onnx.TensorProto) -> float:
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return 0.0
    return float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
