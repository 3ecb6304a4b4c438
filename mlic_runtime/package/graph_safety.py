"""The check of the bytes of an ONNX graph before ONNX Runtime reads them, without the onnx library.

ONNX Runtime would open any file that an external tensor names, and a custom operator needs a native library. The code
below reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) of the messages in onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) and skips payloads by their length.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mlic_runtime.errors import PackageError
from mlic_runtime.limits import MAX_GRAPH_DEPTH

STANDARD_DOMAINS = ("", "ai.onnx")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELD_NUMBER = 2**29 - 1  # protobuf's limit; a parser might cut a larger one down to a number that means something

# message -> {field number: message in it}; only fields that can lead to a tensor or a node.
_CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
_NODE_OP_TYPE, _NODE_DOMAIN = 4, 7
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14
_MODEL_GRAPH = 7


class _Field(NamedTuple):
    number: int
    wire_type: int
    integer: int  # the value of a varint, else 0
    payload: memoryview  # of a length-delimited field, else empty


class _MalformedError(Exception):
    """Bytes that are not protobuf."""


def check_graph(graph: bytes, file_name: str) -> None:
    """Refuse an ONNX graph that could reach outside its own bytes.

    Args:
        graph: the content of an .onnx file.
        file_name: its name in an error.

    Raises:
        PackageError: malformed protobuf, no graph in it, a tensor with external data (initializers, attributes,
            subgraphs, functions and training information included), or an operator outside STANDARD_DOMAINS.
    """
    view = memoryview(graph)
    try:
        if all(field.number != _MODEL_GRAPH for field in _fields(view)):
            raise PackageError(f"{file_name} holds no ONNX graph")
        _walk(view, "ModelProto", file_name, 0)
    except _MalformedError as error:
        raise PackageError(f"{file_name} is not a valid ONNX file: {error}") from None


def _walk(view: memoryview, message: str, file_name: str, depth: int) -> None:
    if depth > MAX_GRAPH_DEPTH:
        raise _MalformedError(f"messages are nested more than {MAX_GRAPH_DEPTH} deep")
    fields = list(_fields(view))
    if message == "TensorProto":
        _check_tensor(fields, file_name)
    elif message == "NodeProto":
        _check_node(fields, file_name)
    children = _CHILDREN[message]
    for field in fields:
        child = children.get(field.number)
        if child is not None:
            _expect_bytes(field, message)
            _walk(field.payload, child, file_name, depth + 1)


def _check_tensor(fields: list[_Field], file_name: str) -> None:
    for field in fields:
        # data_location: 0 is DEFAULT and 1 EXTERNAL. Parsers cut an enum to 32 bits, so only 0 is safe.
        external = field.number == _TENSOR_EXTERNAL_DATA or (field.number == _TENSOR_DATA_LOCATION and field.integer)
        if external:
            name = _last_text(fields, _TENSOR_NAME)
            raise PackageError(
                f"{file_name} has a tensor with external data ({name!r}); export it with its data inside"
            )


def _check_node(fields: list[_Field], file_name: str) -> None:
    for field in fields:
        if field.number == _NODE_DOMAIN:
            _expect_bytes(field, "NodeProto")
            domain = _text(field)
            if domain not in STANDARD_DOMAINS:
                operator = _last_text(fields, _NODE_OP_TYPE)
                raise PackageError(
                    f"{file_name} uses operator {operator!r} of domain {domain!r}; "
                    "only standard ONNX operators are accepted"
                )


def _last_text(fields: list[_Field], number: int) -> str:
    """Return a text field; of several the last one, as in every protobuf parser; "" if there is none."""
    texts = [_text(field) for field in fields if field.number == number]
    return texts[-1] if texts else ""


def _text(field: _Field) -> str:
    return bytes(field.payload[:200]).decode("utf-8", "backslashreplace")


def _expect_bytes(field: _Field, message: str) -> None:
    if field.wire_type != _BYTES:
        raise _MalformedError(f"field {field.number} of {message} has wire type {field.wire_type}, expected {_BYTES}")


def _fields(view: memoryview) -> Iterator[_Field]:
    """Yield the fields of one message, in order."""
    empty = view[:0]
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        number, wire_type = key >> 3, key & 7
        integer, payload = 0, empty
        if wire_type == _VARINT:
            integer, position = _varint(view, position)
        elif wire_type == _BYTES:
            length, position = _varint(view, position)
            payload = view[position : position + length]
            position += length
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:
            raise _MalformedError(f"wire type {wire_type} at byte {position}")
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise _MalformedError(f"field number {number} before byte {position}")
        if position > len(view):
            raise _MalformedError(f"a field ends at byte {position} of a message of {len(view)} bytes")
        yield _Field(number, wire_type, integer, payload)


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Read a number of at most 10 bytes, 7 bits each, least significant first; return it and the next position."""
    value = 0
    for index in range(10):
        if position + index >= len(view):
            raise _MalformedError("it ends in the middle of a number")
        byte = view[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _MalformedError(f"a number of more than 10 bytes at byte {position}")
