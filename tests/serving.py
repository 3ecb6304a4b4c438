"""What the tests of mlic-serve share: the application without a socket, and a process with one."""

import asyncio
import base64
import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

import mlic_runtime
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.serve.application import create_application
from mlic_runtime.serve.settings import ServeSettings

SECONDS = 120  # turns a hang into a failure


@contextlib.asynccontextmanager
async def client_of(predictor: Predictor, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that runs in this event loop."""
    app = create_application(predictor, ServeSettings(**settings))
    incoming: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    outgoing: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, incoming.get, outgoing.put))
    await incoming.put({"type": "lifespan.startup"})
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=SECONDS) as client:
        yield client
    await incoming.put({"type": "lifespan.shutdown"})
    await lifespan
    assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"


def picture(colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (9, 7)) -> bytes:
    stream = BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def pictures(count: int) -> list[bytes]:
    dice = np.random.default_rng(3)
    return [picture((int(dice.integers(256)), int(dice.integers(256)), 9), (8 + index, 9)) for index in range(count)]


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextlib.contextmanager
def server(
    model: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process of mlic-serve on a free port, and the port."""
    path = os.pathsep.join(filter(None, [str(Path(mlic_runtime.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", "from mlic_runtime.cli.serve import main; main()"]
    process = subprocess.Popen(
        [*command, "--model", str(model), "--port", "0", *arguments],
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"Serving .+ at http://127\.0\.0\.1:(\d+)\n", line)
        assert found, line + process.stderr.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait(SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection, in whatever way."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            found += data
    return found
