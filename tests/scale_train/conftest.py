"""A PostgreSQL server for the tests alone."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from mlic_train.sweep.database import postgres_url
from tests.train.conftest import colours as colours


class Server(NamedTuple):
    """A running server: its address, its user and password, and a function that restarts it."""

    address: str
    user: str
    password: str
    restart: Callable[[], None]

    def url(self, database: str) -> str:
        """Return the URL for `--storage`."""
        return f"postgresql://{self.user}:{self.password}@{self.address}/{database}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Run PostgreSQL on a free port of 127.0.0.1, with a password, in a temporary folder."""
    user: dict[str, Any] = {}
    # Not pytest's folder: when root runs the tests, only root may enter it, and PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="mlic-postgres-"))
    if os.geteuid() == 0:
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    password, data = secrets.token_hex(8), folder / "data"

    def call(program: str, *arguments: object) -> None:
        command = [_program(program), *map(str, arguments)]
        with (folder / "log").open("a") as log:  # the server would keep a pipe open
            done = subprocess.run(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **user, check=False
            )
        assert done.returncode == 0, (folder / "log").read_text()

    try:
        (folder / "password").write_text(password)
        (folder / "password").chmod(0o644)  # nobody else may enter the folder
        call("initdb", "-D", data, "-U", "sweeper", "-A", "scram-sha-256", "--pwfile", folder / "password", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
        call("pg_ctl", "-D", data, "-o", settings, "-w", "start")
        try:
            yield Server(
                f"127.0.0.1:{port}",
                "sweeper",
                password,
                lambda: call("pg_ctl", "-D", data, "-m", "fast", "-w", "restart"),
            )
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@contextmanager
def admin(server: Server) -> Iterator[sqlalchemy.Connection]:
    """Connect to a database that no test uses."""
    url = str(postgres_url(server.url("postgres")))
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def database(server: Server) -> str:
    """Return the URL of an empty database."""
    name = f"d{secrets.token_hex(4)}"
    with admin(server) as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    return server.url(name)


def _program(name: str) -> str:
    """Return the path of a server program: Debian keeps them in a folder for each version, which is not in the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(places[-1]) if places else None)
    assert found is not None, (
        f"PostgreSQL's {name} was not found: install Debian's package postgresql, or run scripts/test-postgres"
    )
    return found
