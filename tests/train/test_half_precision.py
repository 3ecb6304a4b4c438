import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlic_runtime.graph.session import create_session
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.half_precision import LIMIT, store_as_float16, to_float16
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.ranges import measure_ranges
from mlic_train.runs.folder import TrainedModel


def scaling_graph(factor: float) -> bytes:
    """The mean of `pixels` by channel, times `factor`, times 1 / `factor`, through a matrix."""
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["floats"], "cast", to=TensorProto.FLOAT),
        node("ReduceMean", ["floats"], ["mean"], "mean", axes=[1, 2], keepdims=0),
        node("Mul", ["mean", "factor"], ["large"], "grow"),
        node("Mul", ["large", "inverse"], ["small"], "shrink"),
        node("MatMul", ["small", "matrix"], ["logits"], "score"),
    ]
    weights = {
        "factor": np.float32(factor),
        "inverse": np.float32(1 / factor),
        "matrix": np.full((3, 2), 0.01, dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "scaling",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", 4, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(("factor", "kept"), [(10.0, ()), (500.0, ("grow", "shrink")), (1e5, ("grow", "shrink"))])
def test_what_would_overflow_stays_in_float32(factor: float, kept: tuple[str, ...]) -> None:
    graph = scaling_graph(factor)
    converted, found = to_float16(graph, measure_ranges(graph, [{"pixels": PIXELS}]))
    assert found == kept
    expected = create_session(graph).run(PIXELS)
    assert create_session(converted).run(PIXELS) == pytest.approx(expected, rel=2e-3)


def test_the_limit_leaves_room_for_rows_that_were_not_seen() -> None:
    graph = scaling_graph(LIMIT / float(PIXELS.mean(axis=(1, 2)).max()) * 0.99)
    converted, kept = to_float16(graph, measure_ranges(graph, [{"pixels": PIXELS}]))
    assert kept == ()
    white = np.full((1, 4, 4, 3), 255, dtype=np.uint8)
    assert create_session(converted).run(white) == pytest.approx(create_session(graph).run(white), rel=2e-3)


def test_weights_are_half_as_large_and_inputs_and_output_as_they_were(trained: TrainedModel) -> None:
    graph = export_graph(trained.model, 64)
    inputs = [tensor.numpy() for tensor in example_inputs(trained.model, 4, 6)]
    feed = dict(zip(("pixels", "input_ids", "attention_mask"), inputs, strict=True))
    converted, kept = to_float16(graph, measure_ranges(graph, [feed]))
    model, before = onnx.load_from_string(converted), onnx.load_from_string(graph)
    assert kept == ()
    assert len(converted) < 0.65 * len(graph)
    assert [value.type for value in (*model.graph.input, *model.graph.output)] == [
        value.type for value in (*before.graph.input, *before.graph.output)
    ]
    assert not [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1]
    assert create_session(converted).run(*inputs) == pytest.approx(create_session(graph).run(*inputs), abs=0.02)


def test_weights_are_stored_in_half_where_that_changes_none(trained: TrainedModel) -> None:
    inputs = [tensor.numpy() for tensor in example_inputs(trained.model, 4, 6)]
    graph = export_graph(trained.model, 64)
    assert store_as_float16(graph).count(b"_float16") == 0  # random float32 weights would change
    trained.model.half().float()
    graph = export_graph(trained.model, 64)
    stored = store_as_float16(graph)
    onnx.checker.check_model(onnx.load_from_string(stored), full_check=True)
    large = [t for t in onnx.load_from_string(graph).graph.initializer if np.prod(t.dims) >= 1024]
    kept = {t.name: t.data_type for t in onnx.load_from_string(stored).graph.initializer}
    halves = [t.name for t in large if kept.get(f"{t.name}_float16") == TensorProto.FLOAT16]
    assert len(halves) > 0
    assert len(stored) < 0.75 * len(graph)
    assert np.array_equal(create_session(stored).run(*inputs), create_session(graph).run(*inputs))


@pytest.mark.parametrize("value", [70000.0, 0.1, float("nan")])
def test_one_value_that_float16_lacks_keeps_the_tensor(value: float) -> None:
    model = onnx.load_from_string(scaling_graph(10.0))
    matrix = np.full((3, 1024), 0.5, dtype=np.float32)
    for changed in (matrix, np.where(np.arange(1024) == 7, np.float32(value), matrix)):
        model.graph.initializer[2].CopyFrom(numpy_helper.from_array(changed, "matrix"))
        stored = onnx.load_from_string(store_as_float16(model.SerializeToString()))
        exact = changed is matrix
        assert [t.name for t in stored.graph.initializer][2] == ("matrix_float16" if exact else "matrix")
        assert stored.graph.node[0].name == ("matrix_Cast" if exact else "cast")
