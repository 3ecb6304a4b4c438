import json
from pathlib import Path
from typing import Any

import pytest

from mlic_runtime import Prediction, Predictor
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import CaptionError, PackageError
from mlic_runtime.limits import MAX_CAPTION_CHARACTERS
from mlic_runtime.package.manifest import TextSpec
from mlic_runtime.rows.reader import Row, RowError

SPEC = TextSpec(max_length=6, vocab_size=7, pad_id=0)
UNKNOWN, RED, GREEN, BLUE = 1, 2, 3, 4


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((tiny / "tokenizer.json").read_text("utf-8"))
    return data


@pytest.fixture
def tokenizer(tiny: Path) -> CaptionTokenizer:
    return CaptionTokenizer((tiny / "tokenizer.json").read_bytes(), SPEC)


def test_rows_are_padded_to_the_longest(tokenizer: CaptionTokenizer) -> None:
    ids, mask = tokenizer.encode(["red", "Green, RED"])
    assert ids.tolist() == [[RED, 0, 0], [GREEN, UNKNOWN, RED]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert ids.dtype == mask.dtype == "int64"


@pytest.mark.parametrize("caption", [None, "", "  \n\t", "\0", "\u3000"])
def test_no_caption_is_a_row_without_tokens(tokenizer: CaptionTokenizer, caption: "str | None") -> None:
    ids, mask = tokenizer.encode([caption])
    assert ids.tolist() == [[0]]
    assert mask.tolist() == [[0]]
    ids, mask = tokenizer.encode([caption, "red blue"])
    assert ids.tolist() == [[0, 0], [RED, BLUE]]
    assert mask.tolist() == [[0, 0], [1, 1]]


def test_the_padding_id_of_the_manifest_counts(content: dict[str, Any]) -> None:
    ids, _ = CaptionTokenizer(json.dumps(content).encode(), TextSpec(6, 7, pad_id=5)).encode([None, "red red"])
    assert ids.tolist() == [[5, 5], [RED, RED]]


def test_no_captions_at_all_give_no_rows(tokenizer: CaptionTokenizer) -> None:
    ids, mask = tokenizer.encode([])
    assert ids.shape == mask.shape == (0, 1)


def test_of_a_long_caption_the_first_tokens_count(tokenizer: CaptionTokenizer) -> None:
    ids, mask = tokenizer.encode(["red green blue " * 5])
    assert ids.tolist() == [[RED, GREEN, BLUE, RED, GREEN, BLUE]]
    assert mask.tolist() == [[1] * 6]


def test_the_settings_in_the_tokenizer_are_replaced(content: dict[str, Any]) -> None:
    content["truncation"] = {"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Left"}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 6,
        "pad_type_id": 0,
        "pad_token": "no",
    }
    ids, mask = CaptionTokenizer(json.dumps(content).encode(), SPEC).encode(["red green", "blue"])
    assert ids.tolist() == [[RED, GREEN], [BLUE, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]


def test_a_caption_is_cut_before_it_is_tokenised(tokenizer: CaptionTokenizer) -> None:
    assert tokenizer.encode([" " * MAX_CAPTION_CHARACTERS + "red"])[1].tolist() == [[0]]
    assert tokenizer.encode([" " * (MAX_CAPTION_CHARACTERS - 3) + "red"])[0].tolist() == [[RED]]


def test_what_comes_behind_the_cut_does_not_matter(tokenizer: CaptionTokenizer) -> None:
    blanks = " " * (MAX_CAPTION_CHARACTERS - 10)
    seen = tokenizer.encode([blanks + "red green "])[0].tolist()
    assert seen == [[RED, GREEN]]
    for behind in ("blue " * 200_000, "\0" * 1_000_000, "\ud800" * 1_000_000, "\U0001f600" * 250_000):
        assert tokenizer.encode([blanks + "red green " + behind])[0].tolist() == seen


def test_a_pair_of_surrogates_that_the_cut_divides_is_not_a_character(tokenizer: CaptionTokenizer) -> None:
    caption = " " * (MAX_CAPTION_CHARACTERS - 1) + "\ud83d\ude00"
    assert tokenizer.encode([caption])[0].tolist() == [[UNKNOWN]]


@pytest.mark.parametrize(
    "caption",
    [
        "\u05e9\u05dc\u05d5\u05dd",
        "\u202eder\u202c",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "e" + "\u0301" * 10_000,
        "\u200b\u200d\ufeff",
        "\a\b\x1b[2J\x7f\x9b",
        "\udc00\ud800",
        "\ufdfa" * 1000,
        "x" * 1_000_000,
        "!?" * 500_000,
    ],
    ids=ascii,
)
def test_any_text_is_tokens_and_leaves_its_neighbours_alone(tokenizer: CaptionTokenizer, caption: str) -> None:
    ids, mask = tokenizer.encode(["red green", caption, "blue"])
    assert ids.shape == mask.shape
    assert ids.shape[1] <= SPEC.max_length
    assert ids[0, :2].tolist() == [RED, GREEN]
    assert mask.sum(axis=1).tolist()[::2] == [2, 1]
    assert mask[1].any()
    assert set(ids[1][mask[1] == 1].tolist()) <= {UNKNOWN}


def test_ten_thousand_captions_at_once_are_answered_as_each_alone(tiny: Path) -> None:
    predictor = Predictor.load(tiny)
    kinds = ["red", "green blue", "bright\0red", "\ud800", "no " * 50]
    alone = [predictor.predict(caption=caption).probabilities for caption in kinds]
    captions = [kinds[number % len(kinds)] for number in range(10_000)]
    many = predictor.predict_many([None] * len(captions), captions)
    rows = predictor.predict_rows(Row(caption=caption) for caption in captions)
    for predictions in (many, rows):
        found = list(predictions)
        assert len(found) == len(captions)
        for number, prediction in enumerate(found):
            assert isinstance(prediction, Prediction)
            expected = alone[number % len(kinds)]
            assert all(abs(prediction.probabilities[label] - expected[label]) < 1e-6 for label in expected)


def test_ten_thousand_captions_of_which_one_is_none(tiny: Path) -> None:
    captions: list[str | None] = ["red"] * 10_000
    captions[7_777] = 7  # type: ignore[call-overload] # the point of the test
    predictor = Predictor.load(tiny)
    with pytest.raises(CaptionError, match="found int"):
        predictor.predict_many([None] * len(captions), captions)
    found = list(predictor.predict_rows(Row(caption=caption) for caption in captions))
    assert [number for number, result in enumerate(found) if isinstance(result, RowError)] == [7_777]


def test_characters_that_are_none_do_no_harm(tokenizer: CaptionTokenizer) -> None:
    assert tokenizer.encode(["red\0green"])[0].tolist() == [[RED, GREEN]]
    assert tokenizer.encode(["red \ud800 green"])[0].tolist() == [[RED, UNKNOWN, GREEN]]
    assert tokenizer.encode(["red \ud83d\ude00"])[0].tolist() == tokenizer.encode(["red \U0001f600"])[0].tolist()


@pytest.mark.parametrize("caption", [b"red", 7, ["red"], float("nan")])
def test_a_caption_must_be_a_text(tokenizer: CaptionTokenizer, caption: object) -> None:
    with pytest.raises(CaptionError, match=f"found {type(caption).__name__}"):
        tokenizer.encode([caption])  # type: ignore[list-item] # the point of the test


def with_special_tokens(content: dict[str, Any]) -> bytes:
    """`[PAD]` before and `no` behind every caption, in the way of [CLS] and [SEP]."""
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[PAD]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "no", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            "[PAD]": {"id": "[PAD]", "ids": [0], "tokens": ["[PAD]"]},
            "no": {"id": "no", "ids": [6], "tokens": ["no"]},
        },
    }
    return json.dumps(content).encode()


