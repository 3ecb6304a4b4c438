"""The application on a socket: `serve` runs until SIGTERM or SIGINT."""

import asyncio
import functools
import signal
import socket
from collections.abc import Callable
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.override import override
from mlic_runtime.base.text import encode, to_json
from mlic_runtime.predict.predictor import Predictor

from .answers import error_dict
from .application import create_application
from .errors import RequestError, ServeError
from .settings import ServeSettings

_OTHER_FILES = 256  # that a server may have open besides its connections


def serve(
    predictor: Predictor,
    settings: ServeSettings,
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve a model until SIGTERM or SIGINT; what was accepted is finished first.

    Args:
        predictor: the model.
        settings: what the server does and refuses.
        host: a name or an address of this machine.
        port: 0 means one that is free.
        ready: called with the address, http://HOST:PORT, once requests are taken.

    Raises:
        ServeError: it cannot listen there.
    """
    listening = _listen(host, port)
    _allow_files(settings.max_connections + _OTHER_FILES)
    config = uvicorn.Config(
        create_application(predictor, settings),
        http=functools.partial(_Protocol, settings=settings),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.header_timeout) or 1,
        timeout_graceful_shutdown=int(settings.shutdown_timeout) or 1,
    )
    found = listening.getsockname()
    shown = f"[{found[0]}]" if ":" in found[0] else found[0]
    # uvicorn raises the signal again when everything is finished; the process then ends with exit code 0.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Server(config, lambda: ready(f"http://{shown}:{found[1]}")).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()


def _allow_files(count: int) -> None:
    """Raise this process' limit of open files to `count`, as far as it may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # to restart at once
            listening.bind(address)
            listening.listen(2048)
        except BaseException:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = os_error_reason(error) if isinstance(error, OSError) else "no name of a machine"
        raise ServeError(f"cannot listen on {host}:{port}: {reason}") from None
    return listening


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()


class _Protocol(H11Protocol):
    """uvicorn's protocol, with a bound on connections and on how long one may send no whole head of a request."""

    # The connections without a request in progress, the one that is idle for longest first.
    _idle: ClassVar[dict["_Protocol", None]] = {}

    def __init__(self, *args: Any, settings: ServeSettings, **more: Any) -> None:
        super().__init__(*args, **more)
        self._settings = settings
        self._timer: asyncio.TimerHandle | None = None
        self._slow_reader: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self._settings.max_connections and self._idle:
            next(iter(self._idle))._close()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()  # the client does not take what was sent
        self._slow_reader = self.loop.call_later(self._settings.send_timeout, self._close)

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._slow_reader is not None:
            self._slow_reader.cancel()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if self._slow_reader is not None:
            self._slow_reader.cancel()
        super().connection_lost(exc)

    @override
    def send_400_response(self, msg: str) -> None:
        content = encode(to_json(error_dict(RequestError(f"no HTTP/1.1 request: {msg}")), indent=None))
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Start the timer where the connection has become idle, and stop it where a request is in progress."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self._settings.header_timeout, self._close)
            self._idle[self] = None

    def _stop(self) -> None:
        self._idle.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._stop()
        self.transport.abort()
