import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from mlic_runtime import Predictor
from mlic_runtime.image import read_pixels
from mlic_runtime.package import load_package
from mlic_runtime.session import create_session
from mlic_train.bench import PyTorchBackend
from mlic_train.checkpoint import RunConfig, State, Trained, load_trained, save_checkpoint, save_half, write_run_config
from mlic_train.config import ModelConfig, TrainConfig
from mlic_train.errors import CheckpointError, ExportError
from mlic_train.export import OPSET, export_graph, export_package
from mlic_train.measure import caption_tokenizer
from mlic_train.models import create_model
from mlic_train.parity import ATOL, SHAPES, check_parity, example_inputs
from mlic_train.runs import find_run, newest_run
from mlic_train.splits import DataOptions, load_splits
from mlic_train.tokenizer import train_tokenizer, vocabulary_size

CAPTIONS = ["a red wall", "a green wall and a blue door", "one red and one blue thing"] * 4


def make_run(folder: Path, config: ModelConfig, seed: int = 0) -> Trained:
    """A run folder of an untrained model, complete in every other way."""
    tokenizer = train_tokenizer(CAPTIONS) if config.reads_captions else None
    if tokenizer is not None:
        config = dataclasses.replace(config, vocab_size=vocabulary_size(tokenizer))
    torch.manual_seed(seed)
    model = create_model(config)
    state = State(thresholds=[0.1, 0.2, 0.3], metrics={"val": {"samples_f1": 0.5, "rows": 12}})
    write_run_config(folder, RunConfig(config, TrainConfig(), {"seed": seed, "data_note": "made up"}), tokenizer)
    save_checkpoint(folder / "best.safetensors", model.state_dict(), state)
    return load_trained(folder)


@pytest.fixture
def trained(tmp_path: Path, small_model: ModelConfig) -> Trained:
    return make_run(tmp_path / "run", small_model)


@pytest.fixture
def cnn(tmp_path: Path, small_model: ModelConfig) -> Trained:
    return make_run(tmp_path / "cnn", dataclasses.replace(small_model, name="cnn"))


def test_the_package_holds_what_the_manifest_says(trained: Trained, tmp_path: Path) -> None:
    manifest = export_package(trained, tmp_path / "package", version="1.2.3")
    package = load_package(tmp_path / "package")
    package.verify()
    assert package.manifest == manifest
    assert (manifest.name, manifest.version) == ("hybrid", "1.2.3")
    assert [(label.name, label.threshold) for label in manifest.labels] == [("red", 0.1), ("green", 0.2), ("blue", 0.3)]
    assert manifest.metrics["fp32"]["val"]["samples_f1"] == 0.5
    assert manifest.provenance["data_note"] == "made up"
    assert sorted(path.name for path in (tmp_path / "package").iterdir()) == [
        "README.md",
        "manifest.json",
        "model.fp32.onnx",
        "tokenizer.json",
    ]


def test_the_graph_keeps_the_contract(trained: Trained) -> None:
    graph = onnx.load_from_string(export_graph(trained.model, 64))
    onnx.checker.check_model(graph, full_check=True)

    def shape(value: onnx.ValueInfoProto) -> list[str | int]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    inputs = {value.name: (value.type.tensor_type.elem_type, shape(value)) for value in graph.graph.input}
    assert inputs == {
        "pixels": (onnx.TensorProto.UINT8, ["B", 16, 16, 3]),
        "input_ids": (onnx.TensorProto.INT64, ["B", "T"]),
        "attention_mask": (onnx.TensorProto.INT64, ["B", "T"]),
    }
    assert [(v.name, v.type.tensor_type.elem_type) for v in graph.graph.output] == [("logits", onnx.TensorProto.FLOAT)]
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", OPSET)]


