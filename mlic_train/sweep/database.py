"""Which processes of a sweep are alive where they share a PostgreSQL database: each holds a lock in it.

The database lets go of such a lock when the connection ends, and the connection ends with the process, kill -9
included: what the locks of files are for the processes of one folder, for any number of machines.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from .workers import unique_name

_DRIVER = "postgresql+psycopg://"
_PATIENCE_SECONDS = 60.0  # how long a database may be away, as it is while it starts again
_PAUSE_SECONDS = 1.0
# A machine that lost its power or its network says no goodbye. Linux would notice after two hours.
_IDLE, _INTERVAL, _COUNT = 30, 10, 3  # seconds until the first question, seconds between them, how many
_SESSION = {
    "tcp_keepalives_idle": _IDLE,
    "tcp_keepalives_interval": _INTERVAL,
    "tcp_keepalives_count": _COUNT,
    "idle_session_timeout": 0,  # since PostgreSQL 14: this connection idles as long as a trial lasts
}


def postgres_url(where: str | None) -> str | None:
    """The URL with its driver, if it is one of PostgreSQL; psycopg where none is named.

    SQLAlchemy before 2.1 would take psycopg2 then, which the extra does not install.
    """
    scheme, separator, rest = (where or "").partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        return None
    return _DRIVER + rest if scheme in ("postgresql", "postgres") else where


def engine_options(url: str) -> dict[str, Any]:
    """What `create_engine` is given for a database at `url`, which has its driver."""
    options: dict[str, Any] = {"pool_pre_ping": True}  # a trial lasts longer than many an idle connection
    if sqlalchemy.make_url(url).get_driver_name() in ("psycopg", "psycopg2"):
        names = ("keepalives_idle", "keepalives_interval", "keepalives_count")
        options["connect_args"] = dict(zip(names, (_IDLE, _INTERVAL, _COUNT), strict=True))
    return options


class DatabaseWorkers:
    """A crew: the processes that share a database, whatever their folders and machines.

    Args:
        url: of the database, with its driver. It has to lead to PostgreSQL itself: a pool of connections between that
            hands out another one for every transaction (PgBouncer's `transaction`) would keep locks of the dead.
    """

    def __init__(self, url: str) -> None:
        self.name = unique_name()
        options = {**engine_options(url), "poolclass": NullPool, "isolation_level": "AUTOCOMMIT"}
        self._engine = sqlalchemy.create_engine(url, **options)
        self._connection: sqlalchemy.Connection | None = None

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """While this lasts, the others see that this process lives."""
        self._connect()
        try:
            yield
        finally:
            self._disconnect()

    def renew(self) -> None:
        """Take the lock again where the connection was lost, and wait a little for a database that is away."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            anew = self._connection is None
            try:
                if anew:
                    self._connect()
                self._ask("SELECT 1")
            except DBAPIError:
                self._disconnect()
                if time.monotonic() > until:
                    raise
                if anew:
                    time.sleep(_PAUSE_SECONDS)
            else:
                return

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Only one process at a time is in here, of all that use the database for sweeps."""
        self.renew()
        key = _key("turn")
        self._ask("SELECT pg_advisory_lock(:key)", key=key)
        try:
            yield
        finally:
            self._ask("SELECT pg_advisory_unlock(:key)", key=key)

    def knows(self, name: str) -> bool:
        """Yes: a process whose lock is not there is dead."""
        return True

    def is_dead(self, name: str) -> bool:
        """Whether that is another process, and has ended or lost its connection."""
        if name == self.name:
            return False
        free = bool(self._ask("SELECT pg_try_advisory_lock(:key)", key=_key(name)))
        if free:
            self._ask("SELECT pg_advisory_unlock(:key)", key=_key(name))
        return free

    def _connect(self) -> None:
        self._connection = self._engine.connect()
        # The name is for whoever looks at pg_stat_activity; it may be cut there.
        for name, value in {**_SESSION, "application_name": f"mlic-sweep {self.name}"}.items():
            known = "SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name"
            self._ask(known, name=name, value=str(value))
        self._ask("SELECT pg_advisory_lock(:key)", key=_key(self.name))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):  # it may be what is broken
                connection.close()

    def _ask(self, statement: str, **values: Any) -> Any:
        if self._connection is None:
            raise RuntimeError("asked outside of alive()")
        return self._connection.execute(sqlalchemy.text(statement), values).scalar()


def _key(name: str) -> int:
    """The number of a lock; PostgreSQL's locks have a signed number of 64 bits for a name."""
    return int.from_bytes(hashlib.sha256(f"mlic-sweep {name}".encode()).digest()[:8], "big", signed=True)