def test_special_tokens_stay_when_a_caption_is_cut(content: dict[str, Any]) -> None:
    tokenizer = CaptionTokenizer(with_special_tokens(content), TextSpec(4, 7))
    assert tokenizer.encode(["red green blue"])[0].tolist() == [[0, RED, GREEN, 6]]


def test_a_caption_of_nothing_but_special_tokens_is_none(content: dict[str, Any]) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "x"}, "content": ""}
    tokenizer = CaptionTokenizer(with_special_tokens(content), SPEC)
    ids, mask = tokenizer.encode(["xx", "red"])
    assert ids.tolist() == [[0, 0, 0], [0, RED, 6]]
    assert mask.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_more_special_tokens_than_places_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(PackageError, match=r"adds 2 special tokens, but text\.max_length is 1"):
        CaptionTokenizer(with_special_tokens(content), TextSpec(1, 7))


@pytest.mark.parametrize("data", [b"", b"{}", b"[1, 2", b"\xff", b'{"version": "1.0", "model": {"type": "None"}}'])
def test_what_is_not_a_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"^tokenizer\.json is not a tokenizer: .") as caught:
        CaptionTokenizer(data, SPEC)
    assert "\n" not in str(caught.value)


def test_ids_beyond_the_vocabulary_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(PackageError, match=r"token ids up to 6, but text\.vocab_size is 6"):
        CaptionTokenizer(json.dumps(content).encode(), TextSpec(6, 6))
    content["model"]["vocab"]["far"] = 1000
    with pytest.raises(PackageError, match="token ids up to 1000"):
        CaptionTokenizer(json.dumps(content).encode(), TextSpec(6, 8))
