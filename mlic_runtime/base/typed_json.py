"""JSON text into frozen dataclasses: every key known, every value of the type in its annotation."""

import dataclasses
import functools
import json
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MAY_BE_MISSING = {"may_be_missing": True}  # metadata of a field whose key older files do not have

_SHOWN_CHARACTERS = 60  # characters of a value in a message
# Not `repr`, which would show a huge value in full, and raise a RecursionError for one that is nested too deep.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _SHOWN_CHARACTERS


class TypedJsonError(ValueError):
    """A text that is not what its dataclass says. The reader of a file turns it into an `MlicError` that names it."""


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object strictly: no key twice, no NaN, no Infinity.

    Raises:
        TypedJsonError: it is not valid JSON, or breaks one of these rules.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TypedJsonError(f"is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise TypedJsonError(f"must hold a JSON object, found {type(data).__name__}")
    return data


def build(kind: Any, value: Any, where: str) -> Any:
    """Make a `kind` from parsed JSON.

    Args:
        kind: a dataclass, tuple[X, ...], tuple[X, Y], Mapping[str, X], Path, Any, a union of one of these with None,
            a union of scalars, or a scalar type.
        value: parsed JSON.
        where: its name in messages, such as "manifest.labels".

    Raises:
        TypedJsonError: an unknown or missing key, or a wrong type; the message begins with `where`.
    """
    if kind is Any:
        return value
    if kind is Path:
        expect(isinstance(value, str), where, "a path", value)
        return Path(value)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        expect(isinstance(value, list), where, "a list", value)
        kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        expect(len(value) == len(kinds), where, f"a list of {len(kinds)}", value)
        return tuple(build(k, v, f"{where}[{index}]") for index, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        expect(isinstance(value, dict), where, "an object", value)
        return {k: build(arguments[1], v, f"{where}.{key_name(k)}") for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        scalars = tuple(a for a in arguments if a is not type(None))
        if len(scalars) == 1:
            return build(scalars[0], value, where)
        expect(_is_scalar(value, scalars), where, " or ".join(a.__name__ for a in scalars), value)
        return value
    expect(_is_scalar(value, (kind,)), where, kind.__name__, value)
    return float(value) if kind is float else value


def expect(condition: bool, where: str, expected: str, found: object) -> None:
    """Refuse what breaks a rule.

    Raises:
        TypedJsonError: `condition` is false.
    """
    if not condition:
        raise TypedJsonError(must_be(where, expected, found))


def must_be(where: str, expected: str, found: object) -> str:
    """Return the message for a value that breaks a rule; the value is cut short."""
    return f"{where} must be {expected}, found {shown(found)}"


def shown(found: object) -> str:
    """Return a value as a message shows it: in quotes if it is a text, on one line, and cut short."""
    text = _SHORT.repr(found)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def key_name(name: str) -> str:
    """Return a key as a message shows it: unchanged, unless it would break the line or fill it."""
    return name if name.isprintable() and len(name) <= _SHOWN_CHARACTERS else shown(name)


def repeated(values: Iterable[str]) -> str | None:
    """Return the first value that occurs twice, or None."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    expect(isinstance(value, dict), where, "an object", value)
    hints = _hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise TypedJsonError(f"unknown key {where}.{key_name(unknown[0])}; known: {', '.join(fields)}")
    missing = sorted(name for name in fields.keys() - value.keys() if fields[name].metadata != MAY_BE_MISSING)
    if missing:
        raise TypedJsonError(f"{where}.{missing[0]} is missing")
    return kind(**{name: build(hints[name], value[name], f"{where}.{name}") for name in fields if name in value})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    # `get_type_hints` takes 0.1 ms, and a manifest has 50 objects of 8 kinds.
    return typing.get_type_hints(kind)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"duplicate key {shown(repeated(name for name, _ in pairs))}")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _is_scalar(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):  # beyond 2**53, readers of JSON differ about which number it is
        return (int in kinds or float in kinds) and abs(value) < 2**53
    if isinstance(value, float):
        return float in kinds and math.isfinite(value)
    return isinstance(value, kinds)
