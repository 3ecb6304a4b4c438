"""Finding and reading a model package: a folder with manifest.json and the files that it lists."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import IntegrityError, ManifestError, ModelNotFoundError
from .files import open_regular
from .graph_safety import check_graph
from .manifest import MANIFEST_NAME, Manifest, parse_manifest

DEFAULT_MODEL = "hybrid"
MODEL_VARIABLE = "MLIC_MODEL"

_MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class ModelPackage:
    """A model package on disk; what is read from it has been verified against its manifest."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """The content of a listed file.

        Raises:
            IntegrityError: the file is not listed, missing, not a regular file (a symbolic link is not), or differs
                from its recorded size or sha256.
        """
        spec = self.manifest.files.get(name)
        if spec is None:
            listed = ", ".join(self.manifest.files)
            raise IntegrityError(f"model package {self.path} lists no file {name!r}; it lists: {listed}")
        try:
            with open_regular(self.path / name, follow_symlinks=False) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != spec.bytes:
                    raise IntegrityError(f"{self.path / name} has {size} bytes, expected {spec.bytes}")
                data = stream.read(spec.bytes + 1)
        except OSError as error:
            raise IntegrityError(f"cannot read {self.path / name}: {_reason(error)}") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != spec.sha256:
            raise IntegrityError(f"{self.path / name} has sha256 {digest}, expected {spec.sha256}")
        return data

    def read_graph(self, precision: str) -> bytes:
        """The ONNX graph of that precision, verified and without external data or custom operators.

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
        known = {MANIFEST_NAME, *self.manifest.files}
        additional = sorted(entry.name for entry in self.path.iterdir() if entry.name not in known)
        if additional:
            raise IntegrityError(
                f"{self.path} holds {additional[0]!r}, which {MANIFEST_NAME} does not list: remove it or export again"
            )
        for name, spec in self.manifest.files.items():
            if spec.precision is None:
                self.read(name)
            else:
                self.read_graph(spec.precision)


def load_package(path_or_name: str | Path | None = None) -> ModelPackage:
    """Find a model package and read its manifest; its files are read, and verified, when they are used.

    Args:
        path_or_name: see `find_package`.

    Raises:
        ModelNotFoundError: no such folder or name.
        ManifestError: manifest.json is missing, not a regular file, too large or malformed.
    """
    path = find_package(path_or_name)
    try:
        with open_regular(path / MANIFEST_NAME, follow_symlinks=False) as stream:
            text = stream.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {path / MANIFEST_NAME}: {_reason(error)}") from error
    if len(text) > _MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path / MANIFEST_NAME} is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = parse_manifest(text)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None
    return ModelPackage(path, manifest)


def find_package(path_or_name: str | Path | None = None) -> Path:
    """The folder of a model package.

    Args:
        path_or_name: a `Path`, a text with a path separator, or a text that names an existing folder is a folder;
            any other text is the name of a bundled model. None means `$MLIC_MODEL`, by the same rules, and if that
            is not set the bundled model DEFAULT_MODEL.

    Raises:
        ModelNotFoundError: it does not exist; the message lists the bundled models.
    """
    origin = ""
    if path_or_name is None and os.environ.get(MODEL_VARIABLE):
        path_or_name = os.environ[MODEL_VARIABLE]
        origin = f" (from ${MODEL_VARIABLE})"
    bundled = bundled_models()
    if path_or_name is None:
        if DEFAULT_MODEL in bundled:
            return bundled[DEFAULT_MODEL]
        raise ModelNotFoundError(
            f"this installation bundles no model {DEFAULT_MODEL!r}: give the folder of a model package, "
            f"by argument or in ${MODEL_VARIABLE}; {_available(bundled)}"
        )
    folder = Path(path_or_name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelNotFoundError(f"{str(path_or_name)!r}{origin} is not a folder; a model package is one")
    if not isinstance(path_or_name, str) or _has_separator(path_or_name):
        raise ModelNotFoundError(f"there is no folder {str(path_or_name)!r}{origin}; {_available(bundled)}")
    if path_or_name in bundled:
        return bundled[path_or_name]
    raise ModelNotFoundError(f"there is no folder or model named {path_or_name!r}{origin}; {_available(bundled)}")


def bundled_models() -> dict[str, Path]:
    """The model packages that came with this installation: {name: folder}, sorted by name.

    They lie in `models/` inside the installed package; a checkout has them in `exported/` beside it.
    """
    folders = [_HERE / "models"]
    if (_HERE / "pyproject.toml").is_file():  # only a checkout; next to an installed package, exported/ is a stranger
        folders.append(_HERE.parent / "exported")
    found: dict[str, Path] = {}
    for folder in folders:
        for manifest in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return dict(sorted(found.items()))


def _has_separator(text: str) -> bool:
    return os.sep in text or (os.altsep is not None and os.altsep in text)


def _available(bundled: dict[str, Path]) -> str:
    return f"bundled models: {', '.join(bundled) or 'none'}"


def _reason(error: OSError) -> str:
    return "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
