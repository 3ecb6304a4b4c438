"""Data in a zip file: it is unpacked once into the user's cache, into a folder whose name says the file's content.

Pictures are read many times, in any order and by several processes; inside a zip file each reading would inflate it
again. So the file is unpacked, within bounds, and a folder is used only after all of it was written.
"""

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlic_runtime.base.files import locked, os_error_reason
from mlic_runtime.base.output_files import atomic_folder
from mlic_runtime.base.progress import log_line, progress_bar
from mlic_runtime.base.text import error_line
from mlic_runtime.base.user_folders import cache_folder
from mlic_runtime.errors import DataError, OutputError
from mlic_runtime.limits import MAX_UNPACKED_BYTES, MAX_UNPACKED_GROWTH, MAX_UNPACKED_MEMBERS

from .pictures import leads_outside
from .tree import is_system_file

ARCHIVE_SUFFIX = ".zip"
_CHUNK = 1 << 20
_ENCRYPTED, _UTF8 = 0x1, 0x800  # of a member's flags, see 4.4.4 of PKWARE's APPNOTE.TXT
_UNIX = 3
_HINT = "unpack it yourself, and give the folder"


@dataclass(frozen=True)
class Archive:
    """A zip file, and the folder that it was unpacked to."""

    file: Path
    unpacked: Path

    def named_in(self, text: str) -> str:
        """Return a text in which the places in the folder are places in the zip file."""
        return text.replace(str(self.unpacked), str(self.file))


@contextmanager
def errors_of(archive: Archive | None) -> Iterator[None]:
    """Let errors of data name places in the zip file that it is from."""
    try:
        yield
    except DataError as error:
        if archive is None:
            raise
        raise type(error)(archive.named_in(str(error))) from None


@dataclass(frozen=True, slots=True)
class _File:
    """A file in the archive, and where it belongs."""

    info: zipfile.ZipInfo
    path: PurePosixPath


def is_archive(file: Path) -> bool:
    """Return whether a file is unpacked before it is read, by its name."""
    return file.name.lower().endswith(ARCHIVE_SUFFIX)


def unpack(file: Path) -> tuple[Path, str]:
    """Unpack a zip file into the user's cache, unless that was done before; return the folder, and a line for people.

    Members that belong to a system (`__MACOSX`, hidden files) are left out. Names in UTF-8 are read as such also where
    the file does not say so.

    Raises:
        DataError: it is no zip file, is damaged or encrypted, holds links or names that lead out of the folder, is far
            larger than a data set becomes by unpacking, or nothing says where the cache is.
        OutputError: it cannot be written, or there is no room.
    """
    cache = cache_folder()
    if cache is None:
        raise DataError(f"{file}: no home folder is known to unpack it in; set XDG_CACHE_HOME, or {_HINT}")
    with _opened(file) as archive:
        files, unclear = _files(file, archive)
        size = sum(each.info.file_size for each in files)
        folder = cache / "data" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', file.stem)[:60]}-{_digest(file)[:16]}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {folder.parent}: {os_error_reason(error)}; or {_HINT}") from None
        what = f"{len(files)} files, {_megabytes(size)}"
        # Several processes may start at once, as under torchrun: the first unpacks, the others wait.
        with locked(folder.with_name(f"{folder.name}.lock")):
            if _is_complete(folder, files):
                return folder, f"{file}: read from {folder}, where it was unpacked before ({what}){unclear}"
            free = shutil.disk_usage(folder.parent).free
            if size > free:
                raise OutputError(
                    f"{file}: unpacked, it takes {_megabytes(size)}, but {folder.parent} has {_megabytes(free)} left; "
                    f"make room, set XDG_CACHE_HOME to another place, or {_HINT}"
                )
            log_line(f"{file}: unpacking {what}")
            with atomic_folder(folder) as new, progress_bar("unpacking", "file") as progress:
                for done, each in enumerate(files, start=1):
                    _extract(archive, each, new)
                    progress(done, len(files))
                if hasattr(os, "sync"):
                    os.sync()  # a file must not lose its content after the folder has its name
    return folder, f"{file}: unpacked to {folder} ({what}){unclear}; remove it when it is no longer needed"


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file; what zipfile raises becomes one line.

    Raises:
        DataError: it is no zip file, or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"{file}: not a zip file that can be read: {error_line(error)}; write it again") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {os_error_reason(error)}") from None
    except Exception as error:
        if type(error).__module__ in ("_lzma", "struct"):  # LZMAError and struct.error are nobody's children
            raise DataError(f"{file}: not a zip file that can be read: {error_line(error)}; write it again") from None
        raise


def _files(file: Path, archive: zipfile.ZipFile) -> tuple[list[_File], str]:
    """Return the files to unpack, checked, and what to say about their names."""
    members = archive.infolist()
    if len(members) > MAX_UNPACKED_MEMBERS:
        raise DataError(f"{file}: found {len(members)} members; expected at most {MAX_UNPACKED_MEMBERS}; {_HINT}")
    files: dict[PurePosixPath, _File] = {}
    unclear = 0
    for info in members:
        name, known = _name(info)
        path = PurePosixPath(name)
        if leads_outside(name) or "\0" in name:
            raise DataError(f"{file}: the member {name!r} has a name that leads out of a folder; expected plain names")
        if any(map(is_system_file, path.parts)) or not path.parts:
            continue
        kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "no regular file"
            raise DataError(f"{file}: the member {name!r} is {what}; expected only files; {_HINT}")
        if name.endswith("/") or kind == stat.S_IFDIR:
            continue
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{file}: the member {name!r} is encrypted; {_HINT}")
        if path in files:
            raise DataError(f"{file}: found the member {name!r} twice; expected each once; {_HINT}")
        unclear += not known
        files[path] = _File(info, path)
    if not files:
        raise DataError(f"{file}: found no file in it; expected a data set")
    size, packed = sum(each.info.file_size for each in files.values()), file.stat().st_size
    if size > MAX_UNPACKED_BYTES + MAX_UNPACKED_GROWTH * packed:
        raise DataError(
            f"{file}: it has {_megabytes(packed)} and would become {_megabytes(size)}; expected at most "
            f"{MAX_UNPACKED_GROWTH} times as much, as pictures hardly shrink; if that is right, {_HINT}"
        )
    note = f"; the encoding of {unclear} names is not known, they were taken for CP437" if unclear else ""
    return list(files.values()), note


def _name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return a member's name with `/` between folders, and whether its encoding is known.

    Without the flag for UTF-8 a name should be CP437, but many programs write UTF-8 all the same.
    """
    name, known = info.filename, True
    if not info.flag_bits & _UTF8 and not name.isascii() and name == info.orig_filename:
        try:
            name = name.encode("cp437").decode("utf-8")
        except ValueError:
            known = False
    return name.replace("\\", "/"), known


def _extract(archive: zipfile.ZipFile, each: _File, folder: Path) -> None:
    target = folder.joinpath(*each.path.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = each.info.file_size
    with archive.open(each.info) as source, target.open("xb") as stream:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{each.info.filename!r} is larger than it says")
            stream.write(chunk)
    if left:
        raise zipfile.BadZipFile(f"{each.info.filename!r} is smaller than it says")


def _is_complete(folder: Path, files: list[_File]) -> bool:
    """Return whether all files are in a folder, with their sizes; a user, or a disk, may have lost some."""
    try:
        return all(os.stat(folder / each.path).st_size == each.info.file_size for each in files)  # noqa: PTH116 # faster
    except OSError:
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
