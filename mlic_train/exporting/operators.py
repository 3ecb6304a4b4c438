"""The operators and tensor types that a graph may have, so that ONNX Runtime runs it in browsers and on phones too.

ONNX Runtime's packages for the web (WebAssembly), Android and iOS have the kernels of all standard operators
(https://github.com/microsoft/onnxruntime/blob/main/js/web/README.md, "Operators"; microsoft/onnxruntime#20941). GPUs,
NPUs and reduced builds have fewer types: those of TYPES suffice for all precisions.
"""

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto

from mlic_runtime.package.graph_safety import STANDARD_DOMAINS
from mlic_train.errors import ExportError

TYPES = frozenset({"FLOAT", "FLOAT16", "UINT8", "INT8", "INT32", "INT64", "BOOL"})


def check_operators(graph: bytes) -> None:
    """Refuse a graph that needs more than standard operators and common tensor types.

    Raises:
        ExportError: the graph has an operator of another domain or a function of its own; onnx's checker refuses it (an
            operator that its opset lacks or deprecates, a node before one whose output it reads); a tensor's type is
            unknown or not in TYPES. Subgraphs and tensors in attributes are checked too. The message names the first.
    """
    model = onnx.load_from_string(graph)
    if model.functions:
        raise ExportError(f"the graph has a function of its own, {model.functions[0].name!r}; expected operators only")
    for node in (node for part in _subgraphs(model.graph) for node in part.node):
        if node.domain not in STANDARD_DOMAINS:
            raise ExportError(
                f"the graph's operator {node.op_type!r} of domain {node.domain!r} (node {node.name!r}) is not in the "
                "ONNX standard"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid ONNX: {' '.join(str(error).split())}") from None
    for part in _subgraphs(inferred.graph):
        _check_types(part)


def _check_types(graph: onnx.GraphProto) -> None:
    types = dict(tensor_types(graph))
    for name, kind in types.items():
        if kind not in TYPES:
            raise ExportError(f"the graph's tensor {name!r} is {kind}; expected one of {', '.join(sorted(TYPES))}")
    unknown = next((name for node in graph.node for name in node.output if name and name not in types), None)
    if unknown is not None:
        raise ExportError(f"the type of the graph's tensor {unknown!r} cannot be inferred")


def tensor_types(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Yield (name, type) of weights, inputs, outputs, values in between, and tensors in attributes."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.WhichOneof("value")  # a sequence, map or optional value is no tensor
        yield value.name, _type_name(value.type.tensor_type.elem_type) if kind == "tensor_type" else str(kind)
    for tensor in graph.initializer:
        yield tensor.name, _type_name(tensor.data_type)
    for node in graph.node:
        for attribute in node.attribute:
            tensors = (*([attribute.t] if attribute.type == AttributeProto.TENSOR else []), *attribute.tensors)
            for index, tensor in enumerate(tensors):
                yield f"{node.name or node.op_type}.{attribute.name}[{index}]", _type_name(tensor.data_type)


def _type_name(data_type: int) -> str:
    return str(TensorProto.DataType.Name(data_type))


def _subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph itself, and the branches and bodies of its If, Loop and Scan."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for part in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _subgraphs(part)
