"""Where a study is kept: a journal file by default, or whatever an Optuna storage URL names."""

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

from mlic_train.errors import ConfigError, TrainError

from .database import DatabaseWorkers, engine_options, postgres_url
from .workers import Crew, Workers

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
    with _opening(where, folder):
        if where is None or "://" not in where:
            return JournalStorage(Journal(folder / JOURNAL_NAME if where is None else Path(where)))
        if where.startswith("redis"):
            from optuna.storages.journal import JournalRedisBackend

            return JournalStorage(JournalRedisBackend(where))
        postgres = postgres_url(where)
        if postgres is not None:
            return RDBStorage(postgres, engine_kwargs=engine_options(postgres))
        # SQLite lets one process write at a time; the others wait for as long as this.
        patience = {"connect_args": {"timeout": 60}} if where.startswith("sqlite") else {}
        return RDBStorage(where, engine_kwargs=patience)


@contextlib.contextmanager
def storage(where: str | None, folder: Path, workers: Crew) -> Iterator[BaseStorage]:
    """`open_storage`, one process at a time, for a database that is new gets its tables from one; closed in the end."""
    with workers.one_at_a_time():
        found = open_storage(where, folder)
    try:
        yield found
    finally:
        if isinstance(found, RDBStorage):
            found.remove_session()
            found.engine.dispose()


@contextlib.contextmanager
def crew(where: str | None, folder: Path) -> Iterator[Crew]:
    """The processes that share the study, of which this one is seen to live while this lasts.

    Raises:
        ConfigError: the storage cannot be opened.
        TrainError: it went away, and did not come back for a minute.
    """
    url = postgres_url(where)
    with contextlib.ExitStack() as stack:
        with _opening(where, folder):
            workers: Crew = Workers(folder) if url is None else DatabaseWorkers(url)
            stack.enter_context(workers.alive())
        try:
            yield workers
        except (StorageInternalError, DBAPIError) as error:
            cause = error.__cause__ or error
            raise TrainError(
                f"the storage {_shown(where, folder)} failed: {_first_words(cause)}; give the same command again when "
                "it is there: nothing that was finished is lost"
            ) from error


@contextlib.contextmanager
def _opening(where: str | None, folder: Path) -> Iterator[None]:
    if where is not None and "://" in where:
        _check(where)
    try:
        yield
    except Exception as error:  # of as many kinds as there are drivers
        missing = isinstance(error, ImportError) or isinstance(error.__cause__, ImportError)
        advice = "; pip install 'mlic-train[postgres]'" if missing and postgres_url(where) else ""
        raise ConfigError(
            f"the storage {_shown(where, folder)} cannot be opened: {_first_words(error)}{advice}"
        ) from error


def _check(where: str) -> None:
    """Refuse a URL of which a password would end up in another part, and so in what drivers say of it."""
    try:
        mistaken = "@" in (make_url(where).host or "")
    except (ArgumentError, ValueError):
        mistaken = True
    if mistaken:
        raise ConfigError(
            f"the storage {_shown(where, Path())} is no URL that can be read; expected "
            "SCHEME://USER:PASSWORD@HOST:PORT/DATABASE with @ : / in the password written as %40 %3A %2F"
        )


def _first_words(error: BaseException) -> str:
    """The kind of an error and what it says, in one line, without SQLAlchemy's link to its manual."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return f"{type(error).__name__}: {'; '.join(lines)[:300]}"


def _torn(path: Path) -> bool:
    """Whether the file's last line has no end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _shown(where: str | None, folder: Path) -> str:
    """The storage as errors name it: of a URL neither user nor password nor options, which may hold a password, too."""
    if where is None or "://" not in where:
        return where or str(folder / JOURNAL_NAME)
    scheme = where.partition("://")[0]
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        return f"{scheme}://..."
    # A password's @ that is not written as %40 leaves its end with the host.
    host = url.host and url.host.rpartition("@")[2]
    return URL.create(url.drivername, host=host, port=url.port, database=url.database).render_as_string()
