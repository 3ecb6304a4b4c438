"""A `.mlic` file: a model package as one zip archive, read in memory and never unpacked to disk.

It is read without `zipfile`, which builds its list of members before anything can be checked (eight bytes of memory
for each byte of a directory without end, measured), takes its word over the members' own headers, and passes over
bytes that belong to no member. Accepted is the plain part of the format
(https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT) that `mlic_train.exporting.archive` writes,
and `zipfile` too:

    (local header, name, data) per member, then (central header, name) per member, then the end record

one right behind the other. Every field of a header is compared with a fixed value or with its second copy, so that
damage shows wherever it is: in the headers at once, in the data by CRC-32 when it is read.
"""

import contextlib
import errno
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlic_runtime.base.files import open_regular, reason
from mlic_runtime.errors import PackageError

from .manifest import FILE_NAME
from .storage import Content

ARCHIVE_SUFFIX = ".mlic"
MAX_MEMBERS = 64  # a package has a manifest, a tokenizer, a card and a graph per precision

_MAX_RATIO = 100  # times that a member may grow; graphs deflate to 0.8 of their size, JSON to 0.3, a bomb to 0.001

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_MAX_DIRECTORY = MAX_MEMBERS * (_CENTRAL.size + 256)  # bytes; FILE_NAME allows 200 for a name
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x2041  # flags: encrypted, strongly encrypted, directory encrypted
_DEFLATE_LEVEL = 0x0006  # flags: a hint of how hard the writer tried, without meaning for a reader
_MADE_BY = 3 << 8 | 20  # Unix, version 2.0 of the format
# Unix modes of a member: of a regular file, 0644, and what zipfile's writestr says. There is no second copy of them, so
# these two must differ in more than one byte.
_ATTRIBUTES = ((stat.S_IFREG | 0o644) << 16, 0o600 << 16)


class _Entry(NamedTuple):
    """A central header, field by field; lengths, sizes and `offset` (of the local header) are in bytes."""

    signature: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    compressed: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal_attributes: int
    attributes: int
    offset: int

    @property
    def local_header(self) -> bytes:
        """What the member has to say of itself: all that the local header has room for, without extra fields."""
        return _LOCAL.pack(_LOCAL_SIGNATURE, *self[2:11], 0)

    @property
    def start(self) -> int:
        """Where the data lie."""
        return self.offset + _LOCAL.size + self.name_length


