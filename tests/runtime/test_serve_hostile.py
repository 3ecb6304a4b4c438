"""Requests that nobody would send by mistake: each gets a typed answer, and the server goes on."""

import asyncio
import gc
import json
import struct
import tempfile
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from mlic_runtime.predict.predictor import Predictor
from tests.serving import base64_of, client_of, picture

Encode = Callable[..., bytes]
RED = picture((255, 0, 0))
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=1)


def post(predictor: Predictor, path: str = "/v1/predict", **request: Any) -> httpx.Response:
    """The answer to a request; the server then still answers a good one."""
    settings = request.pop("settings", {})

    async def run() -> httpx.Response:
        async with client_of(predictor, **settings) as client:
            answer = await client.post(path, **request)
            token = {"Authorization": f"Bearer {settings['token']}"} if "token" in settings else {}
            good = await client.post("/v1/predict", json={"caption": "red"}, headers=token)
            assert good.json() == predictor.predict(None, "red").to_dict()
            return answer

    return asyncio.run(run())


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    content = answer.json()
    assert set(content) == {"error", "type"}
    assert "\n" not in content["error"]
    assert "Traceback" not in content["error"]
    assert len(content["error"]) < 500
    return answer.status_code, content["type"], content["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"nope", "is not valid JSON"),
        (b"[" * 90_000, "is not valid JSON"),
        (b'{"caption": NaN}', "NaN is not a number in JSON"),
        (b'{"caption": "red", "caption": "blue"}', "duplicate key 'caption'"),
        (b'{"top_k": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b"[]", "must hold a JSON object"),
        (b'"text"', "must hold a JSON object"),
        (b"{}", "neither a picture nor a caption"),
        (b'{"image": 5}', "request.image must be"),
        (b'{"image": ["a"]}', "request.image must be"),
        (b'{"image": {"a": 1}}', "request.image must be"),
        (b'{"caption": true}', "request.caption must be"),
        (b'{"inputs": {}}', "request.inputs must be a list"),
        (b'{"inputs": [1]}', "request.inputs[0] must be an object"),
        (b'{"inputs": []}', "found no input"),
        (b'{"inputs": [{"caption": "red"}], "caption": "red"}', "exclude each other"),
        (b'{"inputs": [{"caption": "red", "evidence": true}]}', "unknown key request.inputs[0].evidence"),
        (b'{"caption": "red", "surprise": 1}', "unknown key request.surprise"),
        (b'{"caption": "red", "threshold": 2}', "threshold must be in [0, 1]"),
        (b'{"caption": "red", "threshold": "0.5"}', "request.threshold must be float"),
        (b'{"caption": "red", "threshold": 1e999}', "request.threshold must be float"),
        (b'{"caption": "red", "top_k": 0}', "top_k must be 1 or more"),
        (b'{"caption": "red", "top_k": 1.5}', "request.top_k must be int"),
        (b'{"caption": "red", "top_k": true}', "request.top_k must be int"),
        (b'{"caption": "red", "at_least_one": 1}', "request.at_least_one must be bool"),
        (b'{"caption": "red", "evidence": "yes"}', "request.evidence must be bool"),
        (b'{"image": ""}', "it is empty"),
        (b'{"image": "A"}', "base64"),
        (b'{"image": "QUJD\\n"}', "base64"),
        (b'{"image": "data:image/png;base64,QUJD"}', "base64"),
        ('{"image": "\uff21"}'.encode(), "a character beyond ASCII"),
        (b'{"image": "QUJD"}', "cannot read picture"),
    ],
)
def test_json_that_is_wrong(predictor: Predictor, body: bytes, message: str) -> None:
    status, _, found = refused(post(predictor, content=body, headers=JSON))
    assert status == 400
    assert message in found


