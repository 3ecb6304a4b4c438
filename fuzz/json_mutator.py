"""Mutations of JSON that are still JSON: a fuzzer that only flips bytes hardly gets past the parser."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

# Values that break readers: edges of types and ranges, paths, patterns, and names of the formats that are fuzzed.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 16, 255, 2**31, 2**32 - 1, 2**53, 2**63, 10**30, 0.5, -0.5, 1e308, 5e-324,
    "", "a", " ", "\0", "\ud800", "../x", "/x", "x" * 300, "[^a-z]+", "(a+)+$", "String", "Regex", "Sequence",
    "fp32", "cpu", "auto", [], {}, [[]], [0], {"": 0}, {"String": "a"}, {"Regex": "a*"},
    {"type": "Lowercase"}, {"type": "NFKD"}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}, {"type": "FixedLength", "length": 0},
    {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False},
    {"type": "Prepend", "prepend": "red"}, {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAA=="},
    {"type": "Sequence", "normalizers": []}, {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]},
    {"type": "BertProcessing", "sep": ["red", 2], "cls": ["red", 99]},
)  # fmt: skip

_Place = tuple[Any, Any]  # a list or dict, and one of its indices or keys


def mutate(data: bytes, seed: int) -> bytes | None:
    """Change one to three places of a JSON text; return None if it is not JSON."""
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return None
    randomness = random.Random(seed)
    for _ in range(randomness.randint(1, 3)):
        places = _places(root)
        container, key = randomness.choice(places)
        randomness.choice(_CHANGES)(container, key, randomness, places)
        if not root:
            return b""
    try:
        return json.dumps(root[0]).encode()
    except (ValueError, RecursionError):
        return None


def _places(root: list[Any]) -> list[_Place]:
    places: list[_Place] = []
    waiting: list[Any] = [root]
    while waiting and len(places) < 5_000:
        container = waiting.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            places.append((container, key))
            if isinstance(container[key], (dict, list)):
                waiting.append(container[key])
    return places


def _set(container: Any, key: Any, randomness: random.Random, places: list[_Place]) -> None:
    container[key] = copy.deepcopy(randomness.choice(VALUES))


def _remove(container: Any, key: Any, randomness: random.Random, places: list[_Place]) -> None:
    del container[key]


def _copy_from_elsewhere(container: Any, key: Any, randomness: random.Random, places: list[_Place]) -> None:
    other, name = randomness.choice(places)
    container[key] = copy.deepcopy(other[name])


def _repeat(container: Any, key: Any, randomness: random.Random, places: list[_Place]) -> None:
    times = randomness.choice((2, 3, 20))
    if isinstance(container, list):
        container[key:key] = [copy.deepcopy(container[key]) for _ in range(times)]
    elif isinstance(container[key], str):
        container[key] = container[key] * times
    else:
        container[str(key) + "x"] = copy.deepcopy(container[key])


def _rename(container: Any, key: Any, randomness: random.Random, places: list[_Place]) -> None:
    if isinstance(container, dict):
        container[str(randomness.choice(VALUES))[:50]] = container.pop(key)


def _nudge(container: Any, key: Any, randomness: random.Random, places: list[_Place]) -> None:
    if isinstance(container[key], (int, float)):
        container[key] += randomness.choice((-1, 1, 0.1, 100))


_CHANGES: tuple[Callable[[Any, Any, random.Random, list[_Place]], None], ...] = (
    _set,
    _remove,
    _copy_from_elsewhere,
    _repeat,
    _rename,
    _nudge,
)
