"""Where a study is kept: a journal file by default, or whatever an Optuna storage URL names."""

import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from mlic_train.errors import ConfigError

JOURNAL_NAME = "study.journal"


class _Writers(JournalFileOpenLock):
    """A lock that the system lets go of when its process dies; in place of the lock files of its base.

    Those stay behind then: everybody waits for 30 seconds, and after as long a process that is merely slow loses its
    own, too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class Journal(JournalFileBackend):
    """Optuna's journal file, which also survives a process that dies while it writes a line.

    Optuna appends to what such a process left, and cannot read the line that comes of it, nor the study, ever again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._writers = path, _Writers(path.with_name(path.name + ".writers"))
        super().__init__(str(path), self._writers)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines to the end, after the last one that is whole."""
        self._writers.acquire()  # and once more by Optuna: the lock counts
        try:
            if _torn(self._path):
                os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)
            super().append_logs(logs)
        finally:
            self._writers.release()


def open_storage(where: str | None, folder: Path) -> BaseStorage:
    """Open or create a storage.

    Args:
        where: a URL that Optuna knows (sqlite:///..., mysql://..., postgresql://..., redis://...), the path of a
            journal file, or None for the journal file in `folder`.
        folder: the sweep's folder.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        if where is None or "://" not in where:
            return JournalStorage(Journal(folder / JOURNAL_NAME if where is None else Path(where)))
        if where.startswith("redis"):
            from optuna.storages.journal import JournalRedisBackend

            return JournalStorage(JournalRedisBackend(where))
        # SQLite lets one process write at a time; the others wait for as long as this.
        patience = {"connect_args": {"timeout": 60}} if where.startswith("sqlite") else {}
        return RDBStorage(where, engine_kwargs=patience)
    except Exception as error:  # of as many kinds as there are drivers
        first = str(error).strip().splitlines() or [""]
        shown = _without_password(where or str(folder / JOURNAL_NAME))
        raise ConfigError(f"the storage {shown} cannot be opened: {type(error).__name__}: {first[0]}") from error


def _torn(path: Path) -> bool:
    """Whether the file's last line has no end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _without_password(where: str) -> str:
    scheme, separator, rest = where.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else where
