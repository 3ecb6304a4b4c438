"""Where the members of a tar file lie.

Python's `tarfile` is made to unpack: it follows links, holds every member in memory and accepts a file that ends in the
middle. Here nothing is unpacked. Regular files in the formats that tar programs write (POSIX.1-1988, POSIX.1-2001 and
GNU) are accepted. Everything else is refused, and so is an archive without its end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from mlic_runtime.limits import MAX_TAR_HEADER_BYTES, MAX_TAR_PADDING_BYTES

from .pictures import leads_outside

BLOCK = 512
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"K": "a link",
    b"S": "a sparse file",
}
_REGULAR, _FOLDER, _EXTENDED, _GLOBAL, _LONG_NAME = (b"0", b"\0", b"7"), b"5", b"x", b"g", b"L"


class TarError(Exception):
    """What is wrong with an archive, as a part of a sentence."""


@dataclass(frozen=True, slots=True)
class Header:
    """One block of 512 bytes: `kind` is the type flag."""

    name: str
    size: int
    kind: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in the archive: `offset` is where its `size` bytes begin."""

    name: str
    offset: int
    size: int


def entries(stream: BinaryIO) -> Iterator[Entry]:
    """Yield the regular files of an archive, in order, without its folders.

    Only headers are read. Between two entries the caller may move the stream.

    Raises:
        TarError: it is no tar file, it is damaged or truncated, or a member is not a file or has a name that leads out
            of a folder.
        OSError: it cannot be read.
    """
    size = stream.seek(0, 2)
    position = 0
    long_name: str | None = None
    while True:
        block = _read(stream, position, BLOCK)
        if not block.strip(b"\0"):
            if len(block) < BLOCK:
                raise TarError(f"it ends at byte {size} without a tar file's end mark: it is truncated or empty")
            return _require_padding(stream, position, size)
        header = read_header(block)
        if header is None:
            raise TarError(f"found no tar header at byte {position}: {_cause(block, position)}")
        start = position + BLOCK
        if header.size > size - start:
            raise TarError(f"the member {header.name!r} has {header.size} bytes, but only {size - start} follow")
        position = start + -(-header.size // BLOCK) * BLOCK
        if header.kind in (_EXTENDED, _LONG_NAME, _GLOBAL):
            content = _extension(stream, start, header)
            if header.kind == _LONG_NAME:
                long_name = _text(content.partition(b"\0")[0])
            elif header.kind == _EXTENDED:
                long_name = _extended_name(content) or long_name
            continue
        name = plain_name(long_name or header.name)
        long_name = None
        if header.kind == _FOLDER:
            continue
        if header.kind not in _REGULAR:
            kind = _KINDS.get(header.kind, f"of the type {header.kind!r}")
            raise TarError(f"the member {name!r} is {kind}; expected only files")
        yield Entry(name, start, header.size)


def read_header(block: bytes) -> Header | None:
    """Return a header; None where the block is no header, or a damaged one."""
    try:
        recorded = _number(block[148:156])
        size = _number(block[124:136])
        prefix = _text(block[345:500].partition(b"\0")[0]) if block[257:263] == b"ustar\0" else ""
        name = _text(block[:100].partition(b"\0")[0])
    except ValueError:
        return None
    if len(block) < BLOCK or recorded != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        return None
    return Header(f"{prefix}/{name}" if prefix else name, size, block[156:157])


def _number(field: bytes) -> int:
    """Return a number in octal digits. The other notation, for 8 GiB and more, is refused: no picture needs it."""
    digits = field.rstrip(b" \0").lstrip(b" ")
    if not digits or digits.strip(b"01234567"):
        raise ValueError("not octal")
    return int(digits, 8)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace")


def _read(stream: BinaryIO, position: int, size: int) -> bytes:
    stream.seek(position)
    return stream.read(size)


def _cause(block: bytes, position: int) -> str:
    if len(block) < BLOCK:
        return "it is truncated"
    if position == 0 and block.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "it is compressed; expected a plain tar file, where a picture is found without reading all"
    return "it is damaged" if position else "it is no tar file"


def _extension(stream: BinaryIO, start: int, header: Header) -> bytes:
    if header.size > MAX_TAR_HEADER_BYTES:
        raise TarError(
            f"a header at byte {start} extends the next by {header.size} bytes; expected {MAX_TAR_HEADER_BYTES}"
        )
    return _read(stream, start, header.size)


def _extended_name(content: bytes) -> str | None:
    """Return the `path` of a POSIX.1-2001 extended header: records "LENGTH KEY=VALUE\\n"."""  # noqa: D301 # a line break is meant
    name = None
    while content.strip(b"\0"):
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record, content = content[:length], content[length:]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise TarError("an extended header is damaged")
        if key == b"path":
            name = _text(value[:-1])
        elif key in (b"size", b"linkpath") or key.startswith(b"GNU.sparse"):
            raise TarError(f"an extended header gives a {_text(key)}; expected plain files under 8 GiB")
    return name


def plain_name(name: str) -> str:
    """Return a member's name in its plain form, such as without a leading `./`.

    Raises:
        TarError: unpacked, the member would lie outside the folder.
    """
    if leads_outside(name):
        raise TarError(f"the member {name!r} has a name that leads out of a folder; expected plain names")
    return str(PurePosixPath(name))


def _require_padding(stream: BinaryIO, position: int, size: int) -> None:
    if size - position > MAX_TAR_PADDING_BYTES or _read(stream, position, size - position).strip(b"\0"):
        raise TarError(f"found more after the end mark at byte {position}; expected one tar file, not several joined")
