"""Regular files, opened without waiting; new files and folders, never seen half-written; locks."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlic_runtime.errors import OutputError

from .text import error_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def open_regular(path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    A FIFO would block until somebody writes to it, and opening a device can have effects, so both are refused before
    they are opened. The open descriptor is checked again, because the file may have been replaced in between.

    Raises:
        OSError: missing, a directory, not permitted, or not a regular file; `strerror` says which.
    """
    _require_regular(Path(path).stat(follow_symlinks=follow_symlinks))
    descriptor = os.open(path, _FLAGS | (0 if follow_symlinks else getattr(os, "O_NOFOLLOW", 0)))
    try:
        _require_regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def write_to(stream: BinaryIO, data: bytes) -> None:
    """Write to a stream such as standard output, and flush it.

    Raises:
        BrokenPipeError: its reader went away.
        OutputError: it cannot be written, such as to a full disk.
    """
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write the output: {os_error_reason(error)}; make room, or choose another place"
        ) from error


def os_error_reason(error: OSError) -> str:
    """Return what an `OSError` says, without the name of the file, for the end of a message."""
    missing = isinstance(error, FileNotFoundError)
    return "there is no such file or folder" if missing else error.strerror or error_line(error)


def is_regular(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry of a folder is a regular file, or a link to one; False for a link that leads nowhere."""
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry of a folder is a folder, or a link to one; False for a link that leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _require_regular(status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a symbolic link")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that nobody sees it half-written. Its folder is made if it is missing.

    Args:
        path: of the file.
        content: all of it.
        mode: see `atomic_file`.

    Raises:
        OSError: it cannot be written; what was at `path` is unchanged.
    """
    with atomic_file(path, mode=mode) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o600) -> Iterator[Path]:
    """Make a file to be written inside the block, then rename it to `path`.

    It is synced before, so that not even a power failure leaves half of it. If the block fails, it is removed.

    Args:
        path: of the file in the end; its folder is made if it is missing.
        mode: permissions, less those that the umask takes.

    Raises:
        OSError: it cannot be written; what was at `path` is unchanged.
    """
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, mode))
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)  # again: some libraries put a new file in its place
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside `path`, for a file or folder that will be renamed to `path`; it is removed in the end.

    Temporary folders for the same `path` that killed processes left are removed first. A process holds a lock on its
    own, which ends with the process: so no folder of a living process is removed, however slow that is.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    folder, descriptor = _new_locked_folder(path)
    try:
        yield folder
    finally:
        _remove_folder(folder)
        if descriptor is not None:
            os.close(descriptor)


def remove_abandoned(path: Path) -> None:
    """Remove the temporary folders for `path` that killed processes left."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.tmp")
    for other in path.parent.iterdir():
        if name.fullmatch(other.name) and other.is_dir() and not other.is_symlink():
            with contextlib.suppress(OSError):
                descriptor = _lock_folder(other)
                if descriptor is not None:
                    _remove_folder(other)
                    os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is not there; wait while another process has it.

    The lock ends with this process, however it ends. On Windows, and on file systems without locks, nothing is locked:
    what is done inside must then be right, if wasteful, when two processes do it at once.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, path: Path) -> None:
    """Lock an open file or folder; the lock ends with this process, however it ends.

    Args:
        descriptor: of the file or folder. Nothing is locked on Windows, where no other process can rename what is open.
        path: of the output, for the message.

    Raises:
        OutputError: another process has the lock.
    """
    if not _try_lock(descriptor):
        raise OutputError(f"another process is at work on {str(path)!r}: wait for it, or choose another output")


def _new_locked_folder(path: Path) -> tuple[Path, int | None]:
    import tempfile  # here, as in `_remove_folder`, because a prediction writes nothing, and both take 3 ms to load

    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            descriptor = _lock_folder(folder)
        except (FileNotFoundError, BlockingIOError):
            continue  # another process took it for abandoned before it was locked, and removed it or is about to
        if descriptor is None or _is_at(folder, descriptor):
            return folder, descriptor
        os.close(descriptor)


def _remove_folder(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _lock_folder(folder: Path) -> int | None:
    """Return a descriptor that holds the lock of a folder; None if there are no locks.

    Raises:
        BlockingIOError: another process has the lock.
        OSError: the folder cannot be opened.
    """
    if fcntl is None:  # Windows cannot open a folder
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # this file system has no locks
        os.close(descriptor)
        return None
    return descriptor


def _try_lock(descriptor: int) -> bool:
    """Lock an open file or folder if no other process has the lock; return whether that is so."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or this file system has no locks
        return False
    return True


def _is_at(folder: Path, descriptor: int) -> bool:
    """Return whether the open folder is still the one at that path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    return False
