"""A tokenizer.json that would stall a device, exhaust its memory, or reach beyond the model's embedding."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from mlic_runtime import limits
from mlic_runtime.caption import tokenizer_safety
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.caption.tokenizer_safety import REGEXES, library_error, load_tokenizer
from mlic_runtime.errors import PackageError
from mlic_runtime.limits import MAX_CAPTION_CHARACTERS
from mlic_runtime.package.manifest import TextSpec

SPEC = TextSpec(max_length=6, vocab_size=7)
WORDS = {"[PAD]": 0, "[UNK]": 1, "red": 2, "##d": 3, "r": 4, "e": 5, "d": 6}
BACKTRACKING = "(?:a|a){17}(?=[^a][^b])"  # 8 ms for every character of a caption of a's

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((tiny / "tokenizer.json").read_text("utf-8"))
    return data


def load(content: dict[str, Any]) -> CaptionTokenizer:
    return CaptionTokenizer(json.dumps(content).encode(), SPEC)


def split(pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def replace(pattern: dict[str, str], text: str = "") -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": text}


def row(*normalizers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(normalizers)}


def template(*items: dict[str, Any], special: "dict[str, list[int]] | None" = None) -> dict[str, Any]:
    tokens = {name: {"id": name, "ids": ids, "tokens": [name] * len(ids)} for name, ids in (special or {}).items()}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": list(items), "pair": pair, "special_tokens": tokens}


def word_piece(**changes: object) -> dict[str, Any]:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": WORDS}
    return {**model, "max_input_chars_per_word": 100, **changes}


def bpe(**changes: object) -> dict[str, Any]:
    model: dict[str, Any] = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    return {
        "type": "BPE",
        **model,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {"r": 0},
        "merges": [],
        **changes,
    }


ADDED = {"content": "q", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
CAPTION = {"Sequence": {"id": "A", "type_id": 0}}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def charsmap(*texts: bytes) -> dict[str, Any]:
    """An index of one empty entry, and what it leads to."""
    import base64

    data = (4).to_bytes(4, "little") + bytes(4) + b"".join(text + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # patterns
        (lambda t: t.update(pre_tokenizer=split({"Regex": "(a+)+$"})), r"regular expression '\(a\+\)\+\$', which is"),
        (lambda t: t.update(normalizer=replace({"Regex": BACKTRACKING})), "has the regular expression"),
        (lambda t: t.update(normalizer=row(row(replace({"Regex": "x*"})))), r"has the regular expression 'x\*'"),
        (lambda t: t.update(decoder=replace({"Regex": "x*"})), r"has the regular expression 'x\*'"),
        (lambda t: t.update(pre_tokenizer=split({"Regex": "[a&&b]" * 300_000})), "has the regular expression"),
        # texts that grow
        (lambda t: t.update(normalizer=replace({"String": "a"}, "b" * 1_000_000)), "1e[+]06 times as long"),
        (lambda t: t.update(normalizer=row(*[replace({"String": "a"}, "aa")] * 5)), "32 times as long"),
        (lambda t: t.update(normalizer=replace({"String": ""}, "b")), "replaces the empty text"),
        (lambda t: t.update(normalizer={"type": "Prepend", "prepend": "x" * 17}), "prepends 17 characters"),
        (lambda t: t.update(normalizer=row(*[{"type": "Prepend", "prepend": "x"}] * 2)), "'Prepend' more than once"),
        (lambda t: t.update(normalizer=charsmap(b"a", b"b" * 65)), "a character into more than 64 bytes"),
        (
            lambda t: t.update(normalizer={"type": "ByteLevel"}, pre_tokenizer=BYTE_LEVEL),
            "has 'ByteLevel' more than once",
        ),
        # time
        (lambda t: t.update(normalizer=row(*[{"type": "NFKC"}] * 17)), "has 17 steps in its normalizer, expected at"),
        (lambda t: t.update(model=word_piece(max_input_chars_per_word=201)), "max_input_chars_per_word 201, expected"),
        (lambda t: t.update(model=word_piece(continuing_subword_prefix="#" * 17)), "prefix of 17 characters"),
        (lambda t: t.update(model=bpe(end_of_word_suffix="#" * 17)), "end_of_word_suffix of 17 characters"),
        (lambda t: t["model"]["vocab"].update({"x" * 257: 6}), "a token of 257 characters, expected at most 256"),
        # chance
        (lambda t: t.update(model=bpe(dropout=0.5), added_tokens=[]), "a BPE dropout of 0.5"),
        # panics of the library
        (lambda t: t.update(pre_tokenizer={"type": "FixedLength", "length": 0}), "a FixedLength of 0, expected 1"),
        (
            lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "////fw=="}),
            "is not a tokenizer: .*charsmap",
        ),
        (
            lambda t: t.update(post_processor=template(CAPTION, {"SpecialToken": {"id": "x", "type_id": 0}})),
            "a template with 'x', which is not among its special tokens",
        ),
        # ids and lengths that the model was not made for
        (lambda t: t.update(post_processor=template(CAPTION, special={"x": [2, 7]})), "ids up to 7, but .* is 7"),
        (
            lambda t: t.update(post_processor={"type": "BertProcessing", "sep": ["red", 2], "cls": ["far", 2**32 - 1]}),
            "token ids up to 4294967295, but",
        ),
        (lambda t: t["added_tokens"].append({**ADDED, "id": 7}), "token ids up to 7, but"),
        (lambda t: t["model"]["vocab"].update(far=2**32 - 1), "token ids up to 4294967295, but"),
        (lambda t: t.update(post_processor=template(CAPTION, CAPTION)), r"template with the sequences \['A', 'A'\]"),
        (lambda t: t.update(post_processor=template()), r"template with the sequences \[\]"),
        # not the library's format
        (lambda t: t.update(normalizer={"type": "Evil"}), "is not a tokenizer"),
        (lambda t: t.update(model={"type": "Evil"}), "is not a tokenizer"),
        (lambda t: t["model"]["vocab"].update(red=-1), "is not a tokenizer"),
        (lambda t: t.update(normalizer=json.loads('{"type":"Sequence","normalizers":[' * 90 + "]}" * 90)), "recursion"),
    ],
)
def test_what_a_tokenizer_may_not_ask_for_is_refused(content: dict[str, Any], change: Change, message: str) -> None:
    change(content)
    with pytest.raises(PackageError, match=rf"^tokenizer\.json .*{message}") as caught:
        load(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", [r'"Regex"', r'"\u0052egex"', r'"Rege\u0078"'])
def test_a_pattern_is_found_before_the_library_compiles_it(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    class Unreached:
        def from_str(self, text: str) -> None:
            raise AssertionError("the library has read the file")

    monkeypatch.setattr(tokenizer_safety, "Tokenizer", Unreached())
    content["pre_tokenizer"] = split({"PLACE": "x*"})
    text = json.dumps(content).replace('"PLACE"', key)
    with pytest.raises(PackageError, match=r"has the regular expression 'x\*'"):
        CaptionTokenizer(text.encode(), SPEC)
    good = text.replace("x*", "x", 1).replace('"x"}', '"[a-z ]"}')
    first = good.replace('{"type": "Split"', '{"pattern": {"Regex": "x*"}, "type": "Split"')
    with pytest.raises(PackageError, match=r"has the regular expression 'x\*'"):  # of two, whichever would count
        CaptionTokenizer(first.encode(), SPEC)


def test_a_pattern_is_found_in_what_the_library_made_as_well(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library also takes JSON that it would not write, such as a component without its type."""
    monkeypatch.setattr(tokenizer_safety, "_check_source", lambda content: None)
    for name, part in (("pre_tokenizer", split({"Regex": "x*"})), ("normalizer", row(replace({"Regex": "x*"})))):
        with pytest.raises(PackageError, match=r"has the regular expression 'x\*'"):
            load({**content, name: part})
    without_type = {key: value for key, value in row(replace({"Regex": "x*"})).items() if key != "type"}
    with pytest.raises(PackageError, match=r"has the regular expression 'x\*'"):
        load({**content, "normalizer": without_type})


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(model=bpe(vocab={"r": 0, "e": 1, "d": 2}, merges=[["r", "e"]]), added_tokens=[]),
        lambda t: t.update(normalizer=charsmap(b"a") | {"precompiled_charsmap": "AAAAAA=="}),
        lambda t: t.update(
            normalizer={"normalizers": [{"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAA=="}]}
        ),
        lambda t: t.update(normalizer={"normalizers": [[[]], [[]]]}),
        lambda t: t.update(model={"unk_token": "../x", "vocab": {}}, added_tokens=[]),
    ],
)
def test_what_the_fuzzer_found_to_make_the_library_panic_is_an_error_of_ours(
    content: dict[str, Any], change: Change
) -> None:
    """Or it is none: what panics differs between versions of the library."""
    change(content)
    with contextlib.suppress(PackageError):
        load(content).encode(["red", "a" * 300, "\U0001f600 e\u0301"])


