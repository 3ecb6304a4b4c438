"""The files of a data set, which lie on this machine or under an address (see `addresses`)."""

from pathlib import Path
from typing import BinaryIO

from mlic_runtime.base.far_files import FarFile
from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import DataError, InputError

from .addresses import is_remote, location_of


def far_file(file: Path) -> FarFile:
    """Return what an address names.

    Raises:
        DataError: nothing that is installed can read such addresses.
    """
    try:
        return FarFile.from_uri(location_of(file))
    except InputError as error:
        raise DataError(str(error)) from None


def open_file(file: Path) -> BinaryIO:
    """Open a file for reading in any order.

    Raises:
        OSError: it cannot be opened.
        DataError: see `far_file`.
    """
    return far_file(file).open() if is_remote(file) else open_regular(file)


def read_range(file: Path, start: int, size: int) -> bytes:
    """Return `size` bytes of a file from `start`, fewer at its end, by one read.

    Raises:
        OSError: it cannot be read.
        DataError: see `far_file`.
    """
    if is_remote(file):
        return far_file(file).read_range(start, start + size)
    with open_regular(file) as stream:
        stream.seek(start)
        return stream.read(size)


def is_there(file: Path) -> bool:
    """Return whether there is such a file.

    Raises:
        DataError: the address cannot be reached.
    """
    try:
        return far_file(file).exists() if is_remote(file) else file.is_file()
    except OSError as error:
        raise DataError(f"{location_of(file)}: cannot be reached: {os_error_reason(error)}") from None


def read_bytes(file: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: it is missing, a folder, or not readable.
    """
    try:
        return far_file(file).read_range() if is_remote(file) else file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{location_of(file)}: cannot be read: {os_error_reason(error)}; expected a data file"
        ) from None


def read_text(file: Path) -> str:
    """Return the content of a file as text, see `decode`.

    Raises:
        DataError: the file cannot be read, or is UTF-16.
    """
    try:
        return decode(read_bytes(file), str(file))
    except ValueError as error:
        raise DataError(str(error)) from None


def decode(content: bytes, name: str) -> str:
    """Return UTF-8 as text without its byte order mark; bytes that are not UTF-8 become lone surrogates.

    So one bad byte costs one row, not the file: `not_utf8` finds it.

    Args:
        content: of the file.
        name: of the file, for the error.

    Raises:
        ValueError: it is UTF-16.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name}: found UTF-16; expected UTF-8: save it again as UTF-8")
    return content.decode("utf-8-sig", errors="surrogateescape")
