"""What a server refuses besides bad pictures and captions. The names are the `type` of the answers."""

from typing import ClassVar

from mlic_runtime.errors import InputError, MlicError


class ServeError(MlicError):
    """The server cannot start."""


class RequestError(InputError):
    """A request that is not what the route takes.

    Attributes:
        status: of the HTTP answer.
        headers: of the HTTP answer.
    """

    status: ClassVar[int] = 400
    headers: ClassVar[dict[str, str]] = {}


class UnauthorizedError(RequestError):
    """The token is missing or wrong."""

    status = 401
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer, Basic realm="mlic", charset="UTF-8"'}


class NotFoundError(RequestError):
    """There is no such route or model."""

    status = 404


class MethodNotAllowedError(RequestError):
    """The route has no such method."""

    status = 405


class RequestTimeoutError(RequestError):
    """The request did not arrive in time."""

    status = 408


class RequestTooLargeError(RequestError):
    """The request has too many bytes or pictures."""

    status = 413


class UnsupportedMediaTypeError(RequestError):
    """The request is neither multipart/form-data nor JSON."""

    status = 415


class ServerBusyError(RequestError):
    """The queue is full; try again later."""

    status = 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}
