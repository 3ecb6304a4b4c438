"""A picture-only model that nothing but the table of models knows: it trains, teaches, and exports."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlic_runtime import Predictor
from mlic_runtime.base.override import override
from mlic_train import models
from mlic_train.config import MODELS, DataOptions, ModelConfig, TrainConfig
from mlic_train.data.splits import Splits, load_splits
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.exporting.parity import SHAPES
from mlic_train.models import Logits, create_model
from mlic_train.models.backbone import Backbone
from mlic_train.models.base import Encoded, PictureOnly
from mlic_train.models.calibration import Calibration
from mlic_train.runs.folder import TrainedModel, load_trained
from mlic_train.training.run import train_run
from mlic_train.training.teacher import soft_labels


class MeanColour(PictureOnly):
    """One linear layer over the mean of the feature maps."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.scores = nn.Linear(backbone.num_features, config.num_labels)
        self.calibration = Calibration(config.num_labels)

    @override
    def branches(self, features: Tensor) -> Logits:
        return Logits(self.scores(features.mean(dim=(2, 3))))


@pytest.fixture
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture
def new(
    monkeypatch: pytest.MonkeyPatch, make_trained: Callable[..., TrainedModel], small_model: ModelConfig
) -> TrainedModel:
    monkeypatch.setitem(models._KINDS, "cnn", MeanColour)
    return make_trained(dataclasses.replace(small_model, name="cnn"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_the_inputs_that_its_configuration_says(name: str, small_model: ModelConfig) -> None:
    config = dataclasses.replace(small_model, name=name)
    model = create_model(config)
    assert model.inputs == ("pixels", "input_ids", "attention_mask")[: 3 if config.reads_captions else 1]
    assert [tensor.ndim for tensor in example_inputs(model, 2, 5)] == [4, 2, 2][: len(model.inputs)]


def test_its_checkpoint_is_that_model(new: TrainedModel) -> None:
    assert isinstance(new.model, MeanColour)
    assert new.caption_tokenizer is None


def test_it_exports_with_parity_in_every_precision(
    new: TrainedModel, splits: Splits, tmp_path: Path, draw: Callable[..., Path]
) -> None:
    lines: list[str] = []
    options = ExportOptions(precisions=("fp32", "int8"), max_drop=100.0)
    manifest = export_package(new, tmp_path / "package", options, splits=splits, log=lines.append)
    assert {spec.shapes for spec in manifest.parity.values()} == {len(SHAPES)}
    assert list(manifest.parity) == ["fp32", "int8"]
    assert manifest.text is None
    assert manifest.evidence is None
    assert "cnn with these options cannot explain its logits: no evidence in the graphs" in lines
    picture = draw(tmp_path / "noise.png")
    predicted = Predictor.load(tmp_path / "package").predict(picture)
    assert set(predicted.probabilities) == set(new.config.model.labels)


def test_it_teaches_from_pictures(new: TrainedModel, splits: Splits) -> None:
    records = splits.val.records[:3]
    found = soft_labels([*records, dataclasses.replace(records[0], image=None)], [new])
    assert np.isfinite(found[:3]).all()
    assert np.isnan(found[3]).all()
    alone = soft_labels(records[:1], [new])
    np.testing.assert_allclose(found[:1], alone, atol=1e-6)


def test_it_trains(
    new: TrainedModel, splits: Splits, tmp_path: Path, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_model, name="cnn")
    state = train_run(tmp_path / "trained", config, dataclasses.replace(small_train, epochs=1), splits)
    assert state.finished
    assert isinstance(load_trained(tmp_path / "trained").model, MeanColour)


def test_it_refuses_rows_without_a_picture_and_evidence_that_it_lacks(new: TrainedModel) -> None:
    with pytest.raises(ValueError, match="needs a picture in every row"):
        new.model.arguments(Encoded(None, None, None, None))
    with pytest.raises(TypeError, match="MeanColour does not explain its logits"):
        export_graph(new.model, 64, evidence=True)


def test_a_model_without_a_caption_encoder_takes_no_weights_for_it(new: TrainedModel) -> None:
    with pytest.raises(RuntimeError, match=r"caption\.embedding"):
        new.model.start_captions({"embedding.weight": torch.zeros(2, 2)})
