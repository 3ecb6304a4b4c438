"""Regular files of others, read without a wait; own files and folders, never seen half-written; locks."""

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlic_runtime.errors import OutputError

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def open_regular(path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    A FIFO would block until somebody writes to it, and opening a device can have effects, so both are refused
    before they are opened; the second look at the open descriptor closes the gap between look and open.

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
        raise OutputError(f"cannot write the output: {reason(error)}; make room, or choose another place") from error


def reason(error: OSError) -> str:
    """What an `OSError` says, without the file's name, for the end of a message."""
    return "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)


def _require_regular(status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a symbolic link")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that nobody sees it half-written, not even after a power failure; its folder is made if missing.

    Args:
        path: of the file.
        content: all of it.
        mode: who may do what with it, less what the umask takes.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, to make in it what will then be renamed to `path`; it is gone on leaving.

    What a process that was killed left of such folders for the same `path` is removed first. Whoever uses one holds a
    lock on it, which ends with the process: so nothing is taken from a process that is alive, however slow.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    folder, lock = _locked_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            lock = _lock(folder)
        except FileNotFoundError:
            continue  # another process took it for abandoned before it had its lock
        if lock is None or _is_at(folder, lock):
            return folder, lock
        os.close(lock)


def remove_abandoned(path: Path) -> None:
    """Remove what a process that was killed left of temporary folders for `path`."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.tmp")
    for other in path.parent.iterdir():
        if name.fullmatch(other.name) and other.is_dir() and not other.is_symlink():
            with contextlib.suppress(OSError):
                lock = _lock(other)
                if lock is not None:
                    shutil.rmtree(other, ignore_errors=True)
                    os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder: a descriptor that holds the lock; None where it is locked already, or the system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows, where a folder cannot be opened
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_at(folder: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    return False


def lock(descriptor: int, path: Path) -> None:
    """Keep a second process away; the lock goes with this process, however it ends.

    Raises:
        OutputError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where nobody else can rename what is open here
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutputError(
            f"another process is at work on {str(path)!r}: wait for it, or choose another output"
        ) from error
