"""A `.mlic` file: a model package as one zip archive, read in memory and never unpacked to disk.

`zipfile` reads it, within bounds. Before that, the end record is checked, because `zipfile` makes its list of members
from whatever directory the record names. After that, every header is compared with the one that `zipfile` itself
writes for a plain stored member, as `mlic_train.exporting.archive` does:

    (local header, name, data) per member, then (central header, name) per member, then the end record

one right behind the other. So no two readers can see different members, and damage is found wherever it is: in the
headers at once, in the data by CRC-32 when they are read.
"""

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.override import override
from mlic_runtime.base.text import error_line
from mlic_runtime.base.typed_json import repeated
from mlic_runtime.errors import PackageError
from mlic_runtime.limits import MAX_ARCHIVE_BYTES, MAX_ARCHIVE_DIRECTORY_BYTES, MAX_ARCHIVE_MEMBERS

from .manifest import FILE_NAME
from .storage import Content, Storage

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

ARCHIVE_SUFFIX = ".mlic"

# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT: 4.3.7, 4.3.12, 4.3.15 and 4.3.16
_LOCAL_HEADER_BYTES = 30
_CENTRAL_START = b"PK\1\2\x14\3"  # signature, and made by version 2.0 on Unix
_CENTRAL_END = struct.Struct("<3H2L")  # comment length, disk, internal and external attributes, offset of the member
_ZIP64_LOCATOR_BYTES, _ZIP64_LOCATOR_SIGNATURE = 20, b"PK\6\7"
_END, _END_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\5\6"
_UNIX = 3
# External attributes: the Unix mode of a regular file, or what zipfile's writestr sets. There is no second copy of them
# to compare them with, so the two differ in more than one byte.
_ATTRIBUTES = ((stat.S_IFREG | 0o644) << 16, 0o600 << 16)


class Archive(Storage):
    """A model package that is a `.mlic` file.

    Its directory is read again for every call: it is short, and the file may have been replaced.
    """

    sealed = True

    def __init__(self, path: Path) -> None:
        self._path = path

    @override
    def names(self) -> list[str]:
        with self._open() as (_, archive):
            return sorted(archive.namelist())

    @override
    def disk_bytes(self) -> int:
        with self._open() as (stream, _):
            return os.fstat(stream.fileno()).st_size

    @override
    def read(self, name: str, limit: int) -> Content:
        with self._open() as (_, archive):
            if name in archive.namelist():
                size = archive.getinfo(name).file_size
                return Content(size, archive.read(name) if size <= limit else b"")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    @contextlib.contextmanager
    def _open(self) -> "Iterator[tuple[BinaryIO, ZipFile]]":
        """Open the file and check all of its headers.

        Raises:
            PackageError: it cannot be read, or is not such an archive; also for what zipfile raises inside the block.
        """
        import zipfile  # here, because a folder is read without it

        try:
            with open_regular(self._path) as stream:
                count, directory = self._check_end_record(stream)
                with zipfile.ZipFile(stream) as archive:
                    self._check_members(stream, archive.infolist(), count, directory)
                    yield stream, archive
        except OSError as error:
            raise PackageError(f"cannot read {self._path}: {os_error_reason(error)}") from error
        # `Warning`: zipfile warns of some odd headers, which raises where warnings are errors.
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, Warning) as error:
            raise self._damaged(error_line(error)) from None

    def _check_end_record(self, stream: BinaryIO) -> tuple[int, range]:
        """Return the number of members and the bytes of the directory, if the end record fits the file."""
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _END.size - _ZIP64_LOCATOR_BYTES))
        tail = stream.read(_ZIP64_LOCATOR_BYTES + _END.size)
        if len(tail) < _END.size or not tail[-_END.size :].startswith(_END_SIGNATURE):
            raise PackageError(
                f"{self._path} does not end as a zip archive without comment does: "
                f"it is not a {ARCHIVE_SUFFIX} file, or not all of it"
            )
        _, disk, first_disk, on_disk, count, length, start, comment = _END.unpack(tail[-_END.size :])
        for found, limit, what in (
            (max(count, on_disk), MAX_ARCHIVE_MEMBERS, "members"),
            (length, MAX_ARCHIVE_DIRECTORY_BYTES, "bytes of directory"),
            (size, MAX_ARCHIVE_BYTES, "bytes"),
        ):
            if found > limit:
                raise PackageError(f"{self._path} holds {found} {what}, expected at most {limit}")
        if (disk, first_disk, on_disk, comment) != (0, 0, count, 0) or start + length + _END.size != size:
            raise self._damaged("its end record does not fit the file")
        if tail.startswith(_ZIP64_LOCATOR_SIGNATURE):  # zipfile would follow it to another end record
            raise self._damaged("it has an end record of 64 bits as well")
        return count, range(start, start + length)

    def _check_members(self, stream: BinaryIO, members: "list[ZipInfo]", count: int, directory: range) -> None:
        """Check that `count` plain members of different names, and their directory, fill the file up to its end."""
        from zipfile import ZipInfo

        twice = repeated(member.orig_filename for member in members)
        if twice is not None:
            raise PackageError(f"{self._path} holds {twice!r} twice")
        end, directory_end = 0, directory.start
        for member in members:
            name = member.orig_filename  # as it is in the file: `filename` ends at a NUL
            if not FILE_NAME.match(name):
                raise PackageError(
                    f"{self._path} holds {name!r}, which is not a plain file name: a package has no folders"
                )
            if member.file_size > directory.start:
                raise self._damaged(f"{name!r} has {member.file_size} bytes, more than the file")
            plain = ZipInfo(name, member.date_time)
            plain.create_system, plain.CRC = _UNIX, member.CRC
            plain.file_size = plain.compress_size = member.file_size
            local = plain.FileHeader(zip64=False)
            shared = local[4:_LOCAL_HEADER_BYTES]  # fields that both headers have
            central = _CENTRAL_START + shared + _CENTRAL_END.pack(0, 0, 0, member.external_attr, end) + name.encode()
            for start, expected in ((end, local), (directory_end, central)):
                stream.seek(start)
                if stream.read(len(expected)) != expected or member.external_attr not in _ATTRIBUTES:
                    raise self._damaged(
                        f"{name!r} is compressed, encrypted, no regular file of mode 0644, or has a damaged header"
                    )
            end += len(local) + member.file_size
            directory_end += len(central)
        if (len(members), end, directory_end) != (count, directory.start, directory.stop):
            raise self._damaged("its members and their directory do not fill the file as its end record says")

    def _damaged(self, problem: str) -> PackageError:
        return PackageError(f"{self._path} is damaged, or not written by mlic-export --single-file: {problem}")
