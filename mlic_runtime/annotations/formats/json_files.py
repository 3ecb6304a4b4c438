"""JSON files of annotations: loaded once, and told apart by what is in them."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from mlic_runtime.annotations.source.files import read_bytes
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_ANNOTATIONS_BYTES

from .format import Format

_KEPT_BYTES = 64 * 1024 * 1024  # of the files whose content is kept, all together
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

_Version: TypeAlias = tuple[Path, int, int]  # path, size in bytes, time of change in nanoseconds
_kept: dict[_Version, Any] = {}


class JsonFormat(Format):
    """A format whose sources are JSON files, recognized by their content.

    Attributes:
        shape: what a file of this format has at its top, for messages.
    """

    shape: ClassVar[str]

    @classmethod
    @abstractmethod
    def fits(cls, content: Any) -> bool:
        """Return whether the content of a JSON file is in this format, by its top level and its first entries."""

    @override
    def recognizes(self, source: Path) -> bool:
        if source.suffix.lower() != ".json":
            return False
        if not source.is_file():
            return super().recognizes(source)
        try:
            return self.fits(load_json(source))
        except DataError:
            return False

    @override
    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        # A file that is named like a split but is no JSON is an error, not a split that is missing.
        for pattern in self.split_files:
            for file in folder.glob(pattern.format(split=split)):
                if file.suffix.lower() == ".json" and file.is_file() and not self.recognizes(file):
                    load_json(file)
        return super().find_split(folder, split)


def load_json(file: Path) -> Any:
    """Return the content of a JSON file; that of the last small files is kept, until they change.

    It is UTF-8, or UTF-16 with a byte order mark. Bytes that are not UTF-8 become lone surrogates, see `not_utf8`.
    The content is shared: do not change it.

    Raises:
        DataError: it cannot be read, is too large, or is not JSON.
    """
    version = _version(file)
    if version is not None and version in _kept:
        _kept[version] = content = _kept.pop(version)  # the newest stands last
        return content
    if version is not None and version[1] > MAX_ANNOTATIONS_BYTES:
        raise DataError(
            f"{file}: found {version[1]} bytes; expected at most {MAX_ANNOTATIONS_BYTES}: divide it into several files"
        )
    data = read_bytes(file)
    try:
        text = data.decode("utf-16") if data.startswith(_UTF16) else data.decode("utf-8-sig", "surrogateescape")
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON in UTF-8 ({error}); expected a JSON file of annotations") from None
    if version is not None:
        _kept[version] = content
        while _kept and sum(size for _, size, _ in _kept) > _KEPT_BYTES:
            del _kept[next(iter(_kept))]
    return content


def load_object(file: Path, expected: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        file: the file.
        expected: what is expected there, for the error.

    Raises:
        DataError: see `load_json`, or it is something else.
    """
    content = load_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: found a JSON {type(content).__name__}; expected {expected}")
    return content


def describe_unknown(file: Path, formats: Sequence[Format]) -> str:
    """Return the error for a JSON file that no format recognizes: what is in it, and what each format expects.

    Raises:
        DataError: it is not JSON.
    """
    content = load_json(file)
    expected = "; ".join(f"{each.title}: {each.shape}" for each in formats if isinstance(each, JsonFormat))
    return f"{file}: found {_outline(content)}, which no format has; expected one of {expected}"


def entries(file: Path, content: dict[str, Any], key: str, expected: str) -> list[dict[str, Any]]:
    """Return the list of objects under a key.

    Args:
        file: the file.
        content: the object in it.
        key: the key.
        expected: what is expected there, for the error.

    Raises:
        DataError: there is something else.
    """
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DataError(f"{file}: found no list of objects under {key!r}; expected {expected}")
    return found


def _version(file: Path) -> _Version | None:
    try:
        status = file.stat()
    except OSError:
        return None  # an address, or a file that reading will complain about
    return file, status.st_size, status.st_mtime_ns


def _outline(content: Any) -> str:
    if isinstance(content, dict):
        return f"a JSON object with the keys {_keys(content)}" if content else "an empty JSON object"
    if isinstance(content, list):
        if not content:
            return "an empty JSON list"
        first = content[0]
        keys = f"objects with the keys {_keys(first)}" if isinstance(first, dict) else type(first).__name__
        return f"a JSON list of {keys}"
    return f"a JSON {type(content).__name__}"


def _keys(content: dict[str, Any]) -> str:
    names = [repr(key[:40]) for key in content]
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")
