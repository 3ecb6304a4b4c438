import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mlic_runtime.graph.session import create_session
from mlic_train.config import MODELS, ModelConfig
from mlic_train.exporting.graph import OPSET, export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.parity import ATOL
from mlic_train.models import create_model
from mlic_train.runs.folder import TrainedModel

ROOT = Path(__file__).parents[2]


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def test_the_graph_keeps_the_contract(trained: TrainedModel) -> None:
    graph = onnx.load_from_string(export_graph(trained.model, 64))
    onnx.checker.check_model(graph, full_check=True)
    described = {
        value.name: (value.type.tensor_type.elem_type, shape(value))
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert described == {
        "pixels": (onnx.TensorProto.UINT8, ["B", 16, 16, 3]),
        "input_ids": (onnx.TensorProto.INT64, ["B", "T"]),
        "attention_mask": (onnx.TensorProto.INT64, ["B", "T"]),
        "logits": (onnx.TensorProto.FLOAT, ["B", 3]),
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_has_standard_operators_and_none_that_only_training_needs(
    name: str, small_model: ModelConfig
) -> None:
    model = create_model(dataclasses.replace(small_model, name=name, max_length=32))
    graph = onnx.load_from_string(export_graph(model, 32))
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions
    assert not {node.op_type for node in graph.graph.node} & {"Dropout", "Identity", "BatchNormalization"}
    assert all(not node.attribute[0].HasField("g") for node in graph.graph.node if node.attribute)  # no If, no Loop


def test_the_padding_of_a_timm_backbone_is_folded(small_model: ModelConfig) -> None:
    """It is the same for every picture; ONNX Runtime alone would compute it from each picture's shape."""
    model = create_model(dataclasses.replace(small_model, backbone="tf_efficientnet_lite0", image_size=32))
    graph = onnx.load_from_string(export_graph(model, 64))
    assert not {node.op_type for node in graph.graph.node} & {"Ceil", "Pad"}


@pytest.mark.parametrize("text_encoder", ["lstm", "mean"])
@pytest.mark.parametrize("tokens", [1, 2, 64])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_graph_is_right_at_shapes_that_were_not_traced(
    small_model: ModelConfig, batch: int, tokens: int, text_encoder: str
) -> None:
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(small_model, text_encoder=text_encoder)).eval()
    torch.nn.init.normal_(model.get_parameter("interaction.label_weight"))  # at zero it would hide the Transformer
    session = create_session(export_graph(model, 64))
    inputs = example_inputs(model, batch, tokens, seed=99)
    with torch.inference_mode():
        expected = model(*inputs).numpy()
    np.testing.assert_allclose(session.run(*(tensor.numpy() for tensor in inputs)), expected, atol=ATOL)


EXPORT = """
import hashlib, sys
from pathlib import Path
from mlic_train.runs.folder import load_trained
from mlic_train.exporting.graph import export_graph
print(hashlib.sha256(export_graph(load_trained(Path(sys.argv[1])).model, 64)).hexdigest())
"""


def test_another_process_makes_the_same_bytes(trained: TrainedModel) -> None:
    root = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "1"}
    program = [sys.executable, "-c", EXPORT, str(trained.folder)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == hashlib.sha256(export_graph(trained.model, 64)).hexdigest()
