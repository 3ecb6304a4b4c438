"""Where a study is kept: a journal file by default, or any storage that an Optuna URL names."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from mlic_runtime.base.override import override
from mlic_train.errors import ConfigError, TrainError

from .database import DatabaseLivenessTracker, engine_options, postgres_url
from .liveness import FolderLivenessTracker, LivenessTracker

JOURNAL_NAME = "study.journal"
_SQLITE_WAIT_SECONDS = 60  # SQLite lets one process write at a time


class _JournalLock(JournalFileOpenLock):
    """A lock that the system frees when its process dies, instead of the lock files of the base class.

    Those files stay after a death. Then every process waits for 30 seconds, and after 30 seconds a process that is only
    slow loses its lock, too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    @override
    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    @override
    def release(self) -> None:
        self._lock.release()


class CrashSafeJournal(JournalFileBackend):
    """Optuna's journal file, made safe against a process that dies while it writes a line.

    Optuna itself would append to the half line. It could then never read that line again, nor the study.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock_of_writers = path, _JournalLock(path.with_name(path.name + ".writers"))
        super().__init__(str(path), self._lock_of_writers)

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines after the last whole line, and remove a half line that is there."""
        self._lock_of_writers.acquire()  # Optuna acquires it again, which this lock allows
        try:
            if _ends_in_half_a_line(self._path):
                os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)
            super().append_logs(logs)
        finally:
            self._lock_of_writers.release()


def open_storage(location: str | None, folder: Path) -> BaseStorage:
    """Open or create a storage.

    Args:
        location: a URL that Optuna knows (sqlite:///..., mysql://..., postgresql://..., redis://...), the path of a
            journal file, or None for the journal file in `folder`.
        folder: the sweep's folder.

    Raises:
        ConfigError: the storage cannot be opened.
    """
    with _opening(location, folder):
        if location is None or "://" not in location:
            return JournalStorage(CrashSafeJournal(folder / JOURNAL_NAME if location is None else Path(location)))
        if location.startswith("redis"):
            from optuna.storages.journal import JournalRedisBackend

            return JournalStorage(JournalRedisBackend(location))
        postgres = postgres_url(location)
        if postgres is not None:
            return RDBStorage(postgres, engine_kwargs=engine_options(postgres))
        wait = {"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}} if location.startswith("sqlite") else {}
        return RDBStorage(location, engine_kwargs=wait)


@contextlib.contextmanager
def shared_storage(location: str | None, folder: Path, tracker: LivenessTracker) -> Iterator[BaseStorage]:
    """Open a storage for the context and close it at its end.

    One process at a time opens it, because the first one creates the tables of a new database.
    """
    with tracker.exclusive():
        storage = open_storage(location, folder)
    try:
        yield storage
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


@contextlib.contextmanager
def track_liveness(location: str | None, folder: Path) -> Iterator[LivenessTracker]:
    """Return a context in which the other processes of the study see this one as alive, and it sees them.

    Raises:
        ConfigError: the storage cannot be opened.
        TrainError: the storage went away, and did not come back within a minute.
    """
    url = postgres_url(location)
    with contextlib.ExitStack() as stack:
        with _opening(location, folder):
            tracker = FolderLivenessTracker(folder) if url is None else DatabaseLivenessTracker(url)
            stack.enter_context(tracker.alive())
        try:
            yield tracker
        except (StorageInternalError, DBAPIError) as error:
            cause = error.__cause__ or error
            raise TrainError(
                f"the storage {_display_name(location, folder)} failed: {_in_one_line(cause)}; give the same command "
                "again when it is there: nothing that was finished is lost"
            ) from error


@contextlib.contextmanager
def _opening(location: str | None, folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a storage is opened into a ConfigError of one line."""
    if location is not None and "://" in location:
        _check_password_is_escaped(location)
    try:
        yield
    except Exception as error:  # each driver has its own kinds
        missing = isinstance(error, ImportError) or isinstance(error.__cause__, ImportError)
        advice = "; pip install 'mlic-train[postgres]'" if missing and postgres_url(location) else ""
        raise ConfigError(
            f"the storage {_display_name(location, folder)} cannot be opened: {_in_one_line(error)}{advice}"
        ) from error


def _check_password_is_escaped(url: str) -> None:
    """Refuse a URL whose password would end up in another part of it, and so in the messages of drivers."""
    try:
        mistaken = "@" in (make_url(url).host or "")
    except (ArgumentError, ValueError):
        mistaken = True
    if mistaken:
        raise ConfigError(
            f"the storage {_display_name(url, Path())} is not a URL that can be read; expected "
            "SCHEME://USER:PASSWORD@HOST:PORT/DATABASE with @ : / in the password written as %40 %3A %2F"
        )


def _in_one_line(error: BaseException) -> str:
    """Return the kind and the message of an error without SQLAlchemy's link to its manual."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    return f"{type(original).__name__}: {'; '.join(lines)[:300]}"


def _ends_in_half_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _display_name(location: str | None, folder: Path) -> str:
    """Return the storage as messages name it: a URL without user, password and options, which may hold a password."""
    if location is None or "://" not in location:
        return location or str(folder / JOURNAL_NAME)
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):
        return f"{location.partition('://')[0]}://..."
    # If the @ of a password is not written as %40, the end of the password is a part of the host.
    host = url.host and url.host.rpartition("@")[2]
    return URL.create(url.drivername, host=host, port=url.port, database=url.database).render_as_string()
