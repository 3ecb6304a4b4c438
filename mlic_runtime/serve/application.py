"""The routes of the server, as an ASGI application: `create_application`."""

import base64
import binascii
import contextlib
import hmac
import logging
import time
from asyncio import get_running_loop
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlic_runtime.errors import InputError, MlicError
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.version import __version__

from .answers import error_dict, json_response, result_dict
from .batching import Batcher
from .errors import MethodNotAllowedError, NotFoundError, RequestError, UnauthorizedError
from .metrics import Metrics
from .open_inference import infer_response, model_metadata, parse_infer
from .openapi import describe
from .page import page_application
from .requests import PredictRequest, Receiver, parse_request
from .settings import ServeSettings

_OPEN = ("/v2/health/live", "/v2/health/ready")  # need no token: who asks them has none, and they say nothing
_CLIENT_GONE = 499  # nginx' code for it; nobody receives it
_log = logging.getLogger("mlic_runtime.serve")


def create_application(predictor: Predictor, settings: ServeSettings) -> ASGIApp:
    """Return the application; its lifespan has to run around it, as every ASGI server does."""
    service = _Service(predictor, settings)
    return _Guard(service.starlette(), service.metrics, settings.token)


class _Service:
    """The handlers of all routes; the name of each is the label `handler` of the metrics."""

    def __init__(self, predictor: Predictor, settings: ServeSettings) -> None:
        self._predictor = predictor
        self._manifest = predictor.manifest
        self._settings = settings
        self.metrics = Metrics(predictor.manifest.title)
        self._batcher = Batcher(predictor, settings, self.metrics.batch)
        self.metrics.watch_queue(lambda: self._batcher.accepted)
        self._receiver = Receiver(settings)
        self._page = page_application(settings.page)

    def starlette(self) -> Starlette:
        """Return the application without what `_Guard` does."""
        starlette = Starlette(
            routes=self._routes(),
            lifespan=self._lifespan,
            exception_handlers={
                HTTPException: _refuse_route,
                MlicError: _refuse,
                ClientDisconnect: _client_gone,
                Exception: _internal_error,
            },
        )
        starlette.router.default = self._page  # after the routes, so that a wrong method for one of them is told
        return starlette

    def _routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            Route("/v1/predict", self.predict, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v2", self.server_metadata, methods=["GET"]),
            Route("/v2/health/live", self.health, methods=["GET"]),
            Route("/v2/health/ready", self.health, methods=["GET"]),
            Route("/metrics", self.show_metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]
        for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(prefix, self.model_metadata, methods=["GET"]),
                Route(f"{prefix}/ready", self.model_ready, methods=["GET"]),
                Route(f"{prefix}/infer", self.infer, methods=["POST"]),
            ]
        return [*routes, Route("/", self._page, methods=["GET"])]

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self._batcher:
            yield

    async def _answer(self, asked: PredictRequest) -> list[Prediction | InputError]:
        results = await self._batcher.predict(asked.rows, asked.options, evidence=asked.evidence)
        bad = sum(isinstance(result, InputError) for result in results)
        self.metrics.predicted(len(results) - bad, bad)
        return results

    async def predict(self, request: Request) -> Response:
        async with self._receiver.body(request) as body:
            asked = await parse_request(request, body, self._settings)
            results = await self._answer(asked)
        if asked.many:
            return json_response({"predictions": [result_dict(result) for result in results]})
        if isinstance(results[0], InputError):
            raise results[0]
        return json_response(result_dict(results[0]))

    async def models(self, request: Request) -> Response:
        manifest, predictor = self._manifest, self._predictor
        image = manifest.image
        model = {
            "name": manifest.name,
            "version": manifest.version,
            "precision": predictor.precision,
            "provider": predictor.session.provider,
            "reads_caption": manifest.text is not None,
            "evidence": "contributions" if predictor.session.explains else "occlusion",
            "image": {"height": image.height, "width": image.width, "resize": image.resize},
            "labels": [{"name": label.name, "threshold": label.threshold} for label in manifest.labels],
        }
        return json_response({"models": [model]})

    async def server_metadata(self, request: Request) -> Response:
        return json_response({"name": "mlic-serve", "version": __version__, "extensions": []})

    async def health(self, request: Request) -> Response:
        return json_response({request.url.path.rpartition("/")[2]: True})

    async def model_metadata(self, request: Request) -> Response:
        self._check_model(request)
        return json_response(model_metadata(self._manifest))

    async def model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return json_response({"name": self._manifest.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        self._check_model(request)
        async with self._receiver.body(request) as body:
            reads_caption = self._manifest.text is not None
            asked = await get_running_loop().run_in_executor(
                None, lambda: parse_infer(body, self._settings, reads_caption=reads_caption)
            )
            results = await self._answer(PredictRequest(asked.rows, PredictionOptions()))
        return json_response(infer_response(self._manifest, asked, results))

    def _check_model(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", self._manifest.version)
        if (name, version) != (self._manifest.name, self._manifest.version):
            raise NotFoundError(f"this server has only the model {self._manifest.title}")

    async def show_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": self.metrics.content_type})

    async def openapi(self, request: Request) -> Response:
        return json_response(describe(self._manifest, self._settings))


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refused: RequestError = MethodNotAllowedError(f"{request.url.path} does not take {request.method}")
    elif error.status_code == 404:
        refused = NotFoundError("there is no such route; GET /openapi.json lists all")
    else:
        refused = RequestError(error.detail)
    return json_response(error_dict(refused), error.status_code, error.headers)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, MlicError)
    if isinstance(error, RequestError):
        return json_response(error_dict(error), error.status, error.headers)
    if isinstance(error, InputError):
        return json_response(error_dict(error), 400)
    return await _internal_error(request, error)


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _internal_error(request: Request, error: Exception) -> Response:
    _log.error("a request failed: this is a bug", exc_info=error)
    return json_response({"error": "the server failed; its log says why", "type": "InternalError"}, 500)


class _Guard:
    """What holds for every request: the token, the metrics, no trace to the client."""

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str | None) -> None:
        self._app = app
        self._metrics = metrics
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or run the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = _CLIENT_GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._allowed(scope):
                await self._app(scope, receive, noted)
            else:
                error = UnauthorizedError("the token is missing or wrong: send it as Authorization: Bearer TOKEN")
                await json_response(error_dict(error), error.status, error.headers)(scope, receive, noted)
        except Exception:
            if status == _CLIENT_GONE:
                raise
            # `_internal_error` has logged it and has answered; Starlette raises it again.
        finally:
            endpoint = scope.get("endpoint")
            # What is no route goes to the page, which may not know it either.
            handler = getattr(endpoint, "__name__", "none" if status == 404 else "page")
            self._metrics.request(handler, status, time.perf_counter() - start)

    def _allowed(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in _OPEN:
            return True
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        found = _token_of(values[0]) if len(values) == 1 else b""
        return hmac.compare_digest(found, self._token.encode())


def _token_of(header: bytes) -> bytes:
    """Return the token of `Bearer TOKEN`, or the password of `Basic`, which browsers ask for; b"" without one."""
    kind, _, value = header.strip().partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    return b""
