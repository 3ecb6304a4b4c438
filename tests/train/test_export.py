import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mlic_runtime import Predictor
from mlic_runtime.bench.inputs import package_inputs
from mlic_runtime.caption.tokenizer_safety import load_tokenizer
from mlic_runtime.errors import InputError
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.model_package import load_package
from mlic_runtime.picture.decode import read_pixels
from mlic_train.bench.pytorch import PyTorchBackend, TorchCompileBackend
from mlic_train.config import DataOptions, ModelConfig
from mlic_train.data.splits import load_splits
from mlic_train.errors import CheckpointError, ExportError
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.exporting.parity import ATOL
from mlic_train.runs.find import find_run, newest_run
from mlic_train.runs.folder import TrainedModel, load_trained, save_half


def test_the_package_holds_what_the_manifest_says(trained: TrainedModel, tmp_path: Path) -> None:
    manifest = export_package(trained, tmp_path / "package", ExportOptions(version="1.2.3"))
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


def test_the_tokenizer_is_parsed_once(
    trained: TrainedModel, tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def count(content: bytes, size: int) -> object:
        parsed.append(content)
        return load_tokenizer(content, size)

    monkeypatch.setattr("mlic_runtime.caption.tokenizer.load_tokenizer", count)
    options = ExportOptions(precisions=("fp32", "fp16"))
    export_package(trained, tmp_path / "package", options, splits=load_splits(DataOptions(colours)))
    assert parsed == [trained.tokenizer]


def test_the_runtime_says_what_pytorch_says(trained: TrainedModel, tmp_path: Path, colours: Path) -> None:
    export_package(trained, tmp_path / "package")
    predictor = Predictor.load(tmp_path / "package")
    picture, caption = colours / "images" / "train0.png", "a red wall"
    tokenizer = trained.caption_tokenizer
    assert tokenizer is not None
    pixels = read_pixels(picture, trained.config.model.image_spec)[None]
    ids, mask = tokenizer.encode([caption])
    with torch.inference_mode():
        logits = trained.model(*(torch.from_numpy(array) for array in (pixels, ids, mask)))
    found = predictor.predict(picture, caption).probabilities
    expected = dict(zip(trained.config.model.labels, torch.sigmoid(logits)[0].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_exporting_twice_gives_the_same_bytes(trained: TrainedModel, tmp_path: Path, colours: Path) -> None:
    splits = load_splits(DataOptions(colours))
    for name in ("a", "b"):
        export_package(trained, tmp_path / name, splits=splits)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_manifest_states_what_made_the_graph(trained: TrainedModel, tmp_path: Path) -> None:
    provenance = export_package(trained, tmp_path / "package").provenance
    assert provenance["opset"] == 17
    assert provenance["onnxslim"]


def test_a_folder_that_is_no_package_is_not_replaced(trained: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("precious")
    with pytest.raises(ExportError, match="is not a model package; choose another --output"):
        export_package(trained, tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.jpg").read_text() == "precious"


def test_cnn_exports_without_a_caption(cnn: TrainedModel, tmp_path: Path, colours: Path) -> None:
    manifest = export_package(cnn, tmp_path / "package")
    assert manifest.text is None
    assert "tokenizer.json" not in manifest.files
    prediction = Predictor.load(tmp_path / "package").predict(colours / "images" / "train0.png")
    assert set(prediction.probabilities) == {"red", "green", "blue"}


def test_metrics_can_be_measured_on_the_graph(trained: TrainedModel, tmp_path: Path, colours: Path) -> None:
    manifest = export_package(trained, tmp_path / "package", splits=load_splits(DataOptions(colours)))
    assert set(manifest.metrics["fp32"]) == {
        f"{split}{mode}" for split in ("val", "test") for mode in ("", "-picture-only", "-caption-only")
    }
    assert manifest.metrics["fp32"]["val"]["rows"] == 12
    assert manifest.parity["fp32"].splits.keys() == manifest.metrics["fp32"].keys()
    assert "| 12 of val-picture-only | " in (tmp_path / "package" / "README.md").read_text()


def test_the_card_repeats_the_manifest(trained: TrainedModel, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text()
    for expected in (
        "# hybrid 0.1.0",
        "| green | 0.200 |",
        "| val | 0.5000 |",
        "made up",
        "34 made up, 6 (B, T) shapes | ",
    ):
        assert expected in card


def test_a_half_precision_checkpoint_is_the_model_that_is_exported(trained: TrainedModel, tmp_path: Path) -> None:
    half = save_half(trained, tmp_path / "half")
    size = (tmp_path / "half" / "best.safetensors").stat().st_size
    assert size < 0.6 * (trained.folder / "best.safetensors").stat().st_size
    again = load_trained(tmp_path / "half")
    for name, tensor in half.model.state_dict().items():
        assert tensor.dtype == trained.model.state_dict()[name].dtype
        torch.testing.assert_close(tensor, again.model.state_dict()[name], rtol=0, atol=0)
    assert again.state == trained.state


def test_the_newest_run_of_the_name_is_found(
    make_trained: Callable[..., TrainedModel], tmp_path: Path, small_model: ModelConfig
) -> None:
    for index, name in enumerate(("old", "new", "other")):
        config = dataclasses.replace(small_model, name="cnn") if name == "other" else small_model
        make_trained(config, name)
        os.utime(tmp_path / name / "best.safetensors", (1000 + index, 1000 + index))
    assert newest_run(tmp_path, "hybrid") == tmp_path / "new"
    assert newest_run(tmp_path, "cnn") == tmp_path / "other"


def test_without_any_run_the_error_says_how_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlic_train.runs.find.released_run", lambda name: None)
    with pytest.raises(CheckpointError, match="train it: mlic-train --model cnn"):
        find_run(tmp_path, "cnn")


def test_pytorch_is_a_bench_backend(trained: TrainedModel, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    package = load_package(tmp_path / "package")
    backend = PyTorchBackend(package, 1, str(trained.folder), "fp32")
    inputs = [tensor.numpy() for tensor in example_inputs(trained.model, 2, 4)]
    expected = create_session(package.read_graph("fp32")).run(*inputs)
    np.testing.assert_allclose(backend.run(*inputs), expected, atol=ATOL)


def test_torch_compile_is_a_bench_backend(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_package(trained, tmp_path / "package")
    package = load_package(tmp_path / "package")
    inputs = package_inputs(package, batch_size=2)
    calls: list[int] = []

    def compile_(model: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:  # the real one takes a minute
        def run(*inputs: torch.Tensor) -> torch.Tensor:
            calls.append(len(inputs[0]))
            return model(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    backend = TorchCompileBackend(package, 1, str(trained.folder), "fp32")
    assert calls == [1]
    eager = PyTorchBackend(package, 1, str(trained.folder), "fp32")
    np.testing.assert_array_equal(backend.run(*inputs.arrays), eager.run(*inputs.arrays))
    assert calls == [1, 2]


def test_a_machine_where_torch_compile_fails_is_told_so(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_package(trained, tmp_path / "package")

    def broken(*inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no compiler\n\nset TORCH_LOGS")

    monkeypatch.setattr(torch, "compile", lambda model: broken)
    with pytest.raises(
        InputError, match=r"torch.compile failed \(RuntimeError: no compiler\): it needs a C\+\+ compiler"
    ):
        TorchCompileBackend(load_package(tmp_path / "package"), 1, str(trained.folder), "fp32")


def test_the_bench_backend_refuses_another_checkpoint(
    make_trained: Callable[..., TrainedModel], trained: TrainedModel, tmp_path: Path
) -> None:
    export_package(trained, tmp_path / "package")
    make_trained(trained.config.model, "other", seed=5)
    with pytest.raises(CheckpointError, match=r"was not exported from .*other: give --checkpoint"):
        PyTorchBackend(load_package(tmp_path / "package"), 1, str(tmp_path / "other"), "fp32")


def test_the_manifest_says_which_checkpoint_it_came_from(trained: TrainedModel, tmp_path: Path) -> None:
    export_package(trained, tmp_path / "package")
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text())
    digest = hashlib.sha256((trained.folder / "best.safetensors").read_bytes()).hexdigest()
    assert manifest["provenance"]["checkpoint_sha256"] == digest
