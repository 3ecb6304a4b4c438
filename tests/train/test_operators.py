import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlic_train.config import MODELS, DataOptions, ModelConfig
from mlic_train.data.splits import load_splits
from mlic_train.errors import ExportError
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.half_precision import to_float16
from mlic_train.exporting.inputs import draw_rows, make_inputs
from mlic_train.exporting.operators import check_operators, tensor_types
from mlic_train.exporting.quantization import Quantizer
from mlic_train.exporting.ranges import measure_ranges
from mlic_train.models import create_model
from mlic_train.runs.folder import TrainedModel

RELEASED = sorted((Path(__file__).parents[2] / "exported").glob("*/*.onnx"))


@pytest.mark.parametrize(
    "changes",
    [*({"name": name} for name in MODELS), {"fusion": "late"}, {"fusion": "cross"}, {"text_encoder": "mean"}],
    ids=lambda changes: next(iter(changes.values())),
)
def test_models_have_operators_and_types_that_the_web_and_phones_run(
    changes: dict[str, Any], small_model: ModelConfig
) -> None:
    model = create_model(dataclasses.replace(small_model, max_length=32, **changes))
    check_operators(export_graph(model, 32))


@pytest.fixture
def reduced(trained: TrainedModel, colours: Path) -> dict[str, bytes]:
    full = export_graph(trained.model, 64)
    rows = draw_rows(trained, load_splits(DataOptions(colours)).train.records, 8)
    ranges = measure_ranges(full, make_inputs(trained, rows))
    quantizer = Quantizer(full, ranges)
    return {"FLOAT16": to_float16(full, ranges)[0], "INT8": quantizer.quantize(quantizer.blocks)}


@pytest.mark.parametrize(
    "kind",
    ["FLOAT16", "INT8"],
)
def test_so_have_the_reduced_precisions(kind: str, reduced: dict[str, bytes]) -> None:
    check_operators(reduced[kind])
    assert kind in {found for _, found in tensor_types(onnx.load_from_string(reduced[kind]).graph)}


@pytest.mark.parametrize("file", RELEASED, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_so_have_the_released_packages(file: Path) -> None:
    check_operators(file.read_bytes())


def make_graph(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    others: Sequence[onnx.OperatorSetIdProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    shape: Sequence[str | int] = ("B", 2),
) -> bytes:
    """A graph from `x`, float32 (B, 2), to `y`, float32 of a shape."""
    graph = helper.make_graph(
        list(nodes),
        "made-up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *others]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    data: bytes = model.SerializeToString()
    return data


def test_another_domain_is_found() -> None:
    graph = make_graph(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        others=[helper.make_opsetid("com.microsoft", 1)],
    )
    with pytest.raises(ExportError, match=r"'Gelu' of domain 'com.microsoft' .* is not in the ONNX standard"):
        check_operators(graph)


def test_an_operator_of_a_later_opset_is_found() -> None:
    graph = make_graph([helper.make_node("Gelu", ["x"], ["y"])])  # since opset 20
    with pytest.raises(ExportError, match="No Op registered for Gelu with domain_version of 17"):
        check_operators(graph)


def test_a_node_before_its_input_is_found() -> None:
    graph = make_graph([helper.make_node("Neg", ["z"], ["y"], "late"), helper.make_node("Abs", ["x"], ["z"])])
    with pytest.raises(ExportError, match="topologically sorted, however input 'z' of node: name: late"):
        check_operators(graph)


def test_a_deprecated_operator_is_found() -> None:
    graph = make_graph(
        [helper.make_node("Upsample", ["x", "scales"], ["y"])], {"scales": np.ones(2, dtype=np.float32)}, opset=10
    )
    with pytest.raises(ExportError, match="Upsample is deprecated"):
        check_operators(graph)


def test_a_function_of_the_graph_itself_is_found() -> None:
    double = helper.make_function(
        "own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    graph = make_graph(
        [helper.make_node("Double", ["x"], ["y"], domain="own")],
        others=[helper.make_opsetid("own", 1)],
        functions=[double],
    )
    with pytest.raises(ExportError, match="function of its own, 'Double'"):
        check_operators(graph)


@pytest.mark.parametrize("kind", ["DOUBLE", "BFLOAT16", "UINT64"])
def test_a_type_in_between_is_found(kind: str) -> None:
    graph = make_graph(
        [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DataType.Value(kind)),
            helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.FLOAT),
        ]
    )
    with pytest.raises(ExportError, match=f"'wide' is {kind}; expected one of BOOL"):
        check_operators(graph)


def test_the_type_of_a_weight_is_found() -> None:
    graph = make_graph([helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)], {"w": np.ones(2)}, shape=[2])
    with pytest.raises(ExportError, match="'w' is DOUBLE"):
        check_operators(graph)


def test_the_type_of_a_constant_in_a_branch_is_found() -> None:
    def branch(name: str) -> onnx.GraphProto:
        constant = helper.make_node("Constant", [], [f"{name}_wide"], name, value=numpy_helper.from_array(np.ones(2)))
        cast = helper.make_node("Cast", [f"{name}_wide"], [name], to=TensorProto.FLOAT)
        return helper.make_graph([constant, cast], name, [], [helper.make_tensor_value_info(name, 1, [2])])

    graph = make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch("a"), else_branch=branch("b"))],
        {"flag": np.array(True)},
        shape=[2],
    )
    with pytest.raises(ExportError, match="is DOUBLE"):
        check_operators(graph)
