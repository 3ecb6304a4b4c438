"""Which processes of a sweep are alive: each holds a lock, and the system frees the lock when the process dies."""

import contextlib
import os
import re
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from mlic_runtime.base.override import override


class LivenessTracker(ABC):
    """What a study asks about the processes that share it.

    Attributes:
        name: this process. A process id is not enough: it means nothing on another machine, and it is used again.
    """

    def __init__(self) -> None:
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @abstractmethod
    def alive(self) -> AbstractContextManager[None]:
        """Show the other processes that this one lives, for as long as the context lasts."""

    @abstractmethod
    def renew(self) -> None:
        """Make sure that the other processes still see this one as alive."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[object]:
        """Return a context that only one of the processes can be in at a time."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Return whether this process can tell if the named process is alive."""

    @abstractmethod
    def is_dead(self, name: str) -> bool:
        """Return whether the named process is another one and is known to have ended."""


class FolderLivenessTracker(LivenessTracker):
    """File locks of the processes that share a sweep's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._locks = folder / "workers"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._exclusive = FileLock(folder / "sweep.lock")

    @override
    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        with FileLock(self._lock_file(self.name)):
            yield
        # The file stays after an error: a trial may still have this process's name.
        self._lock_file(self.name).unlink(missing_ok=True)

    @override
    def renew(self) -> None:
        """Do nothing: only the process itself can release a file lock."""

    @override
    def exclusive(self) -> FileLock:
        return self._exclusive

    @override
    def knows(self, name: str) -> bool:
        return self._lock_file(name).exists()

    @override
    def is_dead(self, name: str) -> bool:
        if name == self.name or not self.knows(name):
            return False
        try:
            with FileLock(self._lock_file(name), timeout=0):
                return True
        except Timeout:
            return False

    def _lock_file(self, name: str) -> Path:
        return self._locks / f"{name}.lock"
