"""A model package as a web site of static files: the page of `web/`, the package, and the libraries that run it.

Nothing of it comes from another place when the page is open, so it works without a network. The libraries come from
npm's packages, whose version and SHA-512 stand in `LIBRARIES`.
"""

import base64
import dataclasses
import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.base.output_files import atomic_folder, write_bytes
from mlic_runtime.base.page_files import read_page_files
from mlic_runtime.base.text import error_line
from mlic_runtime.base.user_folders import cache_folder
from mlic_runtime.package.manifest import CARD_NAME, MANIFEST_NAME, Manifest, dump_manifest
from mlic_runtime.package.model_package import ModelPackage
from mlic_train.errors import ExportError

MODEL_FOLDER, LIBRARY_FOLDER = "model", "vendor"
PREFERRED = ("int8", "fp32")  # graphs for a page; fp16 is for graphics processors
REGISTRY = "https://registry.npmjs.org"
_SECONDS = 60.0  # without an answer of the registry
_MARK = "predictor.js"  # a folder that has it and a model was written by this export


@dataclass(frozen=True)
class Library:
    """A package of npm: its name and version, the SHA-512 of its archive, and the files that the page needs of it."""

    name: str
    version: str
    sha512: str
    files: tuple[str, ...]

    @property
    def archive(self) -> str:
        """The file name of its archive, as npm gives it in an address."""
        return f"{self.name.rpartition('/')[2]}-{self.version}.tgz"

    @property
    def address(self) -> str:
        """Where the registry has the archive."""
        return f"{os.environ.get('NPM_CONFIG_REGISTRY', REGISTRY).rstrip('/')}/{self.name}/-/{self.archive}"


LIBRARIES = (
    Library(
        "onnxruntime-web",
        "1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    ),
    Library(
        "@huggingface/tokenizers",
        "0.2.0",
        "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
        ("dist/tokenizers.min.mjs",),
    ),
)


def export_site(
    package: ModelPackage,
    output: Path,
    *,
    precision: str | None = None,
    archives: Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a web site that runs a model package in the browser; an older site there is replaced when all is made.

    Args:
        package: a folder or file that `mlic-export` wrote.
        output: the site's folder.
        precision: of the graph; None takes the first of `PREFERRED` that the package has.
        archives: a folder with the archives of LIBRARIES, as `npm pack NAME@VERSION` writes them; None takes them from
            the user's cache, and from npm's registry the first time.
        log: called with lines of progress.

    Returns:
        The manifest of the site's package, which has one graph.

    Raises:
        ExportError: there is something else in the folder, the package has no such graph, or a library cannot be had
            or is not the one that was chosen.
        PackageError: a file of the package was altered.
    """
    _check_replaceable(output)
    manifest = _with_one_graph(package.manifest, precision)
    files = read_page_files()
    files |= {f"{MODEL_FOLDER}/{name}": package.read(name) for name in manifest.files}
    files[f"{MODEL_FOLDER}/{MANIFEST_NAME}"] = dump_manifest(manifest).encode()
    for library in LIBRARIES:
        files |= _library_files(library, _archive(library, archives, log))
    with atomic_folder(output) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    log(f"wrote {len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB")
    return manifest


def _check_replaceable(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise ExportError(f"{output} is a file; give the folder of the site with --output")
    earlier = (output / _MARK).is_file() and (output / MODEL_FOLDER / MANIFEST_NAME).is_file()
    if any(output.iterdir()) and not earlier:
        raise ExportError(f"{output} holds something else than a site of this export; choose another --output")


def _with_one_graph(manifest: Manifest, precision: str | None) -> Manifest:
    """Return the manifest of a package that has this graph only."""
    wanted = precision or next((each for each in PREFERRED if each in manifest.precisions), PREFERRED[-1])
    graph = manifest.graph_name(wanted)
    others = {name for name, spec in manifest.files.items() if spec.precision is not None} - {graph}
    return dataclasses.replace(
        manifest,
        files={name: spec for name, spec in manifest.files.items() if name not in others and name != CARD_NAME},
        metrics={name: value for name, value in manifest.metrics.items() if name == wanted},
        parity={name: value for name, value in manifest.parity.items() if name == wanted},
        latency={},
        recommended={},
    )


def _archive(library: Library, archives: Path | None, log: Callable[[str], None]) -> bytes:
    """Return the archive of a library, checked."""
    if archives is not None:
        # `npm pack` puts a scope into the name: huggingface-tokenizers-0.2.0.tgz
        names = (library.archive, f"{library.name.lstrip('@').replace('/', '-')}-{library.version}.tgz")
        found = next((archives / name for name in names if (archives / name).is_file()), None)
        if found is None:
            raise ExportError(f"{archives} has no {names[-1]}: npm pack {library.name}@{library.version} writes it")
        content = found.read_bytes()
        _check(library, content, str(found))
        return content
    folder = cache_folder()
    kept = None if folder is None else folder / "web" / library.archive
    if kept is not None and kept.is_file():
        content = kept.read_bytes()
        if _digest(content) == library.sha512:
            return content
        log(f"{kept} is damaged and is fetched again")
    log(f"fetching {library.name} {library.version} from {library.address}")
    content = _fetch(library)
    _check(library, content, library.address)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, content)
    return content


def _fetch(library: Library) -> bytes:
    try:
        with urllib.request.urlopen(library.address, timeout=_SECONDS) as response:
            content: bytes = response.read()
    except (OSError, ValueError) as error:  # URLError is an OSError; a bad address is a ValueError
        reason = getattr(error, "reason", None) or error
        raise ExportError(
            f"cannot fetch {library.name} {library.version} from {library.address}: {error_line(reason)}; on a machine "
            f"with a network, npm pack {library.name}@{library.version} writes it: give its folder with --npm-archives"
        ) from error
    return content


def _check(library: Library, content: bytes, where: str) -> None:
    if _digest(content) != library.sha512:
        raise ExportError(
            f"{where} is not {library.name} {library.version}: its SHA-512 is {_digest(content)}, "
            f"expected {library.sha512}"
        )


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def _library_files(library: Library, archive: bytes) -> Mapping[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        for name in library.files:
            member = members.extractfile(f"package/{name}")
            if member is None:
                raise ExportError(f"{library.archive} has no file {name}")
            files[f"{LIBRARY_FOLDER}/{name.rpartition('/')[2]}"] = member.read()
    return files
