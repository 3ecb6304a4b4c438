"""The JSON of a sample in a shard: an object with the keys image, caption or captions, labels, and unknown."""

import json
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.problems import Problem

from .format import Row, clean_row

_KEYS = ("image", "caption", "captions", "labels", "unknown")


def parse_row(file: Path, number: int, line: str) -> Row | Problem:
    """Return the row of one JSON object.

    Raises:
        ValueError: the line is something else.
        RecursionError: it is nested too deeply.
    """
    try:
        entry = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"found {line.strip()[:60]!r}, which is not JSON ({error}); expected one object a line"
        ) from None
    if not isinstance(entry, dict):
        raise ValueError(f'found {line.strip()[:60]!r}; expected an object such as {{"image": "1.jpg"}}')
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"found the unknown key {', '.join(map(repr, unknown))}; expected {', '.join(_KEYS)}")
    if "caption" in entry and "captions" in entry:
        raise ValueError("found both caption and captions; expected one of them")
    captions = _captions(entry.get("captions", entry.get("caption")))
    labels, unsure = _labels(entry.get("labels")), _labels(entry.get("unknown"), "unknown") or ()
    if unsure and labels is None:
        raise ValueError("found unknown labels without labels; expected both ([]: none), or neither: not labelled")
    return clean_row(file, number, _image(entry.get("image")), captions, labels, unsure)


def _image(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"found image {value!r}; expected a file name or null")
    return value or ""


def _captions(value: object) -> list[str]:
    given: list[object] = [] if value is None else value if isinstance(value, list) else [value]
    captions = [caption for caption in given if isinstance(caption, str)]
    if len(captions) != len(given):
        raise ValueError(f"found captions {value!r}; expected a text or a list of texts")
    return captions


def _labels(value: object, key: str = "labels") -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"found {key} {value!r}; expected a list of names or ids")
    # pandas writes whole numbers as 10.0 where a column has blanks
    value = [int(label) if isinstance(label, float) and label.is_integer() else label for label in value]
    for label in value:
        if isinstance(label, bool) or not isinstance(label, (str, int)):
            raise ValueError(f"found the label {label!r}; expected a name or an id")
    return tuple(" ".join(str(label).split()) for label in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise ValueError("found a key twice in one object; expected each once")
    return entry
