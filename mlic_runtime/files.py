"""Files that others chose: regular files only, never a wait, and a limit for pictures. Files never half-written."""

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

MAX_PIXELS = 90_000_000  # width x height of a picture; here because the command line reads it without loading Pillow

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


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that nobody sees it half-written, not even after a power failure; its folder is made if missing.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
