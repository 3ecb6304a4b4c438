"""`mlic-serve`. Its heavy imports are inside functions, so that `--help` loads none of them."""

import functools
import ipaddress
import os
from pathlib import Path
from typing import Any

import click

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.text import printable
from mlic_runtime.errors import InputError, MlicError
from mlic_runtime.limits import (
    MAX_CONNECTIONS,
    MAX_PIXELS,
    MAX_QUEUE,
    MAX_RECEIVED_BYTES,
    MAX_REQUEST_BYTES,
    MAX_REQUEST_INPUTS,
    MAX_TOKEN_BYTES,
)
from mlic_runtime.version import __version__

from .command import MlicCommand
from .options import HeadedOption, model_options

_limit_option = functools.partial(click.option, cls=HeadedOption, heading="Limits", show_default=True)
_batch_option = functools.partial(click.option, cls=HeadedOption, heading="Batches", show_default=True)


@click.command(
    cls=MlicCommand,
    epilog="Example:  mlic-serve --port 8000, then  curl -F image=@beach.jpg -F 'caption=A dog runs on the beach' "
    "http://127.0.0.1:8000/v1/predict",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on. 0.0.0.0: every one of this machine."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on. 0: a free one."
)
@click.option(
    "--token",
    envvar="MLIC_TOKEN",
    help="Answer only who sends this token (Authorization: Bearer TOKEN; in a browser, as the password). Other users "
    "of this machine can see it here: better use --token-file or the environment.  [default: $MLIC_TOKEN, else none]",
)
@click.option("--token-file", type=click.Path(), metavar="FILE", help="Read the token from the first line of FILE.")
@click.option(
    "--page",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Serve the static files of FOLDER at /. The page of a site that mlic-export --layout web wrote then uses the "
    "server or the browser.  [default: a page that uses the server]",
)
@click.option(
    "--batch-size",
    cls=HeadedOption,
    heading="Batches",
    type=click.IntRange(1),
    help="The most pictures that share a run of the graph.  [default: 4 on the CPU, else 16]",
)
@_batch_option(
    "--max-wait",
    type=click.FloatRange(0),
    default=5.0,
    metavar="MILLISECONDS",
    help="How long a picture waits for others to share its run; one that is alone does not wait.",
)
@click.option(
    "--workers",
    cls=HeadedOption,
    heading="Batches",
    type=click.IntRange(1),
    help="Threads that decode pictures.  [default: one per CPU that this process may use]",
)
@_limit_option(
    "--max-queue",
    type=click.IntRange(1),
    default=MAX_QUEUE,
    help="Pictures that are accepted and not yet answered; more get 503 and Retry-After.",
)
@_limit_option("--max-inputs", type=click.IntRange(1), default=MAX_REQUEST_INPUTS, help="Pictures in one request.")
@_limit_option("--max-body", type=click.IntRange(1), default=MAX_REQUEST_BYTES, help="Bytes of one request.")
@_limit_option(
    "--max-received",
    type=click.IntRange(1),
    default=MAX_RECEIVED_BYTES,
    help="Bytes of all requests that are not yet answered; more get 503 and Retry-After.",
)
@_limit_option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, help="Pixels of a picture (width x height).")
@_limit_option("--max-connections", type=click.IntRange(1), default=MAX_CONNECTIONS, help="Open connections.")
@_limit_option(
    "--receive-timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="Time for a whole request to arrive.",
)
@_limit_option(
    "--send-timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    metavar="SECONDS",
    help="Time for a client to take a part of its answer.",
)
@_limit_option(
    "--header-timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    metavar="SECONDS",
    help="Time for the head of a request to arrive, and for a connection to be idle.",
)
@_limit_option(
    "--shutdown-timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    metavar="SECONDS",
    help="Time to finish accepted requests after SIGTERM or Ctrl-C.",
)
@model_options()
@click.version_option(__version__, prog_name="mlic-serve")
def serve(
    host: str,
    port: int,
    token: str | None,
    token_file: str | None,
    page: str | None,
    max_wait: float,
    model: str | None,
    max_pixels: int,
    **more: Any,
) -> None:
    """Answer predictions over HTTP, until SIGTERM or Ctrl-C.

    POST /v1/predict takes a form with a picture and a caption, or JSON; GET /openapi.json describes all routes. Only
    programs on this machine can connect unless --host says otherwise. Pictures are neither written to disk nor logged.
    """
    token = _read_token(token, token_file)
    modules = _require()
    loading = {name: more.pop(name) for name in ("precision", "provider", "threads", "spin", "cache")}
    from mlic_runtime.predict.predictor import Predictor

    predictor = Predictor.load(model, max_pixels=max_pixels, **loading)
    settings = modules.settings(
        token=token, page=None if page is None else Path(page), max_wait=max_wait / 1000, **more
    )
    if token is None and not _is_loopback(host):
        click.echo("Note: everybody who can reach this machine may ask; --token-file says who.", err=True)
    runs = f"{predictor.manifest.title} ({predictor.precision} on {predictor.session.provider})"
    modules.serve(
        predictor, settings, host, port, lambda address: click.echo(printable(f"Serving {runs} at {address}"), err=True)
    )


class _Modules:
    """What needs the extra."""

    def __init__(self) -> None:
        from mlic_runtime.serve.server import serve
        from mlic_runtime.serve.settings import ServeSettings

        self.serve, self.settings = serve, ServeSettings


def _require() -> _Modules:
    try:
        return _Modules()
    except ImportError as error:
        raise MlicError(f"mlic-serve needs {error.name}: pip install 'mlic-runtime[serve]'") from error


def _read_token(token: str | None, file: str | None) -> str | None:
    """Return the token of the option, of the environment or of the file, which goes before the environment."""
    if file is not None:
        context = click.get_current_context()
        if context.get_parameter_source("token") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("'--token' and '--token-file' exclude each other.", context)
        try:
            with open_regular(file) as stream:
                line = stream.readline(MAX_TOKEN_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot read the token from {file!r}: {os_error_reason(error)}") from error
        token = line.decode("utf-8", "replace").strip()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token and token):
        raise InputError("the token must be one word of printable ASCII characters, such as of: openssl rand -hex 32")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """Run the console script `mlic-serve`."""
    # numpy's OpenBLAS would start a thread for each CPU, in 80 ms of CPU time; nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    serve(prog_name="mlic-serve")
