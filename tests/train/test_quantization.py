import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mlic_runtime.graph.session import GraphSession, create_session
from mlic_runtime.package.graph_safety import check_graph
from mlic_train.config import DataOptions, ModelConfig
from mlic_train.data.splits import Splits, load_splits
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import Inputs, draw_rows, make_inputs
from mlic_train.exporting.quantization import Block, Quantizer
from mlic_train.exporting.ranges import Ranges, measure_ranges
from mlic_train.models import create_model
from mlic_train.runs.folder import TrainedModel


@pytest.fixture
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture
def rows(trained: TrainedModel, splits: Splits) -> list[Inputs]:
    return make_inputs(trained, draw_rows(trained, splits.train.records, 20))


def make_graph(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray]) -> bytes:
    """A graph from `pixels` to `logits`, opset 17."""
    graph = helper.make_graph(
        list(nodes),
        "made-up",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def residual_graph(factor: float = 1.0) -> bytes:
    """A stem, a block of two convolutions with a residual sum, a head; the stem's first channel is `factor` larger."""
    rng = np.random.default_rng(0)
    stem = rng.normal(size=(4, 3, 1, 1)).astype(np.float32) / 255
    stem[0] *= factor
    head = rng.normal(size=(4, 2)).astype(np.float32)
    head[0] /= factor
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["floats"], "/Cast", to=TensorProto.FLOAT),
        node("Transpose", ["floats"], ["planes"], "/Transpose", perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "stem"], ["s"], "/backbone/stem/Conv"),
        node("Relu", ["s"], ["s2"], "/backbone/act/Relu"),
        node("Conv", ["s2", "w1"], ["a"], "/backbone/blocks/blocks.0/conv1/Conv"),
        node("Clip", ["a", "zero", "six"], ["a2"], "/backbone/blocks/blocks.0/act/Clip"),
        node("Conv", ["a2", "w2"], ["b"], "/backbone/blocks/blocks.0/conv2/Conv"),
        node("Add", ["b", "s2"], ["c"], "/backbone/blocks/blocks.0/Add"),
        node("ReduceMean", ["c"], ["m"], "/pool/ReduceMean", axes=[2, 3], keepdims=0),
        node("MatMul", ["m", "head"], ["d"], "/head/MatMul"),
        node("Add", ["d", "bias"], ["logits"], "/head/Add"),
    ]
    weights = {
        "stem": stem,
        "w1": rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
        "w2": rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
        "head": head,
        "bias": np.zeros(2, dtype=np.float32),
    }
    return make_graph(nodes, {name: np.asarray(array) for name, array in weights.items()})


def bias_graph() -> bytes:
    """A convolution of positive pixels, whose rounding errors add up, and the mean of its output."""
    rng = np.random.default_rng(2)
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["floats"], "/Cast", to=TensorProto.FLOAT),
        node("Transpose", ["floats"], ["planes"], "/Transpose", perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "weight", "bias"], ["a"], "/backbone/stem/Conv"),
        node("ReduceMean", ["a"], ["logits"], "/pool/ReduceMean", axes=[2, 3], keepdims=0),
    ]
    weight = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    return make_graph(nodes, {"weight": weight, "bias": np.zeros(2, dtype=np.float32)})


def noise_rows(count: int = 3, seed: int = 0) -> list[Inputs]:
    rng = np.random.default_rng(seed)
    return [{"pixels": rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)} for _ in range(count)]


def run(session: GraphSession, feed: Inputs) -> np.ndarray:
    values: list[Any] = list(feed.values())
    return session.run(*values)


def quantizer_of(graph: bytes) -> Quantizer:
    return Quantizer(graph, measure_ranges(graph, noise_rows()))


def test_what_belongs_together_is_one_block_and_sums_without_convolutions_are_none() -> None:
    assert quantizer_of(residual_graph()).blocks == [
        Block("/backbone/stem", ("/backbone/stem/Conv", "/backbone/act/Relu")),
        Block(
            "/backbone/blocks/blocks.0",
            (
                "/backbone/blocks/blocks.0/conv1/Conv",
                "/backbone/blocks/blocks.0/act/Clip",
                "/backbone/blocks/blocks.0/conv2/Conv",
                "/backbone/blocks/blocks.0/Add",
            ),
        ),
        Block("/head/MatMul", ("/head/MatMul",)),
    ]


def test_the_embedding_is_quantized_and_other_lookups_are_not(trained: TrainedModel, rows: list[Inputs]) -> None:
    graph = export_graph(trained.model, 64)
    blocks = {block.name for block in Quantizer(graph, measure_ranges(graph, rows)).blocks}
    assert {name for name in blocks if "Gather" in name} == {"/caption/embedding/Gather"}
    assert any("attention/to_qkv" in name for name in blocks)
    assert any(name.startswith("/backbone") for name in blocks)


