"""Files and folders that a user asked for, written as in `files`: an error is one line that says what to do."""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlic_runtime.base.files import atomic_file, os_error_reason, temporary_folder
from mlic_runtime.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths on one file system in one step, so that a kill at any moment leaves something at both.

    It uses renameat2 of Linux, which Python does not offer.

    Returns:
        Whether that was done. It is not on other systems, nor on file systems that cannot exchange.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Make a file to be written inside the block, then rename it to `path`; see `atomic_file`.

    Raises:
        OutputError: it cannot be written; what was at `path` is unchanged.
    """
    with _as_output_error(path), atomic_file(path, mode=0o644) as temporary:
        yield temporary


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written.

    Raises:
        OutputError: it cannot be written; what was at `path` is unchanged.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a folder to be filled inside the block, then put it in the place of `path`, a folder or nothing.

    If the block fails, the new folder is removed.

    Raises:
        OutputError: it cannot be written; what was at `path` is unchanged.
    """
    with _as_output_error(path), temporary_folder(path) as folder:
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
    """Put the folder `new` in the place of `old` by two renames; `old` comes back if the second fails."""
    shutil.rmtree(aside, ignore_errors=True)
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` into one line that says that `path` cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {os_error_reason(error)}; what was there is unchanged: mend that and try again"
        ) from error