class Archive:
    """A model package that is a `.mlic` file.

    Its directory is read anew for every call: it is short, and the file may have been replaced.
    """

    sealed = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """See `Storage`."""
        with self._open() as (_, members):
            return sorted(members)

    def disk_bytes(self) -> int:
        """See `Storage`."""
        with self._open() as (stream, _):
            return os.fstat(stream.fileno()).st_size

    def read(self, name: str, limit: int) -> Content:
        """See `Storage`; what a member inflates to is cut off one byte behind the size in its header."""
        with self._open() as (stream, members):
            entry = members.get(name)
            if entry is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if entry.size > limit:
                return Content(entry.size, b"")
            data = self._slice(stream, entry.start, entry.compressed)
        return Content(entry.size, self._content(name, entry, data))

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[BinaryIO, dict[str, _Entry]]]:
        """(the open archive, its members in their order)."""
        try:
            stream = open_regular(self._path)
        except OSError as error:
            raise PackageError(f"cannot read {self._path}: {reason(error)}") from error
        with stream:
            yield stream, self._members(stream)

    def _members(self, stream: BinaryIO) -> dict[str, _Entry]:
        directory, start, count = self._directory(stream)
        members: dict[str, _Entry] = {}
        position = end = 0
        for _ in range(count):
            if len(directory) - position < _CENTRAL.size:
                raise self._damaged("its directory is shorter than its members need")
            entry = _Entry._make(_CENTRAL.unpack_from(directory, position))
            position += _CENTRAL.size + entry.name_length
            raw_name = directory[position - entry.name_length : position]
            name = self._check_name(raw_name, members)
            self._check_entry(name, entry, end)
            header = entry.local_header + raw_name
            if self._slice(stream, end, len(header)) != header:
                raise self._damaged(f"{name!r} has another header than the directory gives it")
            end = entry.start + entry.compressed
            members[name] = entry
        if position != len(directory) or end != start:
            raise self._damaged("it holds bytes that belong to no member")
        return members

    def _directory(self, stream: BinaryIO) -> tuple[bytes, int, int]:
        """(the central headers, where they start, how many they are), as the end record says, if that is plausible."""
        size = os.fstat(stream.fileno()).st_size
        end = self._slice(stream, size - _END.size, _END.size) if size >= _END.size else bytes(_END.size)
        signature, disk, first_disk, on_disk, count, length, start, comment = _END.unpack(end)
        if signature != _END_SIGNATURE:
            raise PackageError(
                f"{self._path} does not end as a zip archive without comment does: "
                f"it is not a {ARCHIVE_SUFFIX} file, or not all of it"
            )
        if count > MAX_MEMBERS or on_disk > MAX_MEMBERS:
            raise PackageError(f"{self._path} holds {max(count, on_disk)} members, expected at most {MAX_MEMBERS}")
        if length > _MAX_DIRECTORY:
            raise PackageError(f"{self._path} has a directory of {length} bytes, expected at most {_MAX_DIRECTORY}")
        if (disk, first_disk, on_disk, comment) != (0, 0, count, 0) or start + length + _END.size != size:
            raise self._damaged("its end record does not fit the file")
        return self._slice(stream, start, length), start, count

    def _check_name(self, raw_name: bytes, members: dict[str, _Entry]) -> str:
        name = raw_name.decode("ascii", "backslashreplace")
        if not FILE_NAME.match(name):
            raise PackageError(f"{self._path} holds {name!r}, which is not a plain file name: a package has no folders")
        if name in members:
            raise PackageError(f"{self._path} holds {name!r} twice")
        return name

    def _check_entry(self, name: str, entry: _Entry, offset: int) -> None:
        what = f"{self._path} holds {name!r}"
        compressed, size = entry.compressed, entry.size
        if entry.flags & _ENCRYPTED:
            raise PackageError(f"{what} encrypted, expected plain data")
        if stat.S_ISLNK(entry.attributes >> 16):
            raise PackageError(f"{what} as a symbolic link, expected a regular file")
        if entry.method not in (_STORED, _DEFLATED):
            raise PackageError(
                f"{what} compressed by method {entry.method}, expected {_STORED} (stored) or {_DEFLATED} (deflated)"
            )
        if size > compressed * _MAX_RATIO:
            raise PackageError(
                f"{what}, {compressed} bytes that grow to {size}, expected at most {_MAX_RATIO} times as many"
            )
        plain = entry._replace(
            signature=_CENTRAL_SIGNATURE,
            made_by=_MADE_BY,
            flags=entry.flags & _DEFLATE_LEVEL,
            extra_length=0,
            comment_length=0,
            disk=0,
            internal_attributes=0,
            offset=offset,
        )
        if entry != plain or entry.attributes not in _ATTRIBUTES:
            raise self._damaged(f"the directory's entry for {name!r} has fields that are not used here")
        # Deflated data far longer than what they stand for are made to cost a reader time.
        if compressed != size and (entry.method == _STORED or compressed > size + size // 8 + 64):
            raise self._damaged(f"{name!r} has {compressed} bytes of data for {size} bytes of content")

    def _content(self, name: str, entry: _Entry, data: bytes) -> bytes:
        content = self._inflate(name, entry.size, data) if entry.method == _DEFLATED else data
        crc = zlib.crc32(content)
        if crc != entry.crc:
            raise self._damaged(f"{name!r} has CRC-32 {crc:08x}, expected {entry.crc:08x}")
        return content

    def _inflate(self, name: str, size: int, data: bytes) -> bytes:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflater.decompress(data, size + 1)
        except zlib.error as error:
            raise self._damaged(f"{name!r} cannot be inflated: {error}") from None
        if len(content) > size:
            raise self._damaged(f"{name!r} inflates to more than the {size} bytes of its header")
        if len(content) != size or not inflater.eof or inflater.unused_data:
            raise self._damaged(f"{name!r} inflates to {len(content)} bytes or has more data, expected {size} bytes")
        return content

    def _slice(self, stream: BinaryIO, start: int, length: int) -> bytes:
        stream.seek(start)
        data = stream.read(length)
        if len(data) != length:
            raise self._damaged("it is shorter than its directory says")
        return data

    def _damaged(self, problem: str) -> PackageError:
        return PackageError(f"{self._path} is damaged, or not written by mlic-export --single-file: {problem}")
