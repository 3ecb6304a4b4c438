"""Files that others chose: regular files only, never a wait, and a limit for pictures; streams that others gave."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError

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
