"""Evidence: what each place of a picture and each word of a caption adds to a logit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlic_runtime import Predictor, load_package
from mlic_runtime.errors import PackageError
from mlic_runtime.graph.session import create_session
from mlic_train.config import ModelConfig
from mlic_train.errors import ExportError
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.exporting.parity import check_parity
from mlic_train.models import Cnn, Hybrid, create_model
from mlic_train.runs.folder import TrainedModel

ATOL = 1e-4
BACKBONE = "tf_efficientnet_lite0"


@pytest.fixture
def hybrid(small_model: ModelConfig) -> Hybrid:
    """A hybrid with random weights, the Transformer's and the calibration's among them."""
    torch.manual_seed(0)
    model = create_model(small_model)
    assert isinstance(model, Hybrid)
    for weight in (model.get_parameter("interaction.label_weight"), model.picture_labels.scores.weight):
        torch.nn.init.normal_(weight)
    model.calibration.scale.uniform_(0.5, 2.0)
    model.calibration.bias.normal_()
    return model.eval()


@torch.inference_mode()
def test_the_parts_of_both_inputs_and_the_rest_of_late_fusion_are_the_logit(small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(small_model, fusion="late")).eval()
    assert isinstance(model, Hybrid)
    model.picture_labels.scores.weight.normal_()
    model.calibration.scale.uniform_(0.5, 2.0)
    inputs = example_inputs(model, 5, 9, seed=3)
    explained = model.explain(*inputs)
    assert explained.caption_evidence is not None
    parts = explained.picture_evidence.sum(dim=(2, 3)) + explained.caption_evidence.sum(dim=2)
    has_caption, has_picture = (each.flatten(1).any(dim=1).bool() for each in (inputs[2], inputs[0]))
    scale = model.calibration.scale_of(has_picture, has_caption)
    picture_bias, caption_bias = 1.3 * model.picture_labels.scores.bias, model.caption_labels.bias
    both = (has_picture & has_caption)[:, None]
    bias = torch.where(both, model.picture_share, has_picture[:, None].float()) * picture_bias
    bias = bias + torch.where(both, model.caption_share, has_caption[:, None].float()) * caption_bias
    torch.testing.assert_close(parts + scale * bias, explained.logits, atol=ATOL, rtol=0)
    torch.testing.assert_close(explained.logits, model(*inputs), atol=0, rtol=0)


@torch.inference_mode()
def test_a_missing_input_has_no_part_in_the_logits(hybrid: Hybrid) -> None:
    pixels, ids, mask = example_inputs(hybrid, 3, 4)  # row 1 has no caption, row 2 no picture
    explained = hybrid.explain(pixels, ids, mask)
    assert explained.caption_evidence is not None
    assert not explained.caption_evidence[1].any()
    assert explained.picture_evidence[1].any()
    assert not explained.picture_evidence[2].any()
    assert explained.caption_evidence[2].any()


@torch.inference_mode()
def test_padding_changes_no_evidence(hybrid: Hybrid) -> None:
    pixels, ids, mask = example_inputs(hybrid, 1, 4)
    padded = (torch.nn.functional.pad(each, (0, 3)) for each in (ids, mask))
    alone, longer = hybrid.explain(pixels, ids, mask), hybrid.explain(pixels, *padded)
    assert alone.caption_evidence is not None
    assert longer.caption_evidence is not None
    assert not longer.caption_evidence[:, :, 4:].any()
    torch.testing.assert_close(longer.caption_evidence[:, :, :4], alone.caption_evidence)


@torch.inference_mode()
def test_the_largest_score_is_shared_by_equal_places(hybrid: Hybrid) -> None:
    cells = torch.ones(1, 4, hybrid.picture_labels.scores.in_features)
    evidence = hybrid.picture_labels.evidence(cells)
    torch.testing.assert_close(evidence, evidence[:, :, :1].expand_as(evidence))
    logits = hybrid.picture_labels(cells) - 1.3 * hybrid.picture_labels.scores.bias
    torch.testing.assert_close(evidence.sum(dim=2), logits, atol=ATOL, rtol=0)


@torch.inference_mode()
def test_a_cnn_explains_its_logits(small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(small_model, name="cnn", backbone=BACKBONE, image_size=64)).eval()
    assert isinstance(model, Cnn)
    model.calibration.scale.uniform_(0.5, 2.0)
    (pixels,) = example_inputs(model, 2, 1)
    explained = model.explain(pixels)
    assert explained.caption_evidence is None
    assert explained.picture_evidence.shape == (2, 3, 2, 2)
    rest = explained.logits - explained.picture_evidence.sum(dim=(2, 3))
    torch.testing.assert_close(rest[0], rest[1], atol=ATOL, rtol=0)  # biases alone: the same for every picture


@pytest.mark.parametrize(
    "changes",
    [{"name": "cnn"}, {"name": "origin_hybrid"}, {"softmax_output": True}],
    ids=["the origin's layers", "the origin's hybrid", "softmax"],
)
def test_some_models_do_not_explain(small_model: ModelConfig, changes: dict[str, object]) -> None:
    model = create_model(dataclasses.replace(small_model, **changes))  # type: ignore[arg-type] # by name
    assert not model.explains


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (7, 1), (3, 20)])
def test_the_graph_gives_the_models_evidence_and_unchanged_logits(hybrid: Hybrid, batch: int, tokens: int) -> None:
    plain = create_session(export_graph(hybrid, 64))
    session = create_session(export_graph(hybrid, 64, evidence=True))
    inputs = example_inputs(hybrid, batch, tokens, seed=5)
    arrays = [each.numpy() for each in inputs]
    with torch.inference_mode():
        expected = hybrid.explain(*inputs)
    found = session.explain(*arrays)
    assert found.caption is not None
    assert expected.caption_evidence is not None
    np.testing.assert_array_equal(session.run(*arrays), plain.run(*arrays))
    np.testing.assert_array_equal(found.logits, session.run(*arrays))
    np.testing.assert_allclose(found.picture, expected.picture_evidence.numpy(), atol=ATOL)
    np.testing.assert_allclose(found.caption, expected.caption_evidence.numpy(), atol=ATOL)


def test_a_graph_without_evidence_says_so(hybrid: Hybrid) -> None:
    session = create_session(export_graph(hybrid, 64))
    assert not session.explains
    arrays = [each.numpy() for each in example_inputs(hybrid, 1, 2)]
    with pytest.raises(PackageError, match=r"no output picture_evidence; export the model again, with evidence"):
        session.explain(*arrays)


def test_parity_refuses_evidence_that_differs(
    make_trained: Callable[..., TrainedModel], small_model: ModelConfig
) -> None:
    trained = make_trained(small_model)
    assert isinstance(trained.model, Hybrid)
    session = create_session(export_graph(trained.model, 64, evidence=True))
    labels = trained.model.picture_labels
    labels.evidence = lambda positions: 2 * type(labels).evidence(labels, positions)  # type: ignore[method-assign]
    with pytest.raises(ExportError, match=r"parity of fp32 failed at B=1, T=1: picture_evidence differ by"):
        check_parity(trained, session)


@pytest.mark.parametrize("evidence", [True, False])
def test_a_package_explains_a_prediction_by_its_graph_or_by_occlusion(
    trained: TrainedModel, tmp_path: Path, evidence: bool
) -> None:
    manifest = export_package(trained, tmp_path / "package", ExportOptions(evidence=evidence))
    assert (manifest.evidence is not None) == evidence
    assert load_package(tmp_path / "package").manifest == manifest
    predictor = Predictor.load(tmp_path / "package")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    caption = "A dog, a red  cat."
    plain = predictor.predict(picture, caption)
    explained = predictor.predict(picture, caption, evidence=True)
    assert plain.evidence is None
    assert dataclasses.replace(explained, evidence=None) == plain
    found = explained.evidence
    assert found is not None
    assert found.method == ("contributions" if evidence else "occlusion")
    assert found.picture is not None
    assert found.caption is not None
    assert set(found.picture) == set(found.caption) == set(predictor.labels)
    assert all(caption[start:end] == word for word, (start, end) in zip(found.words, found.spans, strict=True))
    assert "".join(found.words) == caption.replace(" ", "")
    assert all(len(found.caption[label]) == len(found.words) for label in predictor.labels)
    if evidence:
        for label, probability in explained.probabilities.items():
            logit = found.rest[label] + found.picture[label].sum() + found.caption[label].sum()
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(probability, abs=1e-5)


def test_only_what_a_row_has_is_explained(trained: TrainedModel, tmp_path: Path) -> None:
    for evidence in (True, False):
        export_package(trained, tmp_path / str(evidence), ExportOptions(evidence=evidence))
        predictor = Predictor.load(tmp_path / str(evidence))
        of_caption = predictor.predict(caption="dog", evidence=True).evidence
        of_picture = predictor.predict(Image.new("RGB", (20, 20), "red"), evidence=True).evidence
        assert of_caption is not None
        assert of_picture is not None
        assert (of_caption.picture, of_caption.words) == (None, ("dog",))
        assert (of_picture.caption, of_picture.words) == (None, ())
        assert of_picture.picture is not None
