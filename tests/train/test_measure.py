from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.package.manifest import ImageSpec, TextSpec
from mlic_train.batches.dataset import Batch, Examples
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.splits import load_splits
from mlic_train.measure.collect import collect, report
from mlic_train.measure.predict import MODES, Outputs, in_mode, predict_modes
from mlic_train.runs.folder import TrainedModel

SPEC = ImageSpec(16, 16, "bilinear", "stretch")


@pytest.fixture(scope="module")
def records(colours: Path) -> tuple[Record, ...]:
    """Pictures with captions, pictures without, and captions alone, in one list."""
    return load_splits(DataOptions(colours)).train.records[1::2]


@pytest.fixture(scope="module")
def tokenizer(records: tuple[Record, ...]) -> CaptionTokenizer:
    content = train_tokenizer(caption for record in records for caption in record.captions)
    return CaptionTokenizer(content, TextSpec(16, vocabulary_size(content)))


def look(batch: Batch) -> Tensor:
    """Logits that tell what a model was given: mean pixel or feature, number of tokens, 0."""
    rows = len(batch.targets)
    seen = torch.zeros(rows)
    for pictures in (batch.pixels, batch.features):
        if pictures is not None and batch.has_picture is not None:
            seen = pictures.flatten(1).float().mean(dim=1) * batch.has_picture
    tokens = torch.zeros(rows) if batch.attention_mask is None else batch.attention_mask.sum(dim=1)
    return torch.stack([seen, tokens, torch.zeros(rows)], dim=1)


def test_each_mode_leaves_the_other_input_and_the_empty_rows_out(
    records: tuple[Record, ...], tokenizer: CaptionTokenizer
) -> None:
    examples = Examples(records, 3, SPEC)
    found = predict_modes(look, examples, tokenizer, 4, modes=MODES)
    picture = np.array([record.image is not None for record in records])
    caption = np.array([bool(record.captions) for record in records])
    assert 0 < (picture & caption).sum() < picture.sum() < len(records)
    truth = np.array([[label in (record.labels or ()) for label in range(3)] for record in records])
    both = found["both"]
    np.testing.assert_array_equal(both.has_picture, picture)
    np.testing.assert_array_equal(both.has_caption, caption)
    np.testing.assert_array_equal(both.logits[:, :2] > 0, np.stack([picture, caption], axis=1))
    for mode, rows, column in (("picture-only", picture, 0), ("caption-only", caption, 1)):
        part = found[mode]
        np.testing.assert_array_equal(part.targets, truth[rows])
        np.testing.assert_array_equal(part.logits[:, column], both.logits[rows, column])
        assert (part.logits[:, 1 - column] == 0).all()
        np.testing.assert_array_equal(part.has_picture, np.full(rows.sum(), column == 0))
        np.testing.assert_array_equal(part.has_caption, np.full(rows.sum(), column == 1))


def test_a_mode_without_a_row_is_not_there(records: tuple[Record, ...], tokenizer: CaptionTokenizer) -> None:
    captions = [record for record in records if record.image is None]
    assert predict_modes(look, Examples(captions, 3, SPEC), tokenizer, 4, modes=MODES).keys() == {
        "both",
        "caption-only",
    }


def test_the_backbone_works_once_per_picture_and_not_once_per_mode(
    records: tuple[Record, ...], trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [record for record in records if record.image is not None]
    encode, calls = trained.model.encode_picture, []

    def count(pixels: Tensor) -> Tensor:
        calls.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(trained.model, "encode_picture", count)
    found = collect(trained, trained.run, pictures)
    assert sum(calls) == len(pictures)
    examples = Examples(pictures, 3, SPEC)
    for mode in MODES:
        alone = predict_modes(trained.run, examples, trained.caption_tokenizer, 16, modes=[mode])
        np.testing.assert_array_equal(found[mode].logits, alone[mode].logits)


def test_rows_that_are_left_out_are_drawn_at_random_and_the_others_keep_their_order(
    records: tuple[Record, ...], tokenizer: CaptionTokenizer
) -> None:
    examples = Examples(records, 3, SPEC)
    whole = predict_modes(look, examples, tokenizer, 4, modes=MODES)
    asked: list[int] = []

    def enough(done: int) -> bool:
        asked.append(done)
        return done >= 8

    some = predict_modes(look, examples, tokenizer, 4, modes=MODES, enough=enough)
    assert asked == [4, 8]
    rows = np.sort(np.random.default_rng(0).permutation(len(records))[:8])
    for name in ("logits", "targets", "has_picture", "has_caption"):
        np.testing.assert_array_equal(getattr(some["both"], name), getattr(whole["both"], name)[rows])
    every = predict_modes(look, examples, tokenizer, 4, modes=MODES, enough=lambda done: False)
    for mode, outputs in whole.items():
        np.testing.assert_array_equal(every[mode].logits, outputs.logits)


def test_progress_counts_rows(records: tuple[Record, ...], tokenizer: CaptionTokenizer) -> None:
    steps: list[tuple[int, int]] = []
    predict_modes(
        look, Examples(records[:9], 3, SPEC), tokenizer, 4, modes=MODES, progress=lambda *step: steps.append(step)
    )
    assert steps == [(4, 9), (8, 9), (9, 9)]


def test_a_model_without_captions_is_left_as_it_is() -> None:
    batch = Batch(torch.ones(1, 2, 2, 3), None, torch.tensor([True]), None, None, torch.zeros(1, 3))
    assert in_mode(batch, "picture-only") is batch
    assert in_mode(batch, "both") is batch


def test_the_report_has_metrics_and_intervals_of_every_mode() -> None:
    targets = np.array([[True, False], [False, True], [True, True]])
    yes = np.full(3, True)
    outputs: Callable[[float], Outputs] = lambda sign: Outputs(  # noqa: E731 # made twice
        (np.where(targets, 2.0, -2.0) * sign).astype(np.float32), targets, yes, yes
    )
    found = report({"both": outputs(1.0), "picture-only": outputs(-1.0)}, [0.5, 0.5])
    assert found.keys() == {"", "-picture-only"}
    assert found[""]["samples_f1"] == found[""]["samples_f1_low"] == found[""]["map_high"] == 1.0
    assert found["-picture-only"]["samples_f1"] == 0.0