def test_a_word_of_the_vocabulary_may_be_called_like_the_key(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["Regex"] = 6
    load(content)


@pytest.mark.parametrize(
    "data", [b'{"Regex": [1, 2', b'{"Regex": "' + b"[" * 10, b'{"a": "\\u00"}', b"[" * 9_999 + b'"Regex"']
)
def test_what_may_hold_a_pattern_and_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"tokenizer\.json is not a tokenizer: "):
        CaptionTokenizer(data, SPEC)


def test_a_file_over_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_OTHER_FILE_BYTES", 1000)
    with pytest.raises(PackageError, match=r"tokenizer\.json has 1001 bytes, expected at most 1000"):
        load_tokenizer(b" " * 1001, 7)


# --- what fails only on a caption


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordLevel", "vocab": {"red": 0}, "unk_token": "[UNK]"},
        bpe(unk_token="[UNK]"),
        {"type": "Unigram", "unk_id": None, "vocab": [["r", 0.0]], "byte_fallback": False},
    ],
)
def test_a_vocabulary_without_a_token_for_the_unknown_is_the_packages_fault(
    content: dict[str, Any], model: dict[str, Any]
) -> None:
    content.update(model=model, added_tokens=[])
    with pytest.raises(PackageError, match=r"^tokenizer\.json failed on the caption 'zzz': .") as caught:
        load(content).encode(["zzz"])
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_is_the_packages_fault(content: dict[str, Any]) -> None:
    """It is raised as a `BaseException` that is no `Exception`. This index leads to nowhere."""
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8A"}
    with pytest.raises(PackageError, match=r"^tokenizer\.json failed on the caption 'red': "):
        load(content).encode(["red"])


