"""Pictures wherever they lie: a file of its own, or a member of a shard, which is read without unpacking the shard."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from mlic_runtime.base.far_files import reaching
from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import ImageError
from mlic_train.errors import DataError

from .addresses import is_remote, location_of
from .tar import BLOCK, read_header


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a shard.

    Attributes:
        shard: the shard's path, or its address (see `shard_names`).
        name: the member's name.
        offset: of its first byte in the shard.
        size: in bytes.
    """

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def read_bytes(self) -> bytes:
        """Its content, by one read; nothing else of the shard is touched.

        Raises:
            OSError: the shard cannot be read, or is not the one any more that it was when it was looked through.
        """
        block = _read(Path(self.shard), self.offset - BLOCK, BLOCK + self.size)
        if not self._is_in(block):
            raise OSError(errno.EIO, f"the shard has changed: found no {self.name!r} at byte {self.offset}", self.shard)
        return block[BLOCK:]

    def _is_in(self, block: bytes) -> bool:
        header = read_header(block[:BLOCK])
        if header is None or header.size != self.size or len(block) != BLOCK + self.size:
            return False
        # A name that does not fit into a header, or into ASCII, may stand before it.
        return len(self.name) >= 100 or not self.name.isascii() or str(PurePosixPath(header.name)) == self.name


PictureFile: TypeAlias = Path | Member
"""Where a picture lies; both have `name` and `read_bytes`, and are equal where they are the same."""


class _Named(BytesIO):
    """The bytes of a picture, with the name that an error message gives it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def image_source(picture: PictureFile) -> Path | BinaryIO:
    """The picture as `mlic_runtime.picture.decode` takes it.

    Raises:
        ImageError: a member's shard cannot be read. What is wrong with the picture, and with a file, is said there.
    """
    if isinstance(picture, Path):
        return picture
    try:
        return _Named(picture.read_bytes(), str(picture))
    except OSError as error:
        raise ImageError(f"cannot read picture {str(picture)!r}: {os_error_reason(error)}") from None


def size_of(picture: PictureFile) -> int:
    """The picture's size in bytes.

    Raises:
        OSError: the file is not there.
    """
    return picture.size if isinstance(picture, Member) else picture.stat().st_size


def to_json(picture: PictureFile | None) -> str | dict[str, Any] | None:
    """A picture as JSON has it; a relative path becomes absolute."""
    if isinstance(picture, Member):
        shard = picture.shard if is_remote(Path(picture.shard)) else str(Path(picture.shard).absolute())
        return {"shard": shard, "name": picture.name, "offset": picture.offset, "size": picture.size}
    return None if picture is None else str(picture.absolute())


def from_json(value: str | Mapping[str, Any] | None) -> PictureFile | None:
    """What `to_json` wrote.

    Raises:
        TypeError: something else.
    """
    if value is None:
        return None
    return Member(**value) if isinstance(value, Mapping) else Path(value)


def open_shard(file: Path) -> BinaryIO:
    """Open a shard for reading in any order.

    Raises:
        OSError: it cannot be opened.
        DataError: an address of a kind that nothing installed here can read.
    """
    if not is_remote(file):
        return open_regular(file)
    file_system, inside = remote(file)
    stream: BinaryIO = file_system.open(inside, "rb")
    return stream


def remote(file: Path) -> tuple[Any, str]:
    """The file system, one of fsspec's, that an address leads to, and the path in it.

    Raises:
        DataError: nothing that is installed knows such addresses.
    """
    from fsspec.core import url_to_fs  # where there are only files, nobody waits for it

    try:
        file_system, inside = url_to_fs(location_of(file))
    except (ImportError, ValueError) as error:
        raise DataError(f"{location_of(file)}: {error}; expected an address that fsspec can open") from None
    return file_system, inside


def is_there(file: Path) -> bool:
    """Whether there is such a file, or something at such an address.

    Raises:
        DataError: the address cannot be reached.
    """
    if not is_remote(file):
        return file.is_file()
    file_system, inside = remote(file)
    try:
        with reaching():
            return bool(file_system.exists(inside))
    except OSError as error:
        raise DataError(f"{location_of(file)}: cannot be reached: {os_error_reason(error)}") from None


def fetch(file: Path, start: int | None = None, end: int | None = None) -> bytes:
    """What lies at an address, or the bytes from `start` to `end` of it; no others are asked for.

    Raises:
        OSError: it cannot be read.
        DataError: nothing that is installed knows such addresses.
    """
    file_system, inside = remote(file)
    with reaching():
        content: bytes = file_system.cat_file(inside, start=start, end=end)
    return content


def _read(file: Path, start: int, size: int) -> bytes:
    """Some bytes of a shard, fewer at its end."""
    if is_remote(file):
        return fetch(file, start, start + size)
    with open_regular(file) as stream:
        stream.seek(start)
        return stream.read(size)
