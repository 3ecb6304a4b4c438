import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlic_runtime.graph.session import create_session
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.half_precision import LIMIT, to_float16
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
