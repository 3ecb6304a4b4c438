"""What a request asks for: its body, bounded in bytes and time, then `PredictRequest` from JSON or a form."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mlic_runtime.base.override import override
from mlic_runtime.base.text import error_line
from mlic_runtime.base.typed_json import MAY_BE_MISSING, TypedJsonError, build, parse_object, shown
from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_FORM_FIELDS, MAX_JSON_VALUES, MAX_ROW_BYTES
from mlic_runtime.predict.prediction import PredictionOptions
from mlic_runtime.rows.row import Row

from .errors import (
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerBusyError,
    UnsupportedMediaTypeError,
)
from .settings import ServeSettings

_FORM_CHUNK = 256 * 1024  # of a form, parsed at a time: other requests have their turn between two of them


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What is to be predicted.

    Attributes:
        rows: the inputs; one that cannot be read has an `error`.
        options: how probabilities become predictions.
        evidence: whether the answer says where the labels come from.
        many: whether the answer is a list, because the request had one.
    """

    rows: tuple[Row, ...]
    options: PredictionOptions
    evidence: bool = False
    many: bool = False


class Receiver:
    """Receives the bodies of requests, and bounds what all of them take together.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._free = settings.max_received

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Receive the body of a request; its bytes count until the context ends.

        Raises:
            RequestError: it is too large, too slow or compressed, or there is no room for it now.
            ClientDisconnect: the client is gone.
        """
        limit = self._settings.max_body
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaTypeError("found a compressed body (Content-Encoding); expected a plain one")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            raise RequestTooLargeError(f"found a body of {length[:20]} bytes; this server takes {limit}")
        content = bytearray()
        try:
            try:
                await asyncio.wait_for(self._receive(request, content), self._settings.receive_timeout)
            except asyncio.TimeoutError:
                seconds = self._settings.receive_timeout
                raise RequestTimeoutError(f"the body did not arrive within {seconds:g} seconds") from None
            yield bytes(content)
        finally:
            self._free += len(content)

    async def _receive(self, request: Request, content: bytearray) -> None:
        async for chunk in request.stream():
            if len(content) + len(chunk) > self._settings.max_body:
                raise RequestTooLargeError(
                    f"found a body of more than {self._settings.max_body} bytes, which is what this server takes"
                )
            if len(chunk) > self._free:
                raise ServerBusyError("requests that are not yet answered take all memory meant for them: try again")
            self._free -= len(chunk)
            content += chunk


async def parse_request(request: Request, body: bytes, settings: ServeSettings) -> PredictRequest:
    """Parse the body of `POST /v1/predict`.

    Raises:
        RequestError: it is neither multipart/form-data nor JSON of the known form, or has too many inputs.
        InputError: an option out of range.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await asyncio.get_running_loop().run_in_executor(None, _parse_json, body, settings)
    if kind == "multipart/form-data":
        return await _parse_form(request, body, settings)
    found = f"Content-Type {shown(kind)}" if kind else "no Content-Type"
    raise UnsupportedMediaTypeError(f"found {found}; expected multipart/form-data or application/json")


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse a body strictly as a JSON object.

    Raises:
        RequestError: it is none.
    """
    values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if values > MAX_JSON_VALUES:  # base64 has none of them
        raise RequestTooLargeError(f"found JSON of {values} values; this server takes {MAX_JSON_VALUES}")
    try:
        return parse_object(body)
    except TypedJsonError as error:
        raise RequestError(f"the body {error}") from None


