"""A folder that pictures come into: each is a row once it is complete."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TypeAlias

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.text import one_line
from mlic_runtime.errors import InputError
from mlic_runtime.picture.signatures import is_picture_file

from .folder import PassedOver, entries_of, find_pictures, with_sidecar
from .row import Row
from .sidecar import SIDECAR_SUFFIX

_State: TypeAlias = tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]


class WatchedFolder:
    """Gives each picture of a folder once, when it is complete.

    A picture is complete when it has some bytes and when, between one look and the next, neither it nor the caption
    beside it has changed in size, time or identity. So a file that is being written waits, and so does one that was
    renamed to its place, for one look. A file of a name that was given is never given again, even if it is replaced.

    Args:
        folder: is searched with its subfolders, without hidden files, as `read_folder` does.
        done: names, relative to the folder, that are not given.
        captions: whether the .txt files beside pictures are their captions.

    Attributes:
        waiting: how many pictures were there at the last look and were not complete.
        passed_over: what was no picture at the last look.
    """

    def __init__(self, folder: Path, done: Iterable[str] = (), *, captions: bool = True) -> None:
        self._folder = folder
        self._done = set(done)
        self._captions = captions
        self._before: dict[str, _State] = {}
        self.passed_over = PassedOver()

    @property
    def waiting(self) -> int:
        """How many pictures were there at the last look and were not complete."""
        return len(self._before)

    def look(self) -> list[Row]:
        """Return the pictures that are complete now, in the order of their names.

        Raises:
            InputError: the folder cannot be listed.
        """
        if not self._folder.is_dir():
            raise InputError(f"{one_line(str(self._folder))} is not a folder; expected one to watch")
        self.passed_over = PassedOver()
        found = find_pictures(
            PurePath(), self._list, lambda inside: is_picture_file(self._folder / inside), self.passed_over
        )
        now: dict[str, _State] = {}
        complete: list[Row] = []
        for inside in found:
            name = str(inside)
            if name in self._done:
                continue
            path = self._folder / inside
            state = _state(path), _state(path.with_name(f"{path.stem}{SIDECAR_SUFFIX}"))
            if state[0] is None:  # gone since it was listed
                continue
            if state[0][0] and state == self._before.get(name):
                self._done.add(name)
                row = with_sidecar(name, path) if self._captions else Row(name=name)
                complete.append(row if row.error else replace(row, image=path))
            else:
                now[name] = state
        self._before = now
        return complete

    def _list(self, inside: PurePath) -> list[tuple[str, bool]]:
        try:
            return entries_of(self._folder / inside)
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError) and inside.parts:
                return []  # a subfolder that is gone since it was listed
            raise


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return size, time and identity of a file; None without it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot look at {one_line(str(path))}: {os_error_reason(error)}") from error
    return status.st_size, status.st_mtime_ns, status.st_ino
