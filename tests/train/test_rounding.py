"""Weights that are rounded together, and channels of one size."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlic_runtime.graph.session import create_session
from mlic_train.exporting.equalization import equalize
from mlic_train.exporting.rounding import Covariance, choose_steps, round_weight


def test_weights_rounded_together_change_the_output_less_and_stay_multiples() -> None:
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(500, 2)) @ rng.normal(size=(2, 12)) + 0.1 * rng.normal(size=(500, 12))).astype("f4")
    covariance = Covariance()
    covariance.add(inputs[None])
    weight = rng.normal(size=(8, 12, 1, 1))
    steps = choose_steps(weight, 64)

    def error(rounded: np.ndarray) -> float:
        return float((inputs @ (rounded - weight)[:, :, 0, 0].T).std(axis=0).mean())

    together = round_weight(weight, steps, 64, covariance.value())
    assert error(together) < 0.5 * error(round_weight(weight, steps, 64, None))
    multiples = together / steps[:, None, None, None]
    assert multiples == pytest.approx(np.round(multiples), abs=1e-6)
    assert np.abs(multiples).max() < 64.5


def test_equalized_channels_are_of_one_size_and_the_graph_computes_the_same() -> None:
    rng = np.random.default_rng(0)
    scale = np.array([10.0, 1.0, 0.1], dtype=np.float32)
    weights = {
        "w1": rng.normal(size=(3, 3, 1, 1)).astype(np.float32) * scale[:, None, None, None],
        "w2": rng.normal(size=(2, 3, 1, 1)).astype(np.float32) / scale[:, None, None],
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1"], ["narrow"], "first"),
        helper.make_node("Conv", ["narrow", "w2"], ["wide"], "second"),
        helper.make_node("ReduceMean", ["wide"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", 4, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pixels = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    level = equalize(model.SerializeToString(), [{"pixels": pixels}])
    before, after = create_session(model.SerializeToString()).run(pixels), create_session(level).run(pixels)
    np.testing.assert_allclose(after, before, rtol=1e-4)
    first = numpy_helper.to_array(onnx.load_from_string(level).graph.initializer[0])
    sizes = np.abs(np.einsum("oi,bhwi->bhwo", first[:, :, 0, 0], pixels.astype(np.float32))).max(axis=(0, 1, 2))
    assert sizes == pytest.approx(np.full(3, sizes[0]), rel=1e-3)
