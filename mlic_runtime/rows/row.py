"""A row of a batch: one picture or one caption or both."""

import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlic_runtime.errors import InputError

if TYPE_CHECKING:
    from mlic_runtime.picture.decode import ImageSource


@dataclass(frozen=True, slots=True)
class Row:
    """The input of one prediction.

    Attributes:
        image: see `decode.load_image`; None for a caption alone.
        caption: None for a picture alone. A caption out of a file has one space for each run of whitespace.
        name: the name of the picture in the result; None means its path, if `image` is one.
        error: why the row could not be read; its result is then a `RowError`.
    """

    image: "ImageSource | None" = None
    caption: str | None = None
    name: str | None = None
    error: InputError | None = None

    @property
    def title(self) -> str | None:
        """Return the name, else the path, else None."""
        if self.name is None and isinstance(self.image, (str, os.PathLike)):
            return os.fspath(self.image)
        return self.name

    def checksum(self, start: int = 0) -> int:
        """Return the CRC-32 of the row, continued from `start`; a picture file counts by its name, not its content."""
        fields = [self.title, self.caption, None if self.error is None else str(self.error)]
        text = "\x1e".join("\x1f" if field is None else field for field in fields)
        checksum = zlib.crc32(f"{text}\x1d".encode("utf-8", "surrogatepass"), start)
        return zlib.crc32(self.image, checksum) if isinstance(self.image, bytes) else checksum


@dataclass(frozen=True, slots=True)
class RowError:
    """The result of a row that cannot be predicted.

    Attributes:
        image: the picture's name as the row gives it, or None.
        error: the reason.
    """

    image: str | None
    error: InputError

    def to_dict(self) -> dict[str, Any]:
        """Return the error record, ready for `json.dumps`."""
        return {"image": self.image, "error": {"type": type(self.error).__name__, "message": str(self.error)}}
