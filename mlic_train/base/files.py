"""Files and folders that are never seen half-written."""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlic_runtime.base.files import reason, temporary_folder
from mlic_runtime.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> bool:
    """Let two paths on one file system trade places, so that a kill at any moment finds something at both.

    By renameat2 of Linux, which Python does not offer.

    Returns:
        Whether that was done; not on other systems, nor where the file system cannot.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path for a new file, which is synced and renamed to `path` on success, removed on failure.

    Raises:
        OutputError: it cannot be written; what is at `path` is as it was.
    """
    with _refusing(path), temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written.

    Raises:
        OutputError: it cannot be written; what is at `path` is as it was.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder; it takes the place of `path`, a folder or nothing, on success and goes on failure.

    Raises:
        OutputError: it cannot be written; what is at `path` is as it was.
    """
    with _refusing(path), temporary_folder(path) as folder:
        aside = path.with_name(f".{path.name}.old")
        if aside.exists() and not path.exists():  # killed between two renames, see below
            aside.rename(path)
        new = folder / path.name
        new.mkdir()
        new.chmod(0o755)
        yield new
        if not path.exists():
            new.rename(path)
        elif not exchange(new, path):
            _replace_folder(new, path, aside)


def _replace_folder(new: Path, old: Path, aside: Path) -> None:
    """Put the folder `new` in the place of `old`: two renames, and `old` is back if the second fails."""
    shutil.rmtree(aside, ignore_errors=True)
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say in one line that `path` cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {reason(error)}; what was there is unchanged: mend that and try again"
        ) from error
