"""Which processes of a sweep are alive: each holds a lock, and the system lets go of it when the process dies."""

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_FOLDER = "workers"


class Workers:
    """The processes that share a sweep's folder; this one is `name`.

    A process id says less: it means nothing on another machine or in another container, and is used again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._together = FileLock(folder / "sweep.lock")

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """While this lasts, the others see that this process lives."""
        with FileLock(self._file(self.name)):
            yield
        self._file(self.name).unlink(missing_ok=True)  # not after an error: then a trial may still bear this name

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