def test_the_runtime_says_what_pytorch_says(trained: Trained, tmp_path: Path, colours: Path) -> None:
    export_package(trained, tmp_path / "package")
    predictor = Predictor.load(tmp_path / "package")
    picture, caption = colours / "images" / "train0.png", "a red wall"
    tokenizer = caption_tokenizer(trained.config, trained.tokenizer)
    assert tokenizer is not None
    pixels = read_pixels(picture, trained.config.model.image_spec)[None]
    ids, mask = tokenizer.encode([caption])
    with torch.inference_mode():
        logits = trained.model(*(torch.from_numpy(array) for array in (pixels, ids, mask)))
    found = predictor.predict(picture, caption).probabilities
    expected = dict(zip(trained.config.model.labels, torch.sigmoid(logits)[0].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("text_encoder", ["lstm", "mean"])
@pytest.mark.parametrize("tokens", [1, 2, 64])
@pytest.mark.parametrize("batch", [1, 7])
def test_parity_holds_at_shapes_that_were_not_traced(
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


def test_parity_covers_what_it_promises(trained: Trained) -> None:
    assert len(SHAPES) >= 5
    assert any(tokens == 1 for _, tokens in SHAPES)
    assert any(batch == 7 for batch, _ in SHAPES)
    pixels, _, mask = example_inputs(trained.model, 7, 9)
    assert (mask.sum(dim=1) == 0).any()
    assert (pixels.flatten(1).amax(dim=1) == 0).any()
    assert len(set(mask.sum(dim=1).tolist())) > 2


@pytest.mark.parametrize("damage", ["caption_labels.bias", "caption.backward_lstm.weight_hh_l0"])
def test_a_graph_that_disagrees_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    export_package(trained, tmp_path / "package", version="1.0.0")
    before = {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()}
    other = create_model(trained.config.model)
    other.load_state_dict(trained.model.state_dict())
    other.state_dict()[damage].add_(0.05)
    wrong = export_graph(other, 64)
    monkeypatch.setattr("mlic_train.export.export_graph", lambda *_: wrong)
    with pytest.raises(ExportError, match=r"parity failed at B=\d+, T=\d+: logits differ by .*nothing was written"):
        export_package(trained, tmp_path / "package", version="2.0.0")
    assert {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "run"]


def test_differing_decisions_fail_parity(trained: Trained) -> None:
    """Differences below the tolerance still fail where they cross a threshold."""
    session = create_session(export_graph(trained.model, 64))
    inputs = example_inputs(trained.model, 1, 1, seed=0)
    with torch.inference_mode():
        logits = trained.model(*inputs).double()
    trained.state.thresholds[0] = float(torch.sigmoid(logits)[0, 0])

    class Shifted:
        def run(self, pixels: Any, input_ids: Any, attention_mask: Any) -> npt.NDArray[np.float32]:
            logits = session.run(pixels, input_ids, attention_mask)
            logits -= 5e-5
            return logits

    with pytest.raises(ExportError, match="of the label decisions differ"):
        check_parity(trained, Shifted())  # type: ignore[arg-type] # a stand-in


def test_exporting_twice_gives_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_package(trained, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_folder_that_is_no_package_is_not_replaced(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("precious")
    with pytest.raises(ExportError, match="is not a model package; choose another --output"):
        export_package(trained, tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.jpg").read_text() == "precious"


def test_cnn_exports_without_a_caption(cnn: Trained, tmp_path: Path, colours: Path) -> None:
    manifest = export_package(cnn, tmp_path / "package")
    assert manifest.text is None
    assert "tokenizer.json" not in manifest.files
    prediction = Predictor.load(tmp_path / "package").predict(colours / "images" / "train0.png")
    assert set(prediction.probabilities) == {"red", "green", "blue"}


def test_metrics_can_be_measured_on_the_graph(trained: Trained, tmp_path: Path, colours: Path) -> None:
    manifest = export_package(trained, tmp_path / "package", splits=load_splits(DataOptions(colours)))
    assert set(manifest.metrics["fp32"]) == {
        f"{split}{mode}" for split in ("val", "test") for mode in ("", "-picture-only", "-caption-only")
    }
    assert manifest.metrics["fp32"]["val"]["rows"] == 12


def test_the_card_repeats_the_manifest(trained: Trained, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text()
    for expected in ("# hybrid 0.1.0", "| green | 0.200 |", "| val | 0.5000 |", "made up", "100.0% equal decisions"):
        assert expected in card


def test_a_half_precision_checkpoint_is_the_model_that_is_exported(trained: Trained, tmp_path: Path) -> None:
    half = save_half(trained, tmp_path / "half")
    size = (tmp_path / "half" / "best.safetensors").stat().st_size
    assert size < 0.6 * (trained.folder / "best.safetensors").stat().st_size
    again = load_trained(tmp_path / "half")
    for name, tensor in half.model.state_dict().items():
        assert tensor.dtype == trained.model.state_dict()[name].dtype
        torch.testing.assert_close(tensor, again.model.state_dict()[name], rtol=0, atol=0)
    assert again.state == trained.state


def test_the_newest_run_of_the_name_is_found(tmp_path: Path, small_model: ModelConfig) -> None:
    for index, name in enumerate(("old", "new", "other")):
        config = dataclasses.replace(small_model, name="cnn") if name == "other" else small_model
        make_run(tmp_path / name, config)
        os.utime(tmp_path / name / "best.safetensors", (1000 + index, 1000 + index))
    assert newest_run(tmp_path, "hybrid") == tmp_path / "new"
    assert newest_run(tmp_path, "cnn") == tmp_path / "other"


def test_without_any_run_the_error_says_how_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlic_train.runs.released_run", lambda name: None)
    with pytest.raises(CheckpointError, match="train it: mlic-train --model cnn"):
        find_run(tmp_path, "cnn")


def test_pytorch_is_a_bench_backend(trained: Trained, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    package = load_package(tmp_path / "package")
    backend = PyTorchBackend(package, 1, str(trained.folder))
    inputs = [tensor.numpy() for tensor in example_inputs(trained.model, 2, 4)]
    expected = create_session(package.read_graph("fp32")).run(*inputs)
    np.testing.assert_allclose(backend.run(*inputs), expected, atol=ATOL)


def test_the_bench_backend_refuses_another_checkpoint(trained: Trained, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    make_run(tmp_path / "other", trained.config.model, seed=5)
    with pytest.raises(CheckpointError, match=r"was not exported from .*other: give --checkpoint"):
        PyTorchBackend(load_package(tmp_path / "package"), 1, str(tmp_path / "other"))


def test_the_manifest_says_which_checkpoint_it_came_from(trained: Trained, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text())
    digest = hashlib.sha256((trained.folder / "best.safetensors").read_bytes()).hexdigest()
    assert manifest["provenance"]["checkpoint_sha256"] == digest
