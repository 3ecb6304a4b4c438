"""Hostile captions. A picture is given with each, so that "no caption" is an answer."""

from .cases import Caption

_MEGABYTE = 1_000_000


class _Text(str):
    """A text whose own methods must not be trusted to be those of `str`."""

    __slots__ = ()


def captions() -> list[Caption]:
    """All of them."""
    answers: dict[str, object] = {
        "none": None,
        "empty": "",
        "blanks": " \t\r\n\v\f\x1c\x85\xa0\u2028\u3000",
        "no-width": "\u200b\u200c\u200d\u2060\ufeff",
        "nul": "\0",
        "nul-between": "red\0green",
        "controls": "".join(map(chr, range(32))) + "".join(map(chr, range(127, 160))),
        "terminal-codes": "\x1b[2J\x1b]0;title\a red",
        "bell": "\a" * 1000,
        "line-breaks": "red\r\n\u2028\u2029green",
        "right-to-left": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
        "direction-changed": "\u202egniht rehtona\u202c \u2066x\u2069" * 50,
        "emoji": "\U0001f600\U0001f1e9\U0001f1ea",
        "emoji-joined": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 100,
        "combining-marks": "a" + "\u0301" * 10_000,
        "combining-alone": "\u0301",
        "every-letter-marked": ("e" + "\u0300\u0316\u0323" * 20) * 200,
        "ligature-that-grows": "\ufdfa" * 5_000,
        "dotted-capital-i": "\u0130" * 5_000,
        "hangul-parts": "\u1100\u1161\u11a8" * 3_000,
        "surrogate-high": "red \ud800 green",
        "surrogate-low": "\udfff",
        "surrogates-swapped": "\udc00\ud800" * 500,
        "surrogates-of-a-file-name": "caf\udce9",
        "surrogates-paired": "\ud83d\ude00",
        "no-characters": "\ufffe\uffff\U0010ffff\ufdd0",
        "private-use": "\ue000\U000f0000",
        "tags": "\U000e0001" + "".join(chr(0xE0000 + ord(letter)) for letter in "red"),
        "chinese": "\u72d7\u5728\u6d77\u6ee9" * 200,
        "megabyte-of-words": "red " * (_MEGABYTE // 4),
        "megabyte-of-one-word": "x" * _MEGABYTE,
        "megabyte-of-blanks": " " * _MEGABYTE,
        "megabyte-of-nul": "\0" * _MEGABYTE,
        "megabyte-of-emoji": "\U0001f600" * (_MEGABYTE // 4),
        "megabyte-of-marks": "\u0301" * (_MEGABYTE // 2),
        "megabyte-of-surrogates": "\ud800" * _MEGABYTE,
        "megabyte-of-punctuation": "!?" * (_MEGABYTE // 2),
        "20000-and-one": "x" * 20_001,
        "pair-over-the-cut": "x" * 19_999 + "\ud83d\ude00",
        "special-tokens": "[PAD] [UNK] [CLS] [SEP] [MASK] <s> </s> <|endoftext|>",
        "template": "{0} %s ${HOME} $(id) `id` {{7*7}}",
        "markup": "<script>alert(1)</script>",
        "query": "'; DROP TABLE captions; --",
        "path": "../../etc/passwd",
        "number": "NaN 1e309 -0",
        "subclass": _Text("red"),
    }
    errors: dict[str, object] = {
        "bytes": b"red",
        "bytearray": bytearray(b"red"),
        "int": 7,
        "bool": True,
        "float": 0.5,
        "not-a-number": float("nan"),
        "list": ["red"],
        "tuple": ("red",),
        "dict": {"caption": "red"},
        "set": {"red"},
        "object": object(),
        "type": str,
        "function": str.upper,
    }
    return [
        *(Caption(f"caption-{name}", value, "answer") for name, value in answers.items()),
        *(Caption(f"caption-{name}", value, "error") for name, value in errors.items()),
    ]
