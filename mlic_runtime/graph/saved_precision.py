"""The precisions and providers that `mlic-bench --choose` found best here: one small file for each user."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
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

SCHEMA_VERSION = 2  # 1 had no `providers`

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


@dataclass(frozen=True)
class ProviderChoice:
    """The provider that runs one model package best on one machine, each with its best precision.

    Attributes:
        model: "name@version", for people; the package is known by its `graphs`.
        graphs: see `graphs_digest`.
        processor: name of the machine's processor.
        provider: short name of the one that was chosen.
        p50_ms: {provider: median time of a run in milliseconds}, of every provider that was measured.
    """

    model: str
    graphs: str
    processor: str
    provider: str
    p50_ms: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str]:
        """The package and processor, which have one choice."""
        return self.graphs, self.processor


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
    providers: tuple[ProviderChoice, ...]


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
        choices = _read(path).choices
        if not choices:
            return None
        key = (graphs_digest(manifest), provider, processor_name())
        precision = next((choice.precision for choice in choices if choice.key == key), None)
        if precision not in (None, *manifest.precisions):
            raise _BrokenError(f"has the precision {precision} for {manifest.title}, which has no such graph")
    except _BrokenError as error:
        raise ChoiceError(f"{str(path)!r} {error}: remove it, or run mlic-bench --choose again") from None
    return precision


def find_saved_provider(manifest: Manifest) -> str | None:
    """Return the provider that was chosen for a package on this machine; None if none was.

    Raises:
        ChoiceError: the file is there and is not what `save_choices` writes.
    """
    path = saved_precisions_path()
    try:
        choices = _read(path).providers
    except _BrokenError as error:
        raise ChoiceError(f"{str(path)!r} {error}: remove it, or run mlic-bench --choose again") from None
    if not choices:
        return None
    key = (graphs_digest(manifest), processor_name())
    return next((choice.provider for choice in choices if choice.key == key), None)


def save_precision(choice: PrecisionChoice) -> SaveResult:
    """Add one choice to the file, as `save_choices` does."""
    return save_choices([choice])


def save_choices(choices: Sequence[PrecisionChoice], providers: Sequence[ProviderChoice] = ()) -> SaveResult:
    """Add choices to the file; each takes the place of one with the same key, all of them of a file that is broken.

    Raises:
        ChoiceError: the file cannot be written.
    """
    path = saved_precisions_path()
    if not path.is_absolute():
        raise ChoiceError(f"cannot write {str(path)!r}: no home folder is known; set XDG_CONFIG_HOME to a folder")
    old, broken = _NOTHING, None
    try:
        old = _read(path)
    except _BrokenError as error:
        broken = str(error)
    all_choices = {choice.key: choice for choice in (*old.choices, *choices)}
    all_providers = {choice.key: choice for choice in (*old.providers, *providers)}
    content = asdict(_Content(SCHEMA_VERSION, tuple(all_choices.values()), tuple(all_providers.values())))
    try:
        replace_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise ChoiceError(f"cannot write {str(path)!r}: {os_error_reason(error)}") from error
    return SaveResult(path, broken)


def saved_precisions_path() -> Path:
    """Return where the file lies, whether it is there or not; relative if no home folder is known."""
    return config_folder() / "precision.json"


_NOTHING = _Content(SCHEMA_VERSION, (), ())


def _read(path: Path) -> _Content:
    # A file at a relative path is not ours: `save_precision` does not write one.
    if not path.is_absolute() or not _exists(path):
        return _NOTHING
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
    if version not in (1, SCHEMA_VERSION) or isinstance(version, bool):
        raise _BrokenError(f"has schema_version {version!r}, this mlic-runtime reads 1 and {SCHEMA_VERSION}")
    if version == 1:
        data.setdefault("providers", [])
    try:
        content: _Content = build(_Content, data, "file")
        _check(content.choices)
        _check_providers(content.providers)
    except TypedJsonError as error:
        raise _BrokenError(f"is not what mlic-bench writes: {error}") from None
    return content


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
        for precision in choice.p50_ms:
            expect(precision in PRECISIONS, f"a precision in {where}.p50_ms", f"one of {PRECISIONS}", precision)
        _check_measured(where, "precision", choice.precision, choice.p50_ms)
    keys = [choice.key for choice in choices]
    expect(len(set(keys)) == len(keys), "file.choices", "one for each package, provider and processor", len(keys))


def _check_providers(choices: tuple[ProviderChoice, ...]) -> None:
    for index, choice in enumerate(choices):
        where = f"file.providers[{index}]"
        expect(bool(_DIGEST.match(choice.graphs)), f"{where}.graphs", "a SHA-256 digest", choice.graphs)
        for provider in choice.p50_ms:
            expect(provider in PROVIDERS, f"a provider in {where}.p50_ms", f"one of {', '.join(PROVIDERS)}", provider)
        _check_measured(where, "provider", choice.provider, choice.p50_ms)
    keys = [choice.key for choice in choices]
    expect(len(set(keys)) == len(keys), "file.providers", "one for each package and processor", len(keys))


def _check_measured(where: str, key: str, chosen: str, p50_ms: Mapping[str, float]) -> None:
    """Check that the times are above 0, and that what was chosen is one of what was measured."""
    for name, milliseconds in p50_ms.items():
        expect(milliseconds > 0, f"{where}.p50_ms.{name}", "more than 0", milliseconds)
    expect(chosen in p50_ms, f"{where}.{key}", f"measured ({', '.join(p50_ms)})", chosen)
