"""Which processes of a sweep are alive: each holds a lock, and the system lets go of it when the process dies."""

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

_FOLDER = "workers"


class Crew(Protocol):
    """What a study asks about the processes that share it; this one is `name`."""

    name: str

    def alive(self) -> AbstractContextManager[None]:
        """While this lasts, the others see that this process lives."""

    def renew(self) -> None:
        """Make sure that they still do, before something is built on it."""

    def one_at_a_time(self) -> AbstractContextManager[object]:
        """Only one of the processes is in here at a time."""

    def knows(self, name: str) -> bool:
        """Whether anything can be told about that process."""

    def is_dead(self, name: str) -> bool:
        """Whether that is another process, and known to have ended."""


def unique_name() -> str:
    """A name for this process. A process id says less: it means nothing on another machine, and is used again."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Workers:
    """A crew: the processes that share a sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self.name = unique_name()
        self._together = FileLock(folder / "sweep.lock")

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """While this lasts, the others see that this process lives."""
        with FileLock(self._file(self.name)):
            yield
        self._file(self.name).unlink(missing_ok=True)  # not after an error: then a trial may still bear this name

    def renew(self) -> None:
        """Nothing: only the process itself can let go of a file's lock."""

    def one_at_a_time(self) -> FileLock:
        """The lock that the processes of this folder take turns with."""
        return self._together

    def knows(self, name: str) -> bool:
        """Whether that process shared this folder."""
        return self._file(name).exists()

    def is_dead(self, name: str) -> bool:
        """Whether that process shared this folder and has ended."""
        if name == self.name or not self.knows(name):
            return False
        try:
            with FileLock(self._file(name), timeout=0):
                return True
        except Timeout:
            return False

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