def decode_picture(text: str, where: str) -> bytes:
    """Return the bytes of a picture in base64.

    Args:
        text: base64, without spaces and line ends.
        where: what it is, for errors.

    Raises:
        RequestError: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        reason = "a character beyond ASCII" if isinstance(error, UnicodeError) or not text.isascii() else str(error)
        raise RequestError(f"{where} must be the bytes of a picture file in base64: {reason}") from None


def check_inputs(count: int, settings: ServeSettings) -> None:
    """Raise a RequestError unless a request has as many inputs as it may have."""
    if count == 0:
        raise RequestError("found no input: give at least one picture or caption")
    if count > settings.max_inputs:
        raise RequestTooLargeError(f"found {count} inputs in a request; this server takes {settings.max_inputs}")


@dataclass(frozen=True, slots=True)
class _JsonInput:
    image: str | None = field(default=None, metadata=MAY_BE_MISSING)
    caption: str | None = field(default=None, metadata=MAY_BE_MISSING)


@dataclass(frozen=True, slots=True)
class _JsonRequest:
    image: str | None = field(default=None, metadata=MAY_BE_MISSING)
    caption: str | None = field(default=None, metadata=MAY_BE_MISSING)
    inputs: tuple[_JsonInput, ...] | None = field(default=None, metadata=MAY_BE_MISSING)
    threshold: float | None = field(default=None, metadata=MAY_BE_MISSING)
    top_k: int | None = field(default=None, metadata=MAY_BE_MISSING)
    at_least_one: bool = field(default=False, metadata=MAY_BE_MISSING)
    evidence: bool = field(default=False, metadata=MAY_BE_MISSING)


def _parse_json(body: bytes, settings: ServeSettings) -> PredictRequest:
    data = parse_json_object(body)
    inputs = data.get("inputs")
    if isinstance(inputs, list):
        check_inputs(len(inputs), settings)  # before anything is made of them
    try:
        asked: _JsonRequest = build(_JsonRequest, data, "request")
    except TypedJsonError as error:
        raise RequestError(str(error)) from None
    options = PredictionOptions(asked.threshold, asked.top_k, asked.at_least_one)
    if asked.inputs is None:
        rows: Sequence[Row] = [_json_row(asked.image, asked.caption, "request.image")]
    elif asked.image is not None or asked.caption is not None:
        raise RequestError("request.inputs and request.image or request.caption exclude each other")
    else:
        rows = [
            _json_row(one.image, one.caption, f"request.inputs[{index}].image")
            for index, one in enumerate(asked.inputs)
        ]
    return PredictRequest(tuple(rows), options, asked.evidence, many=asked.inputs is not None)


def _json_row(image: str | None, caption: str | None, where: str) -> Row:
    try:
        return Row(image=None if image is None else decode_picture(image, where), caption=caption)
    except InputError as error:
        return Row(error=error)


class _InMemory(MultiPartParser):
    """Starlette's parser, which otherwise writes large files to disk."""

    spool_max_size = 2**62

    ended = False

    @override
    def on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        """Close all files, also that of a part that has no end."""
        for file in self._files_to_close_on_error:
            file.close()


_FIELDS = ("image", "caption", "threshold", "top_k", "at_least_one", "evidence")
_SWITCH = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}


async def _parse_form(request: Request, body: bytes, settings: ServeSettings) -> PredictRequest:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _FORM_CHUNK):
            yield body[start : start + _FORM_CHUNK]
            await asyncio.sleep(0)

    parser = _InMemory(
        request.headers,
        chunks(),
        max_files=settings.max_inputs,
        max_fields=MAX_FORM_FIELDS,
        max_part_size=MAX_ROW_BYTES,
    )
    try:
        form = await parser.parse()
        if not parser.ended:
            raise RequestError("the body is not valid multipart/form-data: its end is missing, the last boundary")
        return await _from_form(form, settings)
    except (MultiPartException, FormParserError) as error:
        raise RequestError(f"the body is not valid multipart/form-data: {error_line(error)}") from None
    finally:
        parser.close()


async def _from_form(form: FormData, settings: ServeSettings) -> PredictRequest:
    unknown = sorted(set(form.keys()) - set(_FIELDS))
    if unknown:
        raise RequestError(f"unknown field {shown(unknown[0])}; known: {', '.join(_FIELDS)}")
    pictures: list[bytes | None] = []
    for part in form.getlist("image"):
        if not isinstance(part, UploadFile):
            raise RequestError("the field image must be a file (a part with a filename), found a text")
        # A browser sends an empty part without a name where no file was chosen.
        pictures.append(await part.read() if part.size or part.filename else None)
    texts = form.getlist("caption")
    if not all(isinstance(text, str) for text in texts):
        raise RequestError("the field caption must be a text, found a file")
    captions: list[str | None] = [text if isinstance(text, str) and text.strip() else None for text in texts]
    pictures = pictures or [None] * len(captions)
    captions = captions or [None] * len(pictures)
    if len(pictures) != len(captions):
        raise RequestError(f"found {len(pictures)} images but {len(captions)} captions: give one caption each, or none")
    check_inputs(len(pictures), settings)
    options = _form_options(form)
    rows = tuple(Row(image=image, caption=caption) for image, caption in zip(pictures, captions, strict=True))
    return PredictRequest(rows, options, _switch(form, "evidence"), many=len(rows) > 1)


def _form_options(form: Mapping[str, object]) -> PredictionOptions:
    threshold = _number(form, "threshold", float)
    top_k = _number(form, "top_k", int)
    return PredictionOptions(threshold, None if top_k is None else int(top_k), _switch(form, "at_least_one"))


def _number(form: Mapping[str, object], name: str, kind: type[float] | type[int]) -> float | None:
    text = form.get(name)
    if text is None or text == "":
        return None
    if isinstance(text, str) and len(text) <= 32:
        with contextlib.suppress(ValueError):
            return kind(text)
    raise RequestError(f"the field {name} must be {'a whole' if kind is int else 'a'} number, found {shown(text)}")


def _switch(form: Mapping[str, object], name: str) -> bool:
    text = form.get(name, "false")
    if isinstance(text, str) and text.lower() in _SWITCH:
        return _SWITCH[text.lower()]
    raise RequestError(f"the field {name} must be true or false, found {shown(text)}")
