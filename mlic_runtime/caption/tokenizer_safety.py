"""The components and sizes that a tokenizer.json may have, so that it cannot stall or exhaust a device.

The `tokenizers` library does whatever the file says, and a package may come from anywhere. Measured with tokenizers
0.23 on one caption of at most 20,000 characters: a regular expression that backtracks takes minutes, or ends in a Rust
panic, which is no `Exception`; one of 1.7 MB takes more than 10 s to compile; replacements that grow the text fill the
memory; 20,000 normalizers in a row, WordPiece on endless words and endless Unigram pieces take more than 10 s. The
library does not check the token ids of a post-processor.

Patterns are checked before the library reads the file, because it compiles them while it reads. Everything else is
checked in the tokenizer that it made, which takes 0.1 ms; reading the JSON a second time would take 6. The decoder is
not checked: captions are only encoded.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from mlic_runtime import limits
from mlic_runtime.base.text import error_line
from mlic_runtime.errors import PackageError
from mlic_runtime.package.manifest import TOKENIZER_NAME

_NORMALIZERS = [
    "BertNormalizer",
    "ByteLevel",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Precompiled",
    "Prepend",
    "Replace",
    "Strip",
    "StripAccents",
]
_PRE_TOKENIZERS = [
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Digits",
    "FixedLength",
    "Metaspace",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
]
_POST_PROCESSORS = ["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"]
_MODELS = ["BPE", "Unigram", "WordLevel", "WordPiece"]
_ONCE = ("ByteLevel", "Precompiled", "Prepend")  # each lengthens the text, again with every repetition

# What mlic_train.captions.tokenizer removes: characters that cannot be seen and tell no words apart (controls, soft
# hyphens, byte order marks, variation selectors of emoji). The two joiners stay: words of Persian and of Indic scripts
# differ by them.
INVISIBLE = r"[\p{C}\x{FE0E}\x{FE0F}\x{FFFD}&&[^\s\x{200C}\x{200D}]]"

# Regular expressions in use; each takes time in proportion to the text (a test tries them on long ones).
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT4 = (
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
REGEXES = (
    "[^a-z]+",  # mlic_train.captions.characters
    "[a-z ]",  # mlic_train.captions.characters
    r"\s+",  # CLIP's normalizer
    " {2,}",  # SentencePiece models, as transformers converts them
    rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",  # CLIP
    rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",  # GPT-2
    _GPT4,  # Llama 3's too
    _GPT4.replace("{1,3}", ""),  # Qwen 2
    INVISIBLE,
)
# The key of a regular expression as it is in the file, or with letters of it as \u0052 and so on.
_MAY_BE_REGEX = (b"Regex", b"\\u00")


def load_tokenizer(tokenizer_json: bytes, vocab_size: int) -> Tokenizer:
    """Make a tokenizer from a tokenizer.json that keeps the limits.

    Args:
        tokenizer_json: the content of tokenizer.json.
        vocab_size: all token ids are below it, including those that a post-processor adds.

    Raises:
        PackageError: not a tokenizer, one with a component, a pattern or a size that is not accepted, or with a token
            id that is not below `vocab_size`.
    """
    _check_source(tokenizer_json)
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    except BaseException as error:
        raise library_error(error, "is not a tokenizer") from error
    _check_model(tokenizer.model)
    _check_vocabulary(tokenizer, vocab_size)
    normalizers = _steps("normalizer", tokenizer.normalizer, _NORMALIZERS)
    pre_tokenizers = _steps("pre_tokenizer", tokenizer.pre_tokenizer, _PRE_TOKENIZERS)
    _check_growth(normalizers, [*normalizers, *pre_tokenizers])
    _check_pieces(pre_tokenizers)
    _check_post_processors(_steps("post_processor", tokenizer.post_processor, _POST_PROCESSORS), vocab_size)
    return tokenizer


def library_error(error: BaseException, what: str) -> PackageError:
    """Return what to raise when the `tokenizers` library raised `error`, which is a plain Exception or a panic.

    Args:
        error: the caught error.
        what: the problem with tokenizer.json, for the message.

    Raises:
        BaseException: `error` itself, if it is not the library's, such as a KeyboardInterrupt.
    """
    # PyO3 raises a Rust panic as an exception that derives from BaseException and cannot be imported by name.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return PackageError(f"{TOKENIZER_NAME} {what}: {error_line(error)}")


def _check_source(tokenizer_json: bytes) -> None:
    """Check the size of the file, and every pattern anywhere in it, before the library reads it."""
    size = len(tokenizer_json)
    _expect_at_most(limits.MAX_OTHER_FILE_BYTES, size, f"has {size} bytes")
    if not any(text in tokenizer_json for text in _MAY_BE_REGEX):
        return

    def check(pairs: list[tuple[str, Any]]) -> None:
        for key, value in pairs:  # not as a dict: the library may take either of two values of a key
            if key == "Regex" and isinstance(value, str):
                _check_regex(value)

    try:
        json.loads(tokenizer_json, object_pairs_hook=check)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{TOKENIZER_NAME} is not a tokenizer: {error}") from None


def _check_regex(pattern: str) -> None:
    if pattern not in REGEXES:
        _refuse(f"has the regular expression {_short(pattern)}, which is not one of the {len(REGEXES)} known")


def _check_model(model: Any) -> None:
    kind = type(model).__name__
    if kind not in _MODELS:
        _refuse(f"has the model {kind}; accepted: {', '.join(_MODELS)}")
    if getattr(model, "dropout", None):
        _refuse(f"has a BPE dropout of {model.dropout}, which would make predictions random")
    word = getattr(model, "max_input_chars_per_word", 0)
    _expect_at_most(limits.MAX_WORD_CHARACTERS, word, f"has max_input_chars_per_word {word}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        affix = len(getattr(model, name, None) or "")
        _expect_at_most(limits.MAX_AFFIX_CHARACTERS, affix, f"has a {name} of {affix} characters")


def _check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    _check_id(max(vocabulary.values(), default=-1), vocab_size)
    longest = max(map(len, vocabulary), default=0)
    _expect_at_most(limits.MAX_TOKEN_CHARACTERS, longest, f"has a token of {longest} characters")


def _check_id(largest: int, vocab_size: int) -> None:
    if largest >= vocab_size:
        raise PackageError(f"{TOKENIZER_NAME} has token ids up to {largest}, but text.vocab_size is {vocab_size}")


def _steps(role: str, component: Any, accepted: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the steps of a component as the library would write them to JSON, without the Sequences around them."""
    if component is None:
        return []
    steps: list[Mapping[str, Any]] = []
    unread = [json.loads(component.__getstate__())]
    while unread:
        state = unread.pop()
        if state["type"] == "Sequence":
            unread += next(value for value in state.values() if isinstance(value, list))
            continue
        if state["type"] not in accepted:
            _refuse(f"has the {role} {state['type']!r}; accepted: {', '.join(accepted)}")
        if "Regex" in state.get("pattern", ()):  # again, in case the first check can be evaded
            _check_regex(state["pattern"]["Regex"])
        steps.append(state)
    _expect_at_most(limits.MAX_TOKENIZER_STEPS, len(steps), f"has {len(steps)} steps in its {role}")
    return steps


