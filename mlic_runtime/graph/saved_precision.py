"""The precisions that `mlic-bench --choose` found best on this machine: one small file for each user."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from mlic_runtime.base.files import open_regular, os_error_reason, replace_file
from mlic_runtime.base.machine import processor_name
from mlic_runtime.base.typed_json import TypedJsonError, build, expect, parse_object
from mlic_runtime.base.user_folders import config_folder
from mlic_runtime.errors import ChoiceError
from mlic_runtime.limits import MAX_SAVED_PRECISIONS_BYTES
from mlic_runtime.package.manifest import PRECISIONS, Manifest
from mlic_runtime.providers.names import PROVIDERS

SCHEMA_VERSION = 1

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of one model package that is best on one provider of one machine.

    Attributes:
        model: "name@version", for people; the package is known by its `graphs`.
        graphs: see `graphs_digest`.
        provider: short name of the execution provider.
        processor: name of the machine's processor.
        precision: the one that was chosen.
        p50_ms: {precision: median time of a run in milliseconds}, of every precision that was measured.
    """

    model: str
    graphs: str
    provider: str
    processor: str
    precision: str
    p50_ms: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str, str]:
        """The package, provider and processor, which have one choice."""
        return self.graphs, self.provider, self.processor


class SaveResult(NamedTuple):
    """Where a choice was written, and what was wrong with the file that it replaced, or None."""

    path: Path
    broken: str | None


class _BrokenError(Exception):
    """A problem of the file; the message continues a sentence that begins with its name."""


@dataclass(frozen=True)
class _Content:
    """The whole file."""

    schema_version: int
    choices: tuple[PrecisionChoice, ...]


def graphs_digest(manifest: Manifest) -> str:
    """Return the SHA-256 of the names and digests of a package's graphs: other graphs take another time."""
    lines = sorted(f"{name} {spec.sha256}\n" for name, spec in manifest.files.items() if spec.precision is not None)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_saved_precision(manifest: Manifest, provider: str) -> str | None:
    """Return the precision that was chosen for a package, on this provider and this machine; None if none was.

    Raises:
        ChoiceError: the file is there and is not what `save_precision` writes.
    """
    path = saved_precisions_path()
    try:
        choices = _read(path)
        if not choices:
            return None
        key = (graphs_digest(manifest), provider, processor_name())
        precision = next((choice.precision for choice in choices if choice.key == key), None)
        if precision not in (None, *manifest.precisions):
            raise _BrokenError(f"has the precision {precision} for {manifest.title}, which has no such graph")
    except _BrokenError as error:
        raise ChoiceError(f"{str(path)!r} {error}: remove it, or run mlic-bench --choose again") from None
    return precision


def save_precision(choice: PrecisionChoice) -> SaveResult:
    """Add a choice to the file; it takes the place of one with the same key, or of a whole file that is broken.

    Raises:
        ChoiceError: the file cannot be written.
    """
    path = saved_precisions_path()
    if not path.is_absolute():
        raise ChoiceError(f"cannot write {str(path)!r}: no home folder is known; set XDG_CONFIG_HOME to a folder")
    kept: list[PrecisionChoice] = []
    broken = None
    try:
        kept = [other for other in _read(path) if other.key != choice.key]
    except _BrokenError as error:
        broken = str(error)
    content = asdict(_Content(SCHEMA_VERSION, (*kept, choice)))
    try:
        replace_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise ChoiceError(f"cannot write {str(path)!r}: {os_error_reason(error)}") from error
    return SaveResult(path, broken)


def saved_precisions_path() -> Path:
    """Return where the file lies, whether it is there or not; relative if no home folder is known."""
    return config_folder() / "precision.json"


def _read(path: Path) -> tuple[PrecisionChoice, ...]:
    # A file at a relative path is not ours: `save_precision` does not write one.
    if not path.is_absolute() or not _exists(path):
        return ()
    try:
        with open_regular(path) as stream:
            text = stream.read(MAX_SAVED_PRECISIONS_BYTES + 1)
    except OSError as error:
        raise _BrokenError(f"cannot be read: {os_error_reason(error)}") from error
    if len(text) > MAX_SAVED_PRECISIONS_BYTES:
        raise _BrokenError(f"is larger than {MAX_SAVED_PRECISIONS_BYTES} bytes")
    try:
        data = parse_object(text)
    except TypedJsonError as error:
        raise _BrokenError(str(error)) from None
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise _BrokenError(f"has schema_version {version!r}, this mlic-runtime reads {SCHEMA_VERSION}")
    try:
        content: _Content = build(_Content, data, "file")
        _check(content.choices)
    except TypedJsonError as error:
        raise _BrokenError(f"is not what mlic-bench writes: {error}") from None
    return content.choices


def _exists(path: Path) -> bool:
    """Return whether there is anything; it cannot be in what is no folder, or one that this user may not enter."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:
        raise _BrokenError(f"cannot be read: {os_error_reason(error)}") from error
    return True


def _check(choices: tuple[PrecisionChoice, ...]) -> None:
    """Check the rules that types cannot say."""
    for index, choice in enumerate(choices):
        where = f"file.choices[{index}]"
        expect(bool(_DIGEST.match(choice.graphs)), f"{where}.graphs", "a SHA-256 digest", choice.graphs)
        expect(choice.provider in PROVIDERS, f"{where}.provider", f"one of {', '.join(PROVIDERS)}", choice.provider)
        for precision, p50_ms in choice.p50_ms.items():
            expect(precision in PRECISIONS, f"a precision in {where}.p50_ms", f"one of {PRECISIONS}", precision)
            expect(p50_ms > 0, f"{where}.p50_ms.{precision}", "more than 0", p50_ms)
        measured = ", ".join(choice.p50_ms)
        expect(choice.precision in choice.p50_ms, f"{where}.precision", f"measured ({measured})", choice.precision)
    keys = [choice.key for choice in choices]
    expect(len(set(keys)) == len(keys), "file.choices", "one for each package, provider and processor", len(keys))
