"""Rows and pictures that a URI names: s3://, gs://, abfs:// or hdfs:// through pyarrow, all others through fsspec."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from mlic_runtime.base.far_files import is_uri, reaching, without_dots
from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_PICTURE_BYTES, MAX_ROW_BYTES

from .formats import Cells, Problem, Values, text_of
from .sidecar import SIDECAR_SUFFIX, decode_caption

_EXTRA = "pip install 'mlic-runtime[parquet]'"


class RemoteFolder:
    """A folder that a URI names, and what lies in it; nothing else can be reached through it.

    Args:
        uri: such as s3://bucket/pictures. Options of the file system may follow a `?` (see pyarrow's and fsspec's own
            documentation); credentials are best left to the environment.

    Raises:
        InputError: the URI cannot be used, or pyarrow or what it needs besides is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._files, path = _resolve(uri)
        self._path = path.rstrip("/")
        self._address = uri.partition("?")[0].rstrip("/")

    def locate(self, name: str) -> str:
        """The path below the folder of a picture by its name in a rows file.

        A name is a path below the folder, or a whole URI that begins with the folder's. It is taken as it is: `%20` is
        three characters. But it is refused if its decoded form leads out of the folder, for a server may decode it.

        Raises:
            InputError: the name leads out of the folder.
        """
        try:
            return "/".join(_inside(_below(self._address, name) if is_uri(name) else name))
        except ValueError:
            raise InputError(
                f"picture {name!r} lies outside of the image root {self.uri!r}: name another root"
            ) from None

    def picture(self, name: str) -> BinaryIO:
        """A stream that fetches a picture when it is read.

        Raises:
            InputError: see `locate`.
        """
        below = self.locate(name)
        return cast(BinaryIO, _RemotePicture(self._files, f"{self._path}/{below}", f"{self._address}/{below}"))

    def cells(self, suffixes: tuple[str, ...]) -> Iterator[Cells]:
        """The pictures in the folder and below it, in the order of names, with their captions, as in a local one.

        Args:
            suffixes: of what is a picture, in lower case.

        Raises:
            InputError: the folder cannot be listed.
        """
        from pyarrow import fs

        try:
            with reaching():
                found = self._files.get_file_info(fs.FileSelector(self._path, recursive=True))
        except OSError as error:
            raise InputError(f"cannot list the folder {self.uri!r}: {_reason(error)}") from error
        start = len(self._path) + 1
        names = {PurePosixPath(info.path[start:]).parts for info in found if info.type == fs.FileType.File}
        for parts in sorted(names):
            if any(part.startswith(".") for part in parts) or not parts[-1].lower().endswith(suffixes):
                continue
            name = PurePosixPath(*parts)
            text = name.with_suffix(SIDECAR_SUFFIX)
            if text.parts not in names:
                yield Values(str(name), None)
                continue
            try:
                with reaching(), self._files.open_input_file(f"{self._path}/{text}") as stream:
                    yield Values(str(name), decode_caption(stream.read(MAX_ROW_BYTES + 1), repr(str(text))))
            except (InputError, OSError) as error:
                problem = str(error) if isinstance(error, InputError) else f"cannot read the caption: {_reason(error)}"
                yield Problem(str(name), problem)


def open_remote(uri: str) -> tuple[BinaryIO, int] | None:
    """Open a file that a URI names: (the stream, its size); None if it is a folder.

    Raises:
        InputError: it is missing or cannot be opened.
    """
    files, path = _resolve(uri)
    from pyarrow import fs

    try:
        with reaching():
            info = files.get_file_info(path)
            if info.type == fs.FileType.Directory:
                return None
            if info.type != fs.FileType.File:
                raise FileNotFoundError
            return cast(BinaryIO, io.BufferedReader(_RemoteFile(files.open_input_file(path), uri))), info.size
    except OSError as error:
        raise InputError(f"cannot read the input {uri!r}: {_reason(error)}") from error


class _RemotePicture:
    """What `decode.load_image` needs of a stream; the file is opened when it is read, in the thread that decodes it."""

    def __init__(self, files: Any, path: str, name: str) -> None:
        self.name = name  # what errors call it
        self._files, self._path = files, path

    def read(self) -> bytes:
        with reaching(), self._files.open_input_file(self._path) as stream:
            content: bytes = stream.read(MAX_PICTURE_BYTES + 1)
        if len(content) > MAX_PICTURE_BYTES:
            raise ValueError(f"it has more than {MAX_PICTURE_BYTES} bytes")
        return content


class _RemoteFile(io.RawIOBase):
    """A file of pyarrow for `io.BufferedReader`; a network that fails is an `InputError`."""

    def __init__(self, file: Any, uri: str) -> None:
        self._file, self._uri = file, uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            with reaching():
                return int(self._file.readinto(buffer))
        except OSError as error:
            raise InputError(f"cannot read the input {self._uri!r}: {_reason(error)}") from error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _resolve(uri: str) -> tuple[Any, str]:
    """(the file system of pyarrow, the path in it)."""
    try:
        import pyarrow
        from pyarrow import fs
    except ImportError as error:
        raise InputError(f"cannot read {uri!r}: URIs need pyarrow: {_EXTRA}") from error
    try:
        with reaching():
            try:
                files, path = fs.FileSystem.from_uri(uri)
            except pyarrow.ArrowInvalid:  # of a kind that it does not know
                files, path = _through_fsspec(uri)
    except OSError as error:
        raise InputError(f"cannot use the URI {uri!r}: {_reason(error)}") from error
    return files, path


def _through_fsspec(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    try:
        from fsspec.core import url_to_fs

        known, path = url_to_fs(uri)
    except ImportError as error:
        raise InputError(f"cannot read {uri!r}: it needs another package: {text_of(str(error))}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(known)), path


def _below(folder: str, uri: str) -> str:
    """What of a URI is left below that of a folder; ValueError if it is elsewhere."""
    scheme, _, start = folder.partition("://")
    other, _, path = uri.partition("://")
    parts, above = without_dots(PurePosixPath(path).parts), without_dots(PurePosixPath(start).parts)
    if scheme != other or parts[: len(above)] != above:
        raise ValueError("it is elsewhere")
    return "/".join(parts[len(above) :])


def _inside(name: str) -> list[str]:
    """The parts of a relative name without `.` and `..`; ValueError if it, or what it decodes to, leads elsewhere."""
    decoded = name
    while decoded != (decoded := unquote(decoded)):
        _parts(decoded)
    return _parts(name)


def _parts(name: str) -> list[str]:
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or "\0" in name:  # a backslash is a separator for some file systems
        raise ValueError
    return without_dots(path.parts)


def _reason(error: Exception) -> str:
    return "there is no such file" if isinstance(error, FileNotFoundError) else text_of(str(error))
