"""A model package as a wheel: after `pip install` on the device, `mlic-infer --model NAME` finds it.

No build tool is used, because the bytes would depend on its version. The format is
https://packaging.python.org/en/latest/specifications/binary-distribution-format/.
"""

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from mlic_runtime.package.installed import ENTRY_POINT_GROUP
from mlic_runtime.package.manifest import CARD_NAME
from mlic_runtime.package.model_package import load_package
from mlic_train.errors import ExportError

from .archive import package_contents, write_zip

_TAG = "py3-none-any"


def write_wheel(package_folder: Path, output: Path) -> Path:
    """Write a model package as a wheel to the folder `output`; equal packages give equal bytes.

    Every file of the package is verified first. Unlike a `.mlic` file, a wheel is deflated, because pip inflates it
    only once.

    Returns:
        The wheel, `mlic_model_NAME-VERSION-py3-none-any.whl`, both normalised as the format requires.

    Raises:
        PackageError: the package is damaged.
        ExportError: its name or version is not valid for a distribution.
    """
    package = load_package(package_folder)
    name, version = package.manifest.name, normalise_version(package.manifest.version)
    distribution = _distribution(name)
    module = distribution.replace("-", "_")
    model = package_contents(package)
    about = f"MLIC model package {name} {package.manifest.version}"
    info = f"{module}-{version}.dist-info"
    contents = {
        f"{module}/__init__.py": f'"""{about}; mlic-runtime finds it by its entry point."""\n'.encode(),
        **{f"{module}/{file_name}": content for file_name, content in model.items()},
        f"{info}/METADATA": _metadata(distribution, version, about) + model.get(CARD_NAME, b""),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: mlic-train\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode(),
        f"{info}/entry_points.txt": f"[{ENTRY_POINT_GROUP}]\n{name} = {module}\n".encode(),
    }
    record = f"{info}/RECORD"
    file = output / f"{module}-{version}-{_TAG}.whl"
    write_zip(file, {**contents, record: _record(contents, record)}, zipfile.ZIP_DEFLATED)
    return file


def normalise_version(version: str) -> str:
    """Normalise the version of a distribution by PEP 440: "1.0-rc1" becomes "1.0rc1".

    Raises:
        ExportError: it is not a PEP 440 version.
    """
    try:
        return str(Version(version))
    except InvalidVersion:
        raise ExportError(
            f"a wheel cannot have the version {version!r}: give one by PEP 440, such as 1.0.0 or 1.0.0rc1, "
            "with --package-version"
        ) from None


def _distribution(name: str) -> str:
    try:
        return canonicalize_name(f"mlic-model-{name}", validate=True)
    except InvalidName:
        raise ExportError(
            f"a wheel cannot hold a model named {name!r}: the name must end in a letter or a digit"
        ) from None


def _metadata(distribution: str, version: str, about: str) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {distribution}",
        f"Version: {version}",
        f"Summary: {about}",
        "Requires-Dist: mlic-runtime",
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join([*lines, "", ""]).encode()


def _record(contents: Mapping[str, bytes], record: str) -> bytes:
    """Return RECORD: each file with its hash and size in bytes, and RECORD itself without."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow([name, f"sha256={digest}", len(content)])
    writer.writerow([record, "", ""])
    return stream.getvalue().encode()