def test_only_the_blocks_asked_for_become_int8() -> None:
    quantizer = quantizer_of(residual_graph())
    for index, block in enumerate(quantizer.blocks):
        model = onnx.load_from_string(quantizer.quantize([block]))
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        int8 = {name.removesuffix("_quantized") for name, kind in kinds.items() if kind == TensorProto.INT8}
        assert int8 & {"stem", "w1", "w2", "head"} == ({"stem"}, {"w1", "w2"}, {"head"})[index]
    assert all("Quantize" not in node.op_type for node in onnx.load_from_string(quantizer.quantize([])).graph.node)


def test_a_quantized_graph_keeps_the_contract_and_has_standard_operators_only(
    trained: TrainedModel, rows: list[Inputs]
) -> None:
    graph = export_graph(trained.model, 64)
    quantizer = Quantizer(graph, measure_ranges(graph, rows))
    int8 = quantizer.quantize(quantizer.blocks)
    check_graph(int8, "model.int8.onnx")
    model = onnx.load_from_string(int8)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert not model.metadata_props
    assert len(int8) < 0.6 * len(graph)
    assert Counter(node.op_type for node in model.graph.node)["QuantizeLinear"] > 5
    before, after = create_session(graph), create_session(int8)
    for feed in rows:
        expected, found = run(before, feed), run(after, feed)
        assert found == pytest.approx(expected, abs=0.3)
        assert not np.array_equal(found, expected)


def test_nothing_in_int8_is_the_graph_as_it_was(trained: TrainedModel, rows: list[Inputs]) -> None:
    graph = export_graph(trained.model, 64)
    same = create_session(Quantizer(graph, measure_ranges(graph, rows)).quantize([]))
    for feed in rows:
        assert np.array_equal(run(same, feed), run(create_session(graph), feed))


def test_quantizing_twice_gives_the_same_bytes(trained: TrainedModel, rows: list[Inputs]) -> None:
    graph = export_graph(trained.model, 64)
    once, twice = (Quantizer(graph, measure_ranges(graph, rows)) for _ in range(2))
    assert once.quantize(once.blocks) == twice.quantize(twice.blocks)


def test_what_hurts_is_seen_in_the_logits() -> None:
    # One channel with values a thousand times those of the others takes nearly all of the 256 steps.
    even, uneven = (quantizer_of(residual_graph(factor)).measure_effects(noise_rows(1, seed=1)) for factor in (1, 1000))
    assert [noise.mean_square for noise in uneven] == sorted((noise.mean_square for noise in uneven), reverse=True)
    loss = {noise.block.name: noise.mean_square for noise in uneven}
    usual = {noise.block.name: noise.mean_square for noise in even}
    assert loss["/backbone/stem"] > 10 * usual["/backbone/stem"]
    assert all(value > 0 for value in loss.values())


def test_what_int8_saves_is_counted_in_multiplications_and_weights() -> None:
    effects = quantizer_of(residual_graph()).measure_effects(noise_rows(1))
    counted = {  # 8 x 8 positions; multiplications of a row, weights
        "/backbone/stem": (64 * 4 * 3, 4 * 3),
        "/backbone/blocks/blocks.0": (2 * 64 * 4 * 4, 2 * 4 * 4),
        "/head/MatMul": (4 * 2, 4 * 2),
    }
    work, weights = map(sum, zip(*counted.values(), strict=True))
    expected = {name: mine / work + own / weights for name, (mine, own) in counted.items()}
    assert {effect.block.name: effect.saving for effect in effects} == pytest.approx(expected)


def test_an_embedding_saves_bytes_and_no_time(trained: TrainedModel, rows: list[Inputs]) -> None:
    graph = export_graph(trained.model, 64)
    effects = Quantizer(graph, measure_ranges(graph, rows)).measure_effects(rows[:1])
    saving = {effect.block.name: effect.saving for effect in effects}
    assert sum(saving.values()) == pytest.approx(2.0)
    weights = {tensor.name: np.prod(tensor.dims) for tensor in onnx.load_from_string(graph).graph.initializer}
    table = weights["caption.embedding.weight"]
    all_weights = table + sum(
        weights[node.input[1]]
        for node in onnx.load_from_string(graph).graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in weights
    )
    assert saving["/caption/embedding/Gather"] == pytest.approx(table / all_weights)


def test_the_ranges_are_those_of_the_rows() -> None:
    rows = noise_rows()
    largest = measure_ranges(residual_graph(), rows).largest()
    assert largest["floats"] == max(float(feed["pixels"].max()) for feed in rows)
    assert largest["a2"] <= 6.0


def test_rows_are_drawn_alike_and_pictures_come_first(trained: TrainedModel, splits: Splits) -> None:
    records = splits.train.records
    drawn = draw_rows(trained, records, 40)
    assert drawn == draw_rows(trained, list(records), 40)
    assert len(drawn) == 40
    assert all(record.image is not None for record in drawn[:36])
    assert all(record.image is None for record in drawn[36:])
    assert drawn[:36] != [record for record in records if record.image is not None]


