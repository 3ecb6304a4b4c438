"""Which processes of a sweep are alive, where they share a PostgreSQL database: each holds an advisory lock in it.

The database frees such a lock when the connection ends, and the connection ends with the process, also after kill -9.
So these locks do for any number of machines what file locks do for the processes that share a folder.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mlic_runtime.base.override import override

from .liveness import LivenessTracker

_DRIVER = "postgresql+psycopg://"
_PATIENCE_SECONDS = 60.0  # how long the database may be away, for example while it restarts
_RETRY_SECONDS = 1.0
# A machine that lost its power or its network does not close its connections. Linux would notice that after two hours.
_KEEPALIVE = {
    "keepalives_idle": 30,  # seconds without traffic before the first probe
    "keepalives_interval": 10,  # seconds between two probes
    "keepalives_count": 3,  # unanswered probes that end the connection
}
_SESSION_SETTINGS = {
    **{f"tcp_{name}": value for name, value in _KEEPALIVE.items()},
    "idle_session_timeout": 0,  # since PostgreSQL 14; this connection is idle for as long as a trial lasts
}


def postgres_url(storage_url: str | None) -> str | None:
    """Return the URL with its driver if it is a PostgreSQL URL, else None; psycopg if it names no driver.

    SQLAlchemy before 2.1 would choose psycopg2, which the extra `postgres` does not install.
    """
    scheme, separator, rest = (storage_url or "").partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        return None
    return _DRIVER + rest if scheme in ("postgresql", "postgres") else storage_url


def engine_options(url: str) -> dict[str, Any]:
    """Return the arguments of `create_engine` for a PostgreSQL URL that names its driver."""
    options: dict[str, Any] = {"pool_pre_ping": True}  # a trial may last longer than an idle connection
    if sqlalchemy.make_url(url).get_driver_name() in ("psycopg", "psycopg2"):
        options["connect_args"] = _KEEPALIVE
    return options


class DatabaseLivenessTracker(LivenessTracker):
    """Advisory locks of the processes that share a database, on any number of machines.

    Args:
        url: the database, with its driver. It must lead to PostgreSQL itself. A connection pool in between that gives
            each transaction another connection (PgBouncer's `transaction` mode) would keep the locks of dead processes.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        options = {**engine_options(url), "poolclass": NullPool, "isolation_level": "AUTOCOMMIT"}
        self._engine = sqlalchemy.create_engine(url, **options)
        self._connection: sqlalchemy.Connection | None = None

    @override
    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        self._connect()
        try:
            yield
        finally:
            self._disconnect()

    @override
    def renew(self) -> None:
        """Take the lock again if the connection was lost; wait up to a minute for a database that is away."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            reconnecting = self._connection is None
            try:
                if reconnecting:
                    self._connect()
                self._execute("SELECT 1")
            except DBAPIError:
                self._disconnect()
                if time.monotonic() > deadline:
                    raise
                if reconnecting:
                    time.sleep(_RETRY_SECONDS)
            else:
                return

    @override
    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Return a context that only one process can be in, of all that use the database for sweeps."""
        self.renew()
        key = _lock_key("turn")
        self._execute("SELECT pg_advisory_lock(:key)", key=key)
        try:
            yield
        finally:
            self._execute("SELECT pg_advisory_unlock(:key)", key=key)

    @override
    def knows(self, name: str) -> bool:
        """Return True: a process without a lock is dead."""
        return True

    @override
    def is_dead(self, name: str) -> bool:
        """Return whether the named process is another one, and has ended or lost its connection."""
        if name == self.name:
            return False
        dead = bool(self._execute("SELECT pg_try_advisory_lock(:key)", key=_lock_key(name)))
        if dead:
            self._execute("SELECT pg_advisory_unlock(:key)", key=_lock_key(name))
        return dead

    def _connect(self) -> None:
        self._connection = self._engine.connect()
        # The name is for people who read pg_stat_activity, where PostgreSQL may cut it.
        for name, value in {**_SESSION_SETTINGS, "application_name": f"mlic-sweep {self.name}"}.items():
            set_if_known = "SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name"
            self._execute(set_if_known, name=name, value=str(value))
        self._execute("SELECT pg_advisory_lock(:key)", key=_lock_key(self.name))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):  # the connection may be what is broken
                connection.close()

    def _execute(self, statement: str, **values: Any) -> Any:
        """Run a statement and return the first value of its first row."""
        if self._connection is None:
            raise RuntimeError("used outside of alive()")
        return self._connection.execute(sqlalchemy.text(statement), values).scalar()


def _lock_key(name: str) -> int:
    """Return the number of a lock: PostgreSQL names advisory locks by signed 64-bit integers."""
    return int.from_bytes(hashlib.sha256(f"mlic-sweep {name}".encode()).digest()[:8], "big", signed=True)