def part(name: str, content: bytes = b"red", more: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


FILE = '; filename="a.png"'
END = b"--x--\r\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "its end is missing"),
        (END, "found no input"),
        (part("caption"), "its end is missing"),
        (part("caption") + part("image", RED, FILE)[:-30], "its end is missing"),
        (b"garbage", "not valid multipart/form-data"),
        (b"--x\r\n\r\nno name\r\n" + END, "not valid multipart/form-data"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nred\r\n" + END, "not valid multipart/form-data"),
        (part("image", RED) + END, "must be a file"),
        (part("image", b"", FILE) + END, "it is empty"),
        (part("image", b"no picture", FILE) + END, "cannot read picture"),
        (part("caption", RED, FILE) + END, "must be a text, found a file"),
        (part("surprise") + END, "unknown field 'surprise'"),
        (part("../../etc/passwd", b"x", '; filename="../../etc/passwd"') + END, "unknown field '../../etc/passwd'"),
        (part("caption") + part("threshold", b"x") + END, "threshold must be a number"),
        (part("caption") + part("threshold", b"nan") + END, "threshold must be in [0, 1]"),
        (part("caption") + part("threshold", b"9" * 5000) + END, "threshold must be a number"),
        (part("caption") + part("top_k", b"1.5") + END, "top_k must be a whole number"),
        (part("caption") + part("top_k", b"-1") + END, "top_k must be 1 or more"),
        (part("caption") + part("evidence", b"maybe") + END, "evidence must be true or false"),
        (part("image", RED, FILE) + part("caption") * 2 + END, "found 1 images but 2 captions"),
        (part("image", RED, FILE) * 65 + END, "Too many files"),
        (part("caption") * 300 + END, "Too many fields"),
        (part("caption", b"a" * (1024 * 1024 + 1)) + END, "exceeded maximum size"),
    ],
)
def test_a_form_that_is_wrong(predictor: Predictor, body: bytes, message: str) -> None:
    status, _, found = refused(post(predictor, content=body, headers=FORM))
    assert status == 400
    assert message in found


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "image/png"},
        {"Content-Type": ";;;"},
        {"Content-Type": "x\xff"},
    ],
)
def test_another_type_of_body(predictor: Predictor, headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    assert refused(post(predictor, content=RED, headers=raw))[:2] == (415, "UnsupportedMediaTypeError")


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; charset=x"]
)
def test_a_form_without_a_boundary(predictor: Predictor, kind: str) -> None:
    answer = post(predictor, content=part("caption") + END, headers={"Content-Type": kind})
    assert refused(answer)[:2] == (400, "RequestError")


def test_a_compressed_body(predictor: Predictor) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    assert refused(post(predictor, content=b"\x1f\x8b", headers=headers))[:2] == (415, "UnsupportedMediaTypeError")


def test_json_of_a_million_lists_is_not_parsed(predictor: Predictor) -> None:
    body = b'{"inputs": [' + b"[],[]," * 500_000 + b"[]]}"
    assert refused(post(predictor, content=body, headers=JSON))[:2] == (413, "RequestTooLargeError")


def test_more_inputs_than_allowed(predictor: Predictor) -> None:
    answer = post(predictor, json={"inputs": [{"caption": "red"}] * 65})
    assert refused(answer)[:2] == (413, "RequestTooLargeError")


def test_a_body_that_says_it_is_too_large_is_not_read(predictor: Predictor) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    answer = post(
        predictor,
        content=never(),
        headers={**JSON, "Content-Length": "99999999999999999999999999"},
    )
    assert refused(answer)[:2] == (413, "RequestTooLargeError")


@pytest.mark.parametrize("length", ["-1", "1e9", "x", "\uff10", ""])
def test_a_length_that_is_no_number_is_not_believed(predictor: Predictor, length: str) -> None:
    answer = post(predictor, content=b'{"caption": "red"}', headers={**JSON, "Content-Length": length.encode()})
    assert answer.status_code == 200


def test_a_body_that_is_larger_than_it_says(predictor: Predictor) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    answer = post(predictor, content=chunks(), headers=JSON, settings={"max_body": 1000})
    assert refused(answer)[:2] == (413, "RequestTooLargeError")


def test_bodies_together_have_a_limit_that_frees_itself(predictor: Predictor) -> None:
    body = json.dumps({"caption": "red", "image": None}).encode().ljust(1000)

    async def run() -> list[httpx.Response]:
        async with client_of(predictor, max_received=1500) as client:
            arrived, go = asyncio.Event(), asyncio.Event()

            async def held() -> AsyncIterator[bytes]:
                yield body[:900]
                arrived.set()
                await go.wait()
                yield body[900:]

            first = asyncio.ensure_future(client.post("/v1/predict", content=held(), headers=JSON))
            await arrived.wait()
            second = await client.post("/v1/predict", content=body, headers=JSON)
            go.set()
            return [await first, second, await client.post("/v1/predict", content=body, headers=JSON)]

    first, second, third = asyncio.run(run())
    assert refused(second)[:2] == (503, "ServerBusyError")
    assert second.headers["retry-after"] == "1"
    assert (first.status_code, third.status_code) == (200, 200)


def test_a_body_that_does_not_come_is_a_timeout(predictor: Predictor) -> None:
    async def never_ends() -> AsyncIterator[bytes]:
        yield b'{"caption": '
        await asyncio.Event().wait()

    answer = post(predictor, content=never_ends(), headers=JSON, settings={"receive_timeout": 0.05})
    assert answer.status_code == 408
    assert refused(answer)[1] == "RequestTimeoutError"


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 1), (65_535, 65_535)])
def test_a_picture_of_too_many_pixels(predictor: Predictor, size: tuple[int, int]) -> None:
    status, kind, _ = refused(post(predictor, json={"image": base64_of(bomb(*size))}))
    assert (status, kind) == (400, "ImageError")


