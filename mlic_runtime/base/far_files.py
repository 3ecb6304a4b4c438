"""Files that lie elsewhere: URIs such as s3://bucket/rows.csv, and how to read what they name.

All access goes through fsspec. Some of its file systems need a package of their own (s3fs, gcsfs, adlfs); where that
package is missing, pyarrow's file system for the same kind of URI is used.
"""

import contextlib
import functools
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from mlic_runtime.errors import InputError, MlicError

from .override import override

_EXTRA = "pip install 'mlic-runtime[remote]'"


def is_uri(text: str) -> bool:
    """Return whether a text is a URI such as s3://bucket/pictures, and not a path."""
    scheme, found, _ = text.partition("://")  # fsspec has chains of them, such as simplecache::s3
    return bool(found) and len(scheme) > 1 and scheme[0].isalpha() and all(c.isalnum() or c in "+-.:" for c in scheme)


def without_file_scheme(name: str) -> str:
    """Return the path that a file: URI names; any other text unchanged.

    Raises:
        InputError: the URI names another machine.
    """
    scheme, found, rest = name.partition("://")
    if not found or scheme.lower() != "file":
        return name
    host, slash, path = rest.partition("/")
    if not slash or host not in ("", "localhost"):
        raise InputError(f"found the URI {name!r}; expected file:///FOLDER/NAME, a path of this machine")
    return unquote(path if os.name == "nt" else f"/{path}")


def absolute(name: str) -> str:
    """Return a path as an absolute one; a URI unchanged."""
    name = without_file_scheme(name)
    return name if is_uri(name) else str(Path(name).absolute())


def without_dots(parts: tuple[str, ...]) -> list[str]:
    """Return the parts of a path after each `..` has removed the part before it.

    Raises:
        ValueError: a `..` leads above the start.
    """
    kept: list[str] = []
    for part in parts:
        if part != os.pardir:
            kept.append(part)
        elif kept:
            kept.pop()
        else:
            raise ValueError("it begins above its start")
    return kept


@dataclass(frozen=True, slots=True)
class FarFile:
    """A file or folder that a URI names.

    Every method raises OSError, with a text of one line, where the file cannot be read.

    Attributes:
        uri: its name.
        file_system: fsspec's AbstractFileSystem.
        path: where `file_system` has it.
    """

    uri: str
    file_system: Any
    path: str

    @classmethod
    def from_uri(cls, uri: str) -> "FarFile":
        """Find the file system of a URI; nothing is read yet.

        Raises:
            InputError: the URI is not usable, or fsspec or the package for this kind of URI is not installed.
        """
        try:
            with one_line_errors():
                file_system, path = _find_file_system(uri)
        except OSError as error:
            raise InputError(f"cannot use the URI {uri!r}: {error}; expected one that fsspec can open") from error
        return cls(uri, file_system, path.rstrip("/"))

    def below(self, name: str) -> "FarFile":
        """Return what has this name, a relative path, in the folder."""
        return FarFile(f"{self.uri.partition('?')[0].rstrip('/')}/{name}", self.file_system, f"{self.path}/{name}")

    def exists(self) -> bool:
        """Return whether there is a file or folder."""
        with one_line_errors():
            return bool(self.file_system.exists(self.path))

    def is_folder(self) -> bool:
        """Return whether it is a folder; FileNotFoundError where there is neither file nor folder."""
        with one_line_errors():
            return bool(self.file_system.info(self.path)["type"] == "directory")

    def size(self) -> int | None:
        """Return the size of the file in bytes; None where the file system does not tell."""
        with one_line_errors():
            return cast("int | None", self.file_system.size(self.path))

    def names(self, *, recursive: bool) -> list[str]:
        """Return the files in the folder, as paths relative to it; none where the folder is missing.

        Args:
            recursive: include the files in subfolders.
        """
        with one_line_errors():
            paths = self.file_system.find(self.path, maxdepth=None if recursive else 1)
        return [str(path).removeprefix(self.path).lstrip("/") for path in paths]

    def open(self) -> BinaryIO:
        """Open the file for reading; the stream can seek where the file system can."""
        with one_line_errors():
            return cast(BinaryIO, io.BufferedReader(_RawStream(self.file_system.open(self.path, "rb"))))

    def read_start(self, size: int) -> bytes:
        """Return the first `size` bytes of the file, or all where it has fewer."""
        with one_line_errors(), self.file_system.open(self.path, "rb") as stream:
            return cast(bytes, stream.read(size))

    def read_range(self, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes from `start` to before `end`, by one request; by default all."""
        with one_line_errors():
            return cast(bytes, self.file_system.cat_file(self.path, start=start, end=end))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn every error of the block into an OSError with a text of one line; OSError and MlicError stay.

    The file systems of fsspec let through what the libraries below them raise, of any kind.
    """
    try:
        yield
    except (OSError, MlicError):
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise OSError(kind + " ".join(str(error).split())) from error


class _RawStream(io.RawIOBase):
    """A file that fsspec opened, for `io.BufferedReader`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return bool(self._file.seekable())

    @override
    def readinto(self, buffer: Any) -> int:
        with one_line_errors():
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with one_line_errors():
            return int(self._file.seek(offset, whence))

    @override
    def tell(self) -> int:
        return int(self._file.tell())

    @override
    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _find_file_system(uri: str) -> tuple[Any, str]:
    """Return (a file system of fsspec, the path in it)."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise InputError(f"cannot read {uri!r}: URIs need fsspec: {_EXTRA}") from error
    try:
        return cast("tuple[Any, str]", url_to_fs(uri))
    except ImportError as error:  # its text names the package for this kind of URI
        if found := _through_pyarrow(uri, os.getpid()):
            return found
        raise InputError(f"cannot read {uri!r}: {' '.join(str(error).split())}") from error


@functools.lru_cache(maxsize=256)  # pyarrow asks S3 for the bucket's region; training opens a URI for each picture
def _through_pyarrow(uri: str, process: int) -> "tuple[Any, str] | None":
    """Return a file system of pyarrow, which has S3, GCS and Azure built in; None where it cannot help."""
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow import ArrowInvalid, fs
    except ImportError:
        return None
    try:
        file_system, path = fs.FileSystem.from_uri(uri)
    except ArrowInvalid:  # not a kind that pyarrow knows
        return None
    return ArrowFSWrapper(file_system), path
