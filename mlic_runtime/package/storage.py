"""The files of a model package in a folder; `archive` has the other kind of storage, a single file."""

import os
from pathlib import Path
from typing import NamedTuple, Protocol

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.override import override
from mlic_runtime.errors import PackageError

# These make the folder of an installed model package importable, and Python adds them. They are neither read nor run.
_IMPORTABLE = frozenset(("__init__.py", "__pycache__"))


class Content(NamedTuple):
    """The size of a file in bytes, and its content, which is empty if the size is over the limit of the reader."""

    size: int
    data: bytes


class Storage(Protocol):
    """The files of one model package, by name; nothing is kept open between two calls.

    Attributes:
        sealed: nothing gets in by accident, so a file that the manifest does not list is refused at once. Other
            programs put files into a folder, so only `ModelPackage.verify` refuses them there.
    """

    sealed: bool

    def names(self) -> list[str]:
        """Return the names of all files, sorted.

        Raises:
            PackageError: it cannot be listed.
        """

    def disk_bytes(self) -> int:
        """Return how much room the package takes, in bytes.

        Raises:
            PackageError: it cannot be listed.
        """

    def read(self, name: str, limit: int) -> Content:
        """Read one file, if it has at most `limit` bytes.

        Raises:
            OSError: it is missing, cannot be read or is not a regular file (a symbolic link is not).
            PackageError: the archive that holds it is damaged.
        """


class Folder(Storage):
    """A model package that is a folder."""

    sealed = False

    def __init__(self, path: Path) -> None:
        self._path = path

    @override
    def names(self) -> list[str]:
        return sorted(self._sizes())

    @override
    def disk_bytes(self) -> int:
        return sum(self._sizes().values())

    @override
    def read(self, name: str, limit: int) -> Content:
        with open_regular(self._path / name, follow_symlinks=False) as stream:
            size = os.fstat(stream.fileno()).st_size
            return Content(size, stream.read(size) if size <= limit else b"")

    def _sizes(self) -> dict[str, int]:
        try:
            entries = [entry for entry in self._path.iterdir() if entry.name not in _IMPORTABLE]
            return {entry.name: entry.lstat().st_size for entry in entries}
        except OSError as error:
            raise PackageError(f"cannot list {self._path}: {os_error_reason(error)}") from error
