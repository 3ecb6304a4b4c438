"""What `mlic-bench --choose` found best on this machine: one small file for each user."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import click

from mlic_runtime.base.files import open_regular, reason
from mlic_runtime.base.machine import processor_name
from mlic_runtime.base.typed_json import TypedJsonError, build, expect, parse_object
from mlic_runtime.errors import ChoiceError
from mlic_runtime.limits import MAX_SAVED_PRECISIONS_BYTES
from mlic_runtime.package.manifest import PRECISIONS, Manifest
from mlic_runtime.providers.names import PROVIDERS

CHOICES_VERSION = 1

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Choice:
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
        """What there is one choice for."""
        return self.graphs, self.provider, self.processor


class Saved(NamedTuple):
    """Where a choice was written, and what was wrong with the file that it replaced, or None."""

    path: Path
    broken: str | None


class _BrokenError(Exception):
    """What is wrong with the file; the message goes on from its name."""


@dataclass(frozen=True)
class _Content:
    """The whole file."""

    schema_version: int
    choices: tuple[Choice, ...]


def graphs_digest(manifest: Manifest) -> str:
    """SHA-256 of the names and digests of a package's graphs: other graphs take another time."""
    lines = sorted(f"{name} {spec.sha256}\n" for name, spec in manifest.files.items() if spec.precision is not None)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_choice(manifest: Manifest, provider: str) -> str | None:
    """The precision that was chosen for a package, on this provider and this machine; None if none was.

    Raises:
        ChoiceError: the file is there and is not what `save_choice` writes.
    """
    path = choices_path()
    try:
        choices = _read(path)
        if not choices:
            return None
        key = (graphs_digest(manifest), provider, processor_name())
        found = next((choice.precision for choice in choices if choice.key == key), None)
        if found not in (None, *manifest.precisions):
            raise _BrokenError(f"has the precision {found} for {manifest.title}, which has no such graph")
    except _BrokenError as error:
        raise ChoiceError(f"{str(path)!r} {error}: remove it, or run mlic-bench --choose again") from None
    return found


def save_choice(choice: Choice) -> Saved:
    """Add a choice to the file; it takes the place of one with the same key, or of a whole file that is broken.

    Raises:
        ChoiceError: the file cannot be written.
    """
    from mlic_runtime.base.files import replace_file  # here, because predictions only read

    path = choices_path()
    if not path.is_absolute():
        raise ChoiceError(f"cannot write {str(path)!r}: no home folder is known; set XDG_CONFIG_HOME to a folder")
    kept: list[Choice] = []
    broken = None
    try:
        kept = [other for other in _read(path) if other.key != choice.key]
    except _BrokenError as error:
        broken = str(error)
    content = asdict(_Content(CHOICES_VERSION, (*kept, choice)))
    try:
        replace_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise ChoiceError(f"cannot write {str(path)!r}: {reason(error)}") from error
    return Saved(path, broken)


def choices_path() -> Path:
    """Where the file lies, there or not."""
    return Path(click.get_app_dir("mlic")) / "precision.json"


def _read(path: Path) -> tuple[Choice, ...]:
    # Without a home folder the path is relative; what lies there is not ours, for `save_choice` refuses to write it.
    if not path.is_absolute() or not _exists(path):
        return ()
    try:
        with open_regular(path) as stream:
            text = stream.read(MAX_SAVED_PRECISIONS_BYTES + 1)
    except OSError as error:
        raise _BrokenError(f"cannot be read: {reason(error)}") from error
    if len(text) > MAX_SAVED_PRECISIONS_BYTES:
        raise _BrokenError(f"is larger than {MAX_SAVED_PRECISIONS_BYTES} bytes")
    try:
        data = parse_object(text)
    except TypedJsonError as error:
        raise _BrokenError(str(error)) from None
    version = data.get("schema_version")
    if version != CHOICES_VERSION or isinstance(version, bool):
        raise _BrokenError(f"has schema_version {version!r}, this mlic-runtime reads {CHOICES_VERSION}")
    try:
        content: _Content = build(_Content, data, "file")
        _check(content.choices)
    except TypedJsonError as error:
        raise _BrokenError(f"is not what mlic-bench writes: {error}") from None
    return content.choices


def _exists(path: Path) -> bool:
    """Whether there is anything; nothing can be in a folder that this user may not enter, or that is none."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:
        raise _BrokenError(f"cannot be read: {reason(error)}") from error
    return True


def _check(choices: tuple[Choice, ...]) -> None:
    """The rules that types cannot say."""
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