def test_the_limit_of_pixels_is_the_predictors(tiny: Path, encode: Encode) -> None:
    predictor = Predictor.load(tiny, max_pixels=100)
    assert post(predictor, files={"image": encode(Image.new("RGB", (10, 10)), "PNG")}).status_code == 200
    status, kind, message = refused(post(predictor, files={"image": encode(Image.new("RGB", (10, 11)), "PNG")}))
    assert (status, kind) == (400, "ImageError")
    assert "10 x 11 pixels are more than the limit of 100" in message


def test_a_picture_of_the_machine_cannot_be_named(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(RED)
    for name in (str(path), f"file://{path}"):
        assert refused(post(predictor, json={"image": name}))[0] == 400
        assert refused(post(predictor, data={"image": name}, files={"caption": ("", "x")}))[0] == 400


@pytest.mark.parametrize("caption", ["\0", "\ud800", "a" * 1_000_000, "́" * 50_000, "red\r\n\r\n--x"])
def test_captions_of_any_characters(predictor: Predictor, caption: str) -> None:
    body = json.dumps({"caption": caption}).encode()
    answer = post(predictor, content=body, headers=JSON)
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(predictor.predict(None, caption).to_dict()))


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/predict", 405, "MethodNotAllowedError"),
        ("DELETE", "/v1/models", 405, "MethodNotAllowedError"),
        ("POST", "/metrics", 405, "MethodNotAllowedError"),
        ("GET", "/v3", 404, "NotFoundError"),
        ("GET", "/v1/predict/../../etc/passwd", 404, "NotFoundError"),
        ("GET", "/%00", 404, "NotFoundError"),
        ("GET", "/" + "a" * 5000, 404, "NotFoundError"),
    ],
)
def test_routes_that_are_not_there(predictor: Predictor, method: str, path: str, status: int, kind: str) -> None:
    async def run() -> httpx.Response:
        async with client_of(predictor) as client:
            return await client.request(method, path)

    assert refused(asyncio.run(run()))[:2] == (status, kind)


TOKEN = "correct-horse"


def basic(text: str) -> str:
    return f"Basic {base64_of(text.encode())}"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        f"Token {TOKEN}",
        basic(TOKEN),
        basic("user:wrong"),
        "Basic %%%",
        "Bearer \xff",
    ],
)
def test_a_wrong_token(predictor: Predictor, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    for path in ("/v1/predict", "/"):
        answer = post(predictor, path, json={"caption": "red"}, headers=headers, settings={"token": TOKEN})
        assert refused(answer)[:2] == (401, "UnauthorizedError")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(f"anybody:{TOKEN}")])
def test_the_right_token(predictor: Predictor, value: str) -> None:
    headers = {"Authorization": value}
    assert post(predictor, json={"caption": "red"}, headers=headers, settings={"token": TOKEN}).status_code == 200


def test_without_the_token_only_health_is_told(predictor: Predictor, tmp_path: Path) -> None:
    paths = ("/", "/metrics", "/openapi.json", "/v1/models", "/v2", "/v2/models/tiny", "/index.html", "/nowhere")
    (tmp_path / "index.html").write_text("model inside")

    async def run(**settings: Any) -> list[int]:
        async with client_of(predictor, token=TOKEN, **settings) as client:
            for path in ("/v2/health/live", "/v2/health/ready"):
                assert (await client.get(path)).status_code == 200
            return [(await client.get(path)).status_code for path in paths]

    assert asyncio.run(run()) == [401] * len(paths)
    assert asyncio.run(run(page=tmp_path)) == [401] * len(paths)


def test_two_tokens_are_none(predictor: Predictor) -> None:
    headers = [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {TOKEN}")]
    answer = post(predictor, json={"caption": "red"}, headers=headers, settings={"token": TOKEN})
    assert answer.status_code == 401


def test_no_picture_is_written_to_disk(predictor: Predictor, monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile, "_TemporaryFileWrapper", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    noise = encode(Image.effect_noise((1500, 1500), 90).convert("RGB"), "PNG")
    assert len(noise) > 2_000_000
    assert post(predictor, files={"image": ("a.png", noise)}).json() == predictor.predict(noise).to_dict()


def test_nothing_of_a_request_is_logged(
    predictor: Predictor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    post(predictor, files={"image": ("private-name.png", RED)}, data={"caption": "private-caption"})
    post(predictor, files={"image": ("private-name.png", b"private-bytes")}, data={"caption": "private-caption"})
    shown = "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    )
    assert "private" not in shown + "".join(capfd.readouterr())


def test_a_refused_picture_does_not_stay_in_memory(predictor: Predictor) -> None:
    body = {"image": base64_of(b"no picture" + bytes(1_000_000))}

    async def run() -> int:
        async with client_of(predictor) as client:
            for _ in range(3):
                await client.post("/v1/predict", json=body)
            gc.collect()
            tracemalloc.start()
            for _ in range(10):
                assert (await client.post("/v1/predict", json=body)).status_code == 400
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return kept

    assert asyncio.run(run()) < 5_000_000  # the last one may still be there; ten have 37 MB
