"""Where a picture lies: a file of its own, a member of a shard, read without unpacking it, or a cell of Parquet."""

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.errors import ImageError

from .addresses import is_remote
from .files import read_range
from .parquet import ParquetPicture
from .tar import BLOCK, read_header


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a shard.

    Attributes:
        shard: the shard's path, or its address (see `addresses`).
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
        """Return its content, by one read; nothing else of the shard is read.

        Raises:
            OSError: the shard cannot be read, or has changed since it was scanned.
        """
        block = read_range(Path(self.shard), self.offset - BLOCK, BLOCK + self.size)
        if not self._is_in(block):
            raise OSError(errno.EIO, f"the shard has changed: found no {self.name!r} at byte {self.offset}", self.shard)
        return block[BLOCK:]

    def _is_in(self, block: bytes) -> bool:
        header = read_header(block[:BLOCK])
        if header is None or header.size != self.size or len(block) != BLOCK + self.size:
            return False
        # A name that does not fit into a header, or into ASCII, may stand before it.
        return len(self.name) >= 100 or not self.name.isascii() or str(PurePosixPath(header.name)) == self.name


PictureFile: TypeAlias = Path | Member | ParquetPicture
"""Where a picture lies; all have `name` and `read_bytes`, and are equal if they name the same place."""


class _NamedBytes(BytesIO):
    """The bytes of a picture, with the name that an error message gives it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def image_source(picture: PictureFile) -> Path | BinaryIO:
    """Return the picture as `mlic_runtime.picture.decode` takes it.

    Raises:
        ImageError: a member's shard cannot be read. The decoder finds what is wrong with a file or a picture.
    """
    if isinstance(picture, Path):
        return picture
    try:
        return _NamedBytes(picture.read_bytes(), str(picture))
    except OSError as error:
        raise ImageError(f"cannot read picture {str(picture)!r}: {os_error_reason(error)}") from None


def size_of(picture: PictureFile) -> int:
    """Return the picture's size in bytes.

    Raises:
        OSError: the file is not there.
    """
    return picture.stat().st_size if isinstance(picture, Path) else picture.size


def to_json(picture: PictureFile | None) -> str | dict[str, Any] | None:
    """Return a picture's place as JSON; a relative path becomes absolute."""
    if isinstance(picture, Member):
        far = is_remote(Path(picture.shard))
        return asdict(picture if far else replace(picture, shard=str(Path(picture.shard).absolute())))
    if isinstance(picture, ParquetPicture):
        return asdict(replace(picture, parquet=str(Path(picture.parquet).absolute())))
    return None if picture is None else str(picture.absolute())


def from_json(value: str | Mapping[str, Any] | None) -> PictureFile | None:
    """Return the picture's place that `to_json` wrote.

    Raises:
        TypeError: `value` is something else.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return ParquetPicture(**value) if "parquet" in value else Member(**value)
    return Path(value)
