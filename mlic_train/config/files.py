"""Configuration in files: JSON of a run, TOML of a user."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlic_runtime.base.option import nearest
from mlic_runtime.base.typed_json import TypedJsonError, parse_object
from mlic_train.errors import ConfigError

T = TypeVar("T")


def from_dict(kind: type[T], data: Mapping[str, Any], where: str | Path) -> T:
    """Build a configuration dataclass from parsed JSON.

    Raises:
        ConfigError: an unknown key, or a value that the dataclass refuses; the message names `where` and the key.
    """
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type] # kind is always a dataclass
    for key in data:
        if key not in names:
            raise ConfigError(f"{where}: unknown key {key!r} for {kind.__name__}; {nearest(key, names)}")
    try:
        return kind(**data)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: the file cannot be read or does not hold a JSON object.
    """
    try:
        return parse_object(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except TypedJsonError as error:
        raise ConfigError(f"{path} {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    return content


def to_toml(values: Mapping[str, Any]) -> str:
    """Write a flat mapping of texts, numbers, booleans, paths and lists of these as TOML."""
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    # A JSON string is a basic string of TOML, but for the character DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
