"""Files as text, and the rows that every format is read into."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.text import not_utf8
from mlic_train.data.problems import Problem
from mlic_train.errors import DataError

from .addresses import is_remote, location_of
from .members import Member, fetch


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, before its picture and labels are looked up.

    Attributes:
        number: 1-based, the header not counted.
        image_id: the picture's name; None when the row names none.
        captions: whole, each run of whitespace, line breaks included, made one space; none is blank.
        labels: a Labels cell still to be split, or a list of ids and names; None when the row is not labelled.
        blank_caption: True when a caption was given but blank.
        picture: where the picture lies, for a row of a shard; else it is looked for in the pictures folder.
    """

    number: int
    image_id: str | None
    captions: tuple[str, ...]
    labels: str | tuple[str, ...] | None
    blank_caption: bool = False
    picture: Member | None = None


Rows = Iterator[Row | Problem]
"""A format's rows in order, with a Problem in the place of each row that cannot be read."""


def read_bytes(file: Path) -> bytes:
    """The content of a file, or of what an address names.

    Raises:
        DataError: it is missing, a folder, or not readable.
    """
    try:
        return fetch(file) if is_remote(file) else file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{location_of(file)}: cannot be read: {os_error_reason(error)}; expected a data file"
        ) from None


def read_text(file: Path) -> str:
    """The file as UTF-8 text without its byte order mark; bytes that are not UTF-8 stay behind as lone surrogates.

    So one bad byte costs one row, not the file: `not_utf8` finds it.

    Raises:
        DataError: the file cannot be read, or is UTF-16.
    """
    try:
        return decode(read_bytes(file), str(file))
    except ValueError as error:
        raise DataError(str(error)) from None


def decode(content: bytes, name: str) -> str:
    """As `read_text`, of what has been read from `name`.

    Raises:
        ValueError: it is UTF-16.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name}: found UTF-16; expected UTF-8: save it again as UTF-8")
    return content.decode("utf-8-sig", errors="surrogateescape")


def make_row(
    file: Path, number: int, image_id: str, captions: Sequence[str], labels: str | tuple[str, ...] | None
) -> Row | Problem:
    """A row with its captions cleaned, or the Problem that its text is not UTF-8."""
    parts = [image_id, *captions, *([labels] if isinstance(labels, str) else labels or ())]
    if broken := not_utf8("".join(parts)):
        return Problem(file, number, "bad-row", broken)
    cleaned = [" ".join(caption.split()) for caption in captions]
    return Row(number, image_id.strip() or None, tuple(filter(None, cleaned)), labels, not all(cleaned))