def test_inputs_come_in_every_mode_that_the_model_knows(
    trained: TrainedModel, cnn: TrainedModel, splits: Splits
) -> None:
    records = draw_rows(trained, splits.train.records, 8)
    both, picture, caption = make_inputs(trained, records)
    assert list(both) == ["pixels", "input_ids", "attention_mask"]
    assert not picture["attention_mask"].any()
    assert np.array_equal(picture["pixels"], both["pixels"])
    assert not caption["pixels"].any()
    assert np.array_equal(caption["input_ids"], both["input_ids"])
    assert [list(feed) for feed in make_inputs(cnn, records)] == [["pixels"]]


@pytest.mark.parametrize("mean_and_std", [(None, None), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
def test_the_first_convolution_reads_the_pixels_themselves(
    small_model: ModelConfig, mean_and_std: tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]
) -> None:
    torch.manual_seed(0)
    mean, std = mean_and_std
    config = dataclasses.replace(
        small_model, name="cnn", backbone="tf_efficientnet_lite0", image_size=32, mean=mean, std=std
    )
    graph = export_graph(create_model(config), 64)
    pixels = np.random.default_rng(0).integers(1, 256, (4, 32, 32, 3), dtype=np.uint8)
    quantizer = Quantizer(graph, measure_ranges(graph, [{"pixels": pixels}]), weight_bits=8)
    stem = next(block for block in quantizer.blocks if "conv_stem" in block.name)
    int8 = onnx.load_from_string(quantizer.quantize([stem]))
    made_by = {name: node for node in int8.graph.node for name in node.output}
    convolution = next(node for node in int8.graph.node if node.op_type == "Conv" and "conv_stem" in node.name)
    first = made_by[convolution.input[0]]
    assert first.op_type == "DequantizeLinear"
    assert made_by[first.input[0]].op_type == "Transpose"
    assert made_by[first.input[0]].input[0] == "pixels"
    read = {name for node in int8.graph.node for name in node.input} | {output.name for output in int8.graph.output}
    assert not [node.name for node in int8.graph.node if read.isdisjoint(node.output)], "the normalisation is gone"
    assert not [tensor.name for tensor in int8.graph.initializer if tensor.name not in read]
    before, after = create_session(graph).run(pixels), create_session(int8.SerializeToString()).run(pixels)
    np.testing.assert_allclose(after, before, atol=0.05)


@pytest.mark.parametrize("bits", [8, 7])
def test_the_backbone_of_an_int8_graph_is_fused_with_a_dynamic_batch(
    small_model: ModelConfig, tmp_path: Path, bits: int
) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(small_model, name="cnn", backbone="tf_efficientnet_lite0", image_size=32)
    graph = export_graph(create_model(config), 64)
    assert onnx.load_from_string(graph).graph.input[0].type.tensor_type.shape.dim[0].dim_param, "a dynamic batch"
    pixels = np.random.default_rng(0).integers(1, 256, (4, 32, 32, 3), dtype=np.uint8)
    quantizer = Quantizer(graph, measure_ranges(graph, [{"pixels": pixels}]), weight_bits=bits)

    def optimised(blocks: Sequence[Block]) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3  # it warns that the file is for this machine
        onnxruntime.InferenceSession(quantizer.quantize(blocks), options, providers=["CPUExecutionProvider"])
        found = onnx.load(tmp_path / "optimised.onnx").graph
        return Counter(node.op_type for node in found.node)

    whole = optimised(quantizer.blocks)
    convolutions = Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)["Conv"]
    assert convolutions == 49
    assert whole["QLinearConv"] == convolutions
    assert not {"Conv", "FusedConv", "Clip", "Relu"} & whole.keys()
    # The pixels are read as they are, and only what the float head reads is converted: one pair would be two more.
    assert whole["QuantizeLinear"] <= 2
    assert whole["DequantizeLinear"] <= 3
    stem_left = optimised([block for block in quantizer.blocks if "conv_stem" not in block.name])
    assert stem_left["QLinearConv"] == convolutions - 1, "a convolution that is left in float is seen"


def test_biases_take_back_what_rounding_of_weights_changes() -> None:
    graph = bias_graph()
    rows = noise_rows()
    ranges = measure_ranges(graph, rows)
    assert ranges.means["planes"] == pytest.approx(
        np.concatenate([feed["pixels"] for feed in rows]).reshape(-1, 3).mean(axis=0), rel=1e-5
    )
    blind = Ranges(ranges.data)
    expected = np.concatenate([run(create_session(graph), feed) for feed in rows]).mean(axis=0)

    def off(known: Ranges) -> float:
        quantizer = Quantizer(graph, known, weight_bits=7)
        session = create_session(quantizer.quantize(quantizer.blocks))
        found = np.concatenate([run(session, feed) for feed in rows]).mean(axis=0)
        return float(np.abs(found - expected).max())

    assert off(ranges) < 0.3 * off(blind)
