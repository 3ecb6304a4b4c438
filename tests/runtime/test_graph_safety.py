import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_runtime.errors import PackageError
from mlic_runtime.package.graph_safety import check_graph

Field = Callable[[int, "int | str | bytes"], bytes]
Wrap = Callable[[Field, bytes], bytes]


def in_initializer(field: Field, tensor: bytes) -> bytes:
    return field(7, field(5, tensor))


def in_sparse_values(field: Field, tensor: bytes) -> bytes:
    return field(7, field(15, field(1, tensor)))


def in_sparse_indices(field: Field, tensor: bytes) -> bytes:
    return field(7, field(15, field(2, tensor)))


def in_attribute(field: Field, tensor: bytes) -> bytes:
    return field(7, field(1, field(4, "Constant") + field(5, field(1, "value") + field(5, tensor))))


def in_attribute_list(field: Field, tensor: bytes) -> bytes:
    return field(7, field(1, field(5, field(10, tensor))))


def in_sparse_attribute(field: Field, tensor: bytes) -> bytes:
    return field(7, field(1, field(5, field(22, field(1, tensor)))))


def in_sparse_attribute_list(field: Field, tensor: bytes) -> bytes:
    return field(7, field(1, field(5, field(23, field(2, tensor)))))


def in_subgraph(field: Field, tensor: bytes) -> bytes:
    return field(7, field(1, field(5, field(6, field(5, tensor)))))


def in_subgraph_list(field: Field, tensor: bytes) -> bytes:
    return field(7, field(1, field(5, field(11, field(5, tensor)))))


def in_function(field: Field, tensor: bytes) -> bytes:
    return field(7, b"") + field(25, field(7, field(5, field(5, tensor))))


def in_function_default(field: Field, tensor: bytes) -> bytes:
    return field(7, b"") + field(25, field(11, field(5, tensor)))


def in_training_initialization(field: Field, tensor: bytes) -> bytes:
    return field(7, b"") + field(20, field(1, field(5, tensor)))


def in_training_algorithm(field: Field, tensor: bytes) -> bytes:
    return field(7, b"") + field(20, field(2, field(5, tensor)))


PLACES = [value for name, value in list(globals().items()) if name.startswith("in_")]


def test_the_graphs_of_the_tiny_package_are_safe(tiny: Path) -> None:
    check_graph((tiny / "model.fp32.onnx").read_bytes(), "model.fp32.onnx")
    check_graph((tiny / "model.fp16.onnx").read_bytes(), "model.fp16.onnx")


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_with_its_data_inside_is_safe(proto: Field, place: Wrap) -> None:
    tensor = proto(1, 2) + proto(2, 1) + proto(8, "weight") + proto(9, b"\0" * 8) + proto(14, 0)
    check_graph(place(proto, tensor), "model.onnx")


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_can_be(proto: Field, place: Wrap) -> None:
    by_location = proto(8, "weight") + proto(14, 1)
    by_entry = proto(8, "weight") + proto(13, proto(1, "location") + proto(2, "/etc/passwd"))
    for tensor in (by_location, by_entry):
        with pytest.raises(PackageError, match=r"model\.onnx has a tensor with external data \('weight'\)"):
            check_graph(place(proto, tensor), "model.onnx")


def test_a_location_that_a_parser_would_cut_to_external_is_refused(proto: Field) -> None:
    with pytest.raises(PackageError, match="external data"):
        check_graph(in_initializer(proto, proto(14, 2**32 + 1)), "model.onnx")


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_standard_operators_are_safe(proto: Field, domain: str) -> None:
    check_graph(proto(7, proto(1, proto(4, "Add") + proto(7, domain))), "model.onnx")


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "evil"])
def test_an_operator_of_another_domain_is_refused_by_name(proto: Field, domain: str) -> None:
    node = proto(4, "Danger") + proto(7, domain)
    in_graph = proto(7, proto(1, node))
    nested = proto(7, proto(1, proto(5, proto(6, proto(1, node)))))
    in_a_function = proto(7, b"") + proto(25, proto(7, node))
    for graph in (in_graph, nested, in_a_function):
        with pytest.raises(PackageError, match=rf"model\.onnx uses operator 'Danger' of domain '{domain}'"):
            check_graph(graph, "model.onnx")


def test_a_domain_that_is_only_declared_does_no_harm(proto: Field) -> None:
    check_graph(proto(7, b"") + proto(8, proto(1, "ai.onnx.ml") + proto(2, 3)), "model.onnx")


@pytest.mark.parametrize("graph", [b"", b"\x08\x08"])
def test_a_file_without_a_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(PackageError, match=r"model\.onnx holds no ONNX graph"):
        check_graph(graph, "model.onnx")


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (b"\x3a", "in the middle of a number"),
        (b"\x3a\x05ab", "ends at byte 7 of a message of 4 bytes"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "ends at byte"),
        (b"\x3a" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x3b", "wire type 3"),
        (b"\x3f", "wire type 7"),
        (b"\x02\x00", "field number 0"),
        (b"\x80\x80\x80\x80\x70\x00", "field number 3758096384"),
        (b"\x39\x00", "ends at byte 9"),
        (b"\x3d\x00", "ends at byte 5"),
        (b"\x38\x01", "field 7 of ModelProto has wire type 0"),
        (b"\x3a\x04\x0a\x02\x38\x01", "field 7 of NodeProto has wire type 0"),
    ],
)
def test_malformed_protobuf_is_refused_with_what_was_found(graph: bytes, found: str) -> None:
    with pytest.raises(PackageError, match=rf"model\.onnx is not a valid ONNX file: .*{found}"):
        check_graph(graph, "model.onnx")


def test_nesting_without_end_is_refused(proto: Field) -> None:
    graph = b""
    for _ in range(200):
        graph = proto(1, proto(5, proto(6, graph)))
    with pytest.raises(PackageError, match="nested more than 100 deep"):
        check_graph(proto(7, graph), "model.onnx")


def test_every_truncation_of_a_graph_is_refused_or_safe(tiny: Path) -> None:
    graph = (tiny / "model.fp32.onnx").read_bytes()
    for length in range(len(graph)):
        with contextlib.suppress(PackageError):
            check_graph(graph[:length], "model.onnx")


def test_a_large_payload_is_stepped_over(proto: Field) -> None:
    check_graph(in_initializer(proto, proto(9, bytes(50_000_000))), "model.onnx")