def _check_growth(normalizers: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
    kinds = [step["type"] for step in steps]
    repeated = sorted(kind for kind in _ONCE if kinds.count(kind) > 1)
    if repeated:
        _refuse(f"has {repeated[0]!r} more than once, which lengthens the text each time")
    growth = 1.0
    for step in normalizers:
        if step["type"] == "Replace":
            growth *= max(1.0, len(step["content"].encode()) / _shortest_match(step["pattern"]))
        elif step["type"] == "Prepend":
            prepended = len(step["prepend"])
            _expect_at_most(limits.MAX_PREPENDED_CHARACTERS, prepended, f"prepends {prepended} characters")
        elif step["type"] == "Precompiled":
            _check_map(step["precompiled_charsmap"])
    problem = f"may make a text {growth:g} times as long by its replacements"
    _expect_at_most(limits.MAX_REPLACEMENT_GROWTH, growth, problem)


def _shortest_match(pattern: Mapping[str, str]) -> int:
    """Return the length in bytes; every accepted regular expression matches at least one character."""
    if pattern.get("String") == "":
        _refuse("replaces the empty text")
    return len(pattern["String"].encode()) if "String" in pattern else 1


def _check_map(encoded: str) -> None:
    """Check SentencePiece's map of characters: size of an index in 4 bytes, the index, and texts that end in NUL."""
    data = base64.b64decode(encoded)
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    if re.search(rb"[^\0]{%d}" % (limits.MAX_MAPPED_BYTES + 1), texts):
        _refuse(f"has a Precompiled map that turns a character into more than {limits.MAX_MAPPED_BYTES} bytes")


def _check_pieces(pre_tokenizers: Sequence[Mapping[str, Any]]) -> None:
    for step in pre_tokenizers:
        if step["type"] == "FixedLength" and step["length"] < 1:
            _refuse(f"has a FixedLength of {step['length']}, expected 1 or more")


def _check_post_processors(processors: Sequence[Mapping[str, Any]], vocab_size: int) -> None:
    for step in processors:
        if step["type"] == "TemplateProcessing":
            # The caption is cut before it is put into the template: twice in there, it would be too long again.
            captions = [item["Sequence"]["id"] for item in step["single"] if "Sequence" in item]
            if captions != ["A"]:
                _refuse(f"has a template with the sequences {captions[:4]}, expected the caption once, as A")
            named = {item["SpecialToken"]["id"] for item in step["single"] if "SpecialToken" in item}
            unknown = sorted(named - step["special_tokens"].keys())
            if unknown:  # the library would panic at the first caption
                _refuse(f"has a template with {_short(unknown[0])}, which is not among its special tokens")
            for token in step["special_tokens"].values():
                _check_id(max(token["ids"], default=-1), vocab_size)
        elif step["type"] in ("BertProcessing", "RobertaProcessing"):
            _check_id(max(step["sep"][1], step["cls"][1]), vocab_size)


def _expect_at_most(limit: int, found: float, problem: str) -> None:
    if found > limit:
        _refuse(f"{problem}, expected at most {limit}")


def _refuse(problem: str) -> None:
    raise PackageError(f"{TOKENIZER_NAME} {problem}; such a tokenizer is not run: export the package with another")


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."