def test_what_is_not_the_librarys_error_is_not_taken_for_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        library_error(KeyboardInterrupt(), "failed")


# --- what must keep working


def made(model: Any, **parts: Any) -> bytes:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer.to_str().encode()


UNIGRAM = [("<unk>", 0.0), ("▁", -1.0), ("red", -2.0), ("e", -3.0)]

FAMILIES = {
    "BERT": made(
        models.WordPiece(WORDS, unk_token="[UNK]"),
        normalizer=normalizers.BertNormalizer(lowercase=True),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        post_processor=processors.TemplateProcessing("[PAD] $A [UNK]", special_tokens=[("[PAD]", 0), ("[UNK]", 1)]),
    ),
    "RoBERTa": made(
        models.BPE({"r": 0, "e": 1, "d": 2, "re": 3}, [("r", "e")]),
        normalizer=normalizers.NFC(),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        post_processor=processors.RobertaProcessing(("r", 0), ("e", 1)),
    ),
    "CLIP": made(
        models.BPE({"r": 0, "e": 1, "d</w>": 2}, [], unk_token="r", end_of_word_suffix="</w>"),
        normalizer=normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        ),
        pre_tokenizer=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(REGEXES[4]), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        ),
        post_processor=processors.RobertaProcessing(("r", 0), ("e", 1)),
    ),
    "Llama": made(
        models.BPE({"r": 0, "e": 1, "d": 2}, []),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(REGEXES[6]), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        ),
        post_processor=processors.ByteLevel(trim_offsets=False),
    ),
    "XLM-RoBERTa": made(
        models.Unigram(UNIGRAM, 0, False),
        normalizer=normalizers.Replace(Regex(" {2,}"), " "),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        post_processor=processors.TemplateProcessing("$A red", special_tokens=[("red", 2)]),
    ),
    "ALBERT": made(
        models.Unigram(UNIGRAM, 0, False),
        normalizer=normalizers.Sequence(
            [
                normalizers.Replace("``", '"'),
                normalizers.Replace("''", '"'),
                normalizers.NFKD(),
                normalizers.StripAccents(),
                normalizers.Lowercase(),
            ]
        ),
        pre_tokenizer=pre_tokenizers.Metaspace(),
    ),
    "words": made(
        models.WordLevel(WORDS, unk_token="[UNK]"),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Replace("&", " and ")]),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
        ),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizers_that_models_come_with_are_accepted(family: str) -> None:
    tokenizer = CaptionTokenizer(FAMILIES[family], SPEC)
    ids, mask = tokenizer.encode(["red", "Red &  2 \U0001f600 '' dee"])
    assert mask[0].any()
    assert ids.max() < SPEC.vocab_size


def test_a_map_of_characters_is_accepted(content: dict[str, Any]) -> None:
    content["normalizer"] = charsmap(b"a", "صلى الله عليه وسلم".encode())  # the longest that Unicode has
    load(content)


def test_the_released_tokenizer_is_accepted() -> None:
    path = Path(__file__).parents[2] / "exported" / "hybrid" / "tokenizer.json"
    load_tokenizer(path.read_bytes(), 8000)


@pytest.mark.parametrize("pattern", REGEXES)
@pytest.mark.parametrize("text", ["a", " ", "'", "1", "\n", " a", "'s", "a1 ", "\r\n ", "!", "A'"])
def test_the_accepted_patterns_take_no_longer_for_a_text_that_they_do_not_like(pattern: str, text: str) -> None:
    """Each takes a few ms; one that backtracks would take minutes, or panic."""
    splits = made(
        models.WordLevel(WORDS, unk_token="[UNK]"), pre_tokenizer=pre_tokenizers.Split(Regex(pattern), "isolated")
    )
    tokenizer = load_tokenizer(splits, 7)
    for end in ("", "b"):
        tokenizer.encode((text * MAX_CAPTION_CHARACTERS)[: MAX_CAPTION_CHARACTERS - 1] + end)
