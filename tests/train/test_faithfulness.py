"""Faithfulness of evidence, with a graph whose truth is known."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tokenizers

from mlic_runtime import load_package
from mlic_runtime.base.arrays import Logits, Pixels, Tokens
from mlic_runtime.base.override import override
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.graph.session import GraphEvidence, create_session
from mlic_runtime.package.manifest import CARD_NAME, TextSpec
from mlic_train.config import DataOptions
from mlic_train.data.splits import load_splits
from mlic_train.exporting.faithfulness import (
    Explaining,
    Row,
    faithfulness_on,
    measure_faithfulness,
    rank_correlation,
    summarise,
)
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.runs.folder import TrainedModel

SIDE = 10  # a grid of 5 x 5 cells of 2 x 2 pixels
GREY = 128
WORDS = ("none", "a", "b", "c", "d", "e")
WORTH = np.array([0, 5, 1, 0.5, -1, -2], dtype=np.float32)  # of the words, in logits


class Linear(Explaining):
    """Its one logit is the sum over cells of weight * (brightness - grey), the worth of the words, and 1.

    Args:
        weights: float32 (5, 5).
        sign: of the evidence: with -1 it points to what speaks against.
    """

    def __init__(self, weights: npt.NDArray[np.float32], sign: float = 1.0) -> None:
        self.weights = weights
        self.sign = sign
        self.runs = 0

    @override
    def run(self, pixels: Pixels, input_ids: Tokens | None = None, attention_mask: Tokens | None = None) -> Logits:
        self.runs += len(pixels)
        return self._parts(pixels, input_ids, attention_mask)[0]

    @override
    def explain(
        self, pixels: Pixels, input_ids: Tokens | None = None, attention_mask: Tokens | None = None
    ) -> GraphEvidence:
        logits, picture, caption = self._parts(pixels, input_ids, attention_mask)
        return GraphEvidence(logits, self.sign * picture[:, None], self.sign * caption[:, None])

    def _parts(
        self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None
    ) -> tuple[Logits, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        assert input_ids is not None
        assert attention_mask is not None
        brightness = pixels[..., 0].reshape(-1, 5, 2, 5, 2).mean(axis=(2, 4)) - GREY
        picture = (self.weights * brightness).astype(np.float32)
        caption = (WORTH[input_ids] * attention_mask).astype(np.float32)
        return (1 + picture.sum(axis=(1, 2)) + caption.sum(axis=1))[:, None].astype(np.float32), picture, caption


@pytest.fixture
def tokenizer() -> CaptionTokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "none"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return CaptionTokenizer(made.to_str().encode(), TextSpec(max_length=8, vocab_size=len(WORDS), pad_id=0))


@pytest.fixture
def weights() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).permutation(np.arange(25, dtype=np.float32).reshape(5, 5).ravel()).reshape(5, 5)


BRIGHT = np.full((SIDE, SIDE, 3), GREY + 1, dtype=np.uint8)  # each cell contributes its weight


def test_true_evidence_is_measured_exactly(tokenizer: CaptionTokenizer, weights: npt.NDArray[np.float32]) -> None:
    found = measure_faithfulness(Linear(weights), tokenizer, [Row(BRIGHT, "a b c d e")], [0.5], SIDE)
    assert found["picture_deletion"] == 24 + 23 + 22 + 21 + 20  # a fifth of 25 cells
    assert found["caption_deletion"] == 5  # one of five words: "a"
    assert found["picture_occlusion_correlation"] == pytest.approx(1)
    assert found["caption_occlusion_correlation"] == pytest.approx(1)
    assert 5 * 4 < found["picture_random"] < 5 * 20  # the mean of five cells is 5 * 12
    assert found["caption_random"] < 5
    assert (found["rows"], found["occluded_rows"]) == (1, 1)
    assert (found["picture_labels"], found["caption_labels"]) == (1, 1)


def test_evidence_that_lies_is_found_out(tokenizer: CaptionTokenizer, weights: npt.NDArray[np.float32]) -> None:
    found = measure_faithfulness(Linear(weights, sign=-1), tokenizer, [Row(BRIGHT, "a b c d e")], [0.5], SIDE)
    assert found["picture_deletion"] == 0 + 1 + 2 + 3 + 4
    assert found["picture_deletion"] < found["picture_random"]
    assert found["caption_deletion"] == -2
    assert found["picture_occlusion_correlation"] == pytest.approx(-1)


def test_only_what_a_row_has_is_measured(tokenizer: CaptionTokenizer, weights: npt.NDArray[np.float32]) -> None:
    graph = Linear(weights)
    alone = measure_faithfulness(graph, tokenizer, [Row(BRIGHT, None), Row(BRIGHT, "a")], [0.5], SIDE)
    assert "caption_deletion" not in alone  # a caption of one word has no random word beside the best
    assert alone["picture_labels"] == 2
    black = np.zeros((5, 5), dtype=np.float32)
    words = measure_faithfulness(Linear(black), tokenizer, [Row(None, "a b")], [0.5], SIDE)
    assert "picture_deletion" not in words
    assert words["caption_deletion"] == 5
    nothing = measure_faithfulness(Linear(black), tokenizer, [Row(None, "e e")], [0.5], SIDE)
    assert nothing == {"rows": 0, "occluded_rows": 0}
    assert summarise(nothing) == "no label was predicted, so nothing was measured"


def test_the_cost_is_bounded(tokenizer: CaptionTokenizer, weights: npt.NDArray[np.float32]) -> None:
    graph = Linear(weights)
    found = measure_faithfulness(graph, tokenizer, [Row(BRIGHT, "a b c")] * 4, [0.5], SIDE, occluded_rows=1)
    assert found["occluded_rows"] == 1
    assert graph.runs == 4 * 2 * (1 + 5) + 25 + 3  # deletion of the best and five draws; each cell and word alone


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert rank_correlation([1, 2, 3], [-1, -8, -9]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(3**0.5 / 2)  # ranks 1.5, 1.5, 3
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_an_export_with_data_stores_it_and_says_it(trained: TrainedModel, colours: Path, tmp_path: Path) -> None:
    trained.state.thresholds = [0.01, 0.01, 0.01]  # of a model with random weights: it predicts each label
    said: list[str] = []
    splits = load_splits(DataOptions(colours))
    manifest = export_package(trained, tmp_path / "package", splits=splits, log=said.append)
    assert manifest.evidence is not None
    measured = manifest.evidence.faithfulness
    assert load_package(tmp_path / "package").manifest == manifest
    graph = create_session((tmp_path / "package" / "model.fp32.onnx").read_bytes())
    assert faithfulness_on(trained, graph, splits.val.records) == measured
    assert measured["rows"] == 12
    assert {"picture_deletion", "caption_deletion", "caption_occlusion_correlation"} <= measured.keys()
    line = f"evidence of the fp32 graph on 12 rows of val: a logit falls by {measured['picture_deletion']:.2f}"
    assert any(text.startswith(line) for text in said)
    card = (tmp_path / "package" / CARD_NAME).read_text()
    assert f"| words | {measured['caption_labels']} | {measured['caption_deletion']:.2f} |" in card


def test_an_export_without_data_says_that_it_was_not_measured(trained: TrainedModel, tmp_path: Path) -> None:
    manifest = export_package(trained, tmp_path / "package")
    assert manifest.evidence is not None
    assert manifest.evidence.faithfulness == {}
    assert "Faithfulness was not measured" in (tmp_path / "package" / CARD_NAME).read_text()
    plain = export_package(trained, tmp_path / "plain", ExportOptions(evidence=False))
    assert plain.evidence is None
    assert "Evidence" not in (tmp_path / "plain" / CARD_NAME).read_text()
