"""A model package, found by path or name: manifest.json and the files that it lists, in a folder or `.mlic` file."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.errors import IntegrityError, ManifestError, ModelNotFoundError
from mlic_runtime.limits import MAX_MANIFEST_BYTES

from .archive import ARCHIVE_SUFFIX, Archive
from .graph_safety import check_graph
from .installed import installed_models, require_unique
from .manifest import MANIFEST_NAME, FileSpec, Manifest, parse_manifest
from .storage import Folder, Storage

DEFAULT_MODEL = "hybrid"
MODEL_VARIABLE = "MLIC_MODEL"

_GET_AGAIN = "it was damaged or changed; get the package again"
_RUNTIME = Path(__file__).resolve().parents[1]  # the folder of the package mlic_runtime


@dataclass(frozen=True)
class ModelPackage:
    """A model package on disk. Every file is verified against the manifest when it is read.

    Attributes:
        path: of the folder or `.mlic` file.
        manifest: the content of its manifest.json.
    """

    path: Path
    manifest: Manifest

    @property
    def storage(self) -> Storage:
        """The folder or archive that holds its files."""
        return _storage(self.path)

    def with_graph(self, precision: str) -> "ModelPackage":
        """Return the package with one of its graphs alone, so that no other stands in for it on this processor.

        What was measured of the graphs is left out.

        Raises:
            ManifestError: the package has no graph of that precision.
        """
        graph = self.manifest.graph_name(precision)
        files = {name: spec for name, spec in self.manifest.files.items() if spec.precision is None or name == graph}
        alone = replace(self.manifest, files=files, metrics={}, parity={}, latency={}, recommended={})
        return replace(self, manifest=alone)

    def read_manifest(self) -> bytes:
        """Read manifest.json, byte for byte as it is in the package.

        Raises:
            ManifestError: it is missing, not a regular file or too large.
            PackageError: the `.mlic` file is damaged.
        """
        return _read_manifest(self.path)

    def read(self, name: str) -> bytes:
        """Read a listed file, and verify its size and sha256.

        Raises:
            IntegrityError: the file is not listed, missing, not a regular file (a symbolic link is not), or differs
                from its recorded size or sha256.
            PackageError: the `.mlic` file is damaged.
        """
        spec = self.manifest.files.get(name)
        if spec is None:
            listed = ", ".join(self.manifest.files)
            raise IntegrityError(f"model package {self.path} lists no file {name!r}; it lists: {listed}")
        where = self.path / name
        try:
            size, data = self.storage.read(name, spec.bytes)
        except OSError as error:
            raise IntegrityError(f"cannot read {where}: {os_error_reason(error)}") from error
        if size != spec.bytes:
            raise IntegrityError(f"{where} has {size} bytes, expected {spec.bytes}: {_GET_AGAIN}")
        digest = hashlib.sha256(data).hexdigest()
        if digest != spec.sha256:
            raise IntegrityError(f"{where} has sha256 {digest}, expected {spec.sha256}: {_GET_AGAIN}")
        return data

    def read_graph(self, precision: str) -> bytes:
        """Read the ONNX graph of a precision, and verify it: no external data, no custom operators.

        Raises:
            ManifestError: the package has no graph of that precision.
            PackageError: see `read` and `graph_safety.check_graph`.
        """
        name = self.manifest.graph_name(precision)
        graph = self.read(name)
        check_graph(graph, str(self.path / name))
        return graph

    def verify(self) -> None:
        """Read every file of the package, and refuse files that the manifest does not list.

        Raises:
            PackageError: the first problem, naming the file.
        """
        for _ in self.verified():
            pass

    def verified(self) -> Iterator[tuple[str, FileSpec]]:
        """Do as `verify`, a file at a time: yield the name of each and its manifest entry, which is true of it."""
        self.refuse_additional()
        for name, spec in self.manifest.files.items():
            if spec.precision is None:
                self.read(name)
            else:
                self.read_graph(spec.precision)
            yield name, spec

    def refuse_additional(self) -> None:
        """Refuse files that the manifest does not list.

        Raises:
            IntegrityError: there is one; the message names it.
        """
        known = {MANIFEST_NAME, *self.manifest.files}
        additional = [name for name in self.storage.names() if name not in known]
        if additional:
            raise IntegrityError(
                f"{self.path} holds {additional[0]!r}, which {MANIFEST_NAME} does not list: remove it or export again"
            )


def load_package(path_or_name: str | Path | None = None) -> ModelPackage:
    """Find a model package and read its manifest. Its files are read, and verified, when they are used.

    Args:
        path_or_name: see `find_package`.

    Raises:
        ModelNotFoundError: no such folder, file or name.
        ManifestError: manifest.json is missing, not a regular file, too large or malformed.
        PackageError: a `.mlic` file is damaged, or holds a file that the manifest does not list; two distributions
            offer the name, or the one that does lacks the package.
    """
    path = find_package(path_or_name)
    text = _read_manifest(path)
    try:
        package = ModelPackage(path, parse_manifest(text))
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None
    if package.storage.sealed:
        package.refuse_additional()
    return package


def find_package(path_or_name: str | Path | None = None) -> Path:
    """Find the folder or `.mlic` file of a model package.

    A name is looked up among the installed distributions first, then among the bundled models: a user who installs a
    model under the name of a bundled one wants to use it.

    Args:
        path_or_name: a path, if it is a `Path`, has a path separator, or names an existing folder or file; any other
            text is the name of an installed or bundled model. None means `$MLIC_MODEL`, by these rules, and if that is
            not set the name DEFAULT_MODEL.

    Raises:
        ModelNotFoundError: it does not exist, or is neither a folder nor a `.mlic` file; the message lists the names.
        PackageError: two distributions offer the name, or the one that does lacks the package.
    """
    origin = ""
    if path_or_name is None and os.environ.get(MODEL_VARIABLE):
        path_or_name = os.environ[MODEL_VARIABLE]
        origin = f" (from ${MODEL_VARIABLE})"
    if path_or_name is None:
        package = _named_package(DEFAULT_MODEL)
        if package is None:
            raise ModelNotFoundError(
                f"there is no model {DEFAULT_MODEL!r} in this installation: give a model package, "
                f"by argument or in ${MODEL_VARIABLE}; {_available()}"
            )
        return package
    path = Path(path_or_name)
    if path.is_dir() or (_is_archive(path) and path.exists()):
        return path
    if path.exists():
        raise ModelNotFoundError(
            f"{str(path_or_name)!r}{origin} is not a folder or a {ARCHIVE_SUFFIX} file; a model package is one"
        )
    kinds = f"folder or {ARCHIVE_SUFFIX} file"
    if path_or_name == path.name:  # a text without a path separator
        package = _named_package(path_or_name)
        if package is not None:
            return package
        kinds = f"folder, {ARCHIVE_SUFFIX} file or model named"
    raise ModelNotFoundError(f"there is no {kinds} {str(path_or_name)!r}{origin}; {_available()}")


def bundled_models() -> dict[str, Path]:
    """Return the model packages that came with this installation: {name: folder}, sorted by name.

    They lie in `models/` inside the installed package; a checkout has them in `exported/` beside it.
    """
    folders = [_RUNTIME / "models"]
    # In a checkout only: exported/ beside an installed package would be somebody else's.
    if (_RUNTIME / "pyproject.toml").is_file():
        folders.append(_RUNTIME.parent / "exported")
    models: dict[str, Path] = {}
    for folder in folders:
        for manifest in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
            models.setdefault(manifest.parent.name, manifest.parent)
    return dict(sorted(models.items()))


def _named_package(name: str) -> Path | None:
    installed = installed_models().get(name)
    return bundled_models().get(name) if installed is None else require_unique(installed).folder()


def _read_manifest(path: Path) -> bytes:
    where = path / MANIFEST_NAME
    try:
        size, text = _storage(path).read(MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ManifestError(f"cannot read {where}: {os_error_reason(error)}") from error
    if size > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{where} is larger than {MAX_MANIFEST_BYTES} bytes")
    return text


def _storage(path: Path) -> Storage:
    return Archive(path) if _is_archive(path) and not path.is_dir() else Folder(path)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ARCHIVE_SUFFIX


def _available() -> str:
    return f"available models: {', '.join(sorted({*installed_models(), *bundled_models()})) or 'none'}"
