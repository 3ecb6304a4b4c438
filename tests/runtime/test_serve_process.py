"""mlic-serve as a process with a socket."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.cli.serve import serve
from mlic_runtime.predict.predictor import Predictor
from tests.serving import SECONDS, base64_of, connect, picture, read_all, server

RED = picture((255, 0, 0))
BODY = json.dumps({"image": base64_of(RED), "caption": "blue"}).encode()
HEAD = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"


def answer_on(connection: socket.socket) -> "tuple[int, dict[str, object]]":
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def predict(port: int, token: str | None = None) -> "tuple[int, dict[str, object]]":
    with connect(port) as connection:
        more = f"Authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(f"{HEAD}{more}\r\n".encode() + BODY)
        return answer_on(connection)


@pytest.fixture
def expected(tiny: Path) -> "dict[str, object]":
    return Predictor.load(tiny).predict(RED, "blue").to_dict()


def begin_request(port: int) -> socket.socket:
    """A connection whose request the server has begun to receive; its body is missing."""
    connection = connect(port)
    connection.sendall(f"{HEAD}Expect: 100-continue\r\n\r\n".encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_when_what_it_accepted_is_answered(
    tiny: Path, expected: "dict[str, object]", number: signal.Signals
) -> None:
    with server(tiny) as (process, port), begin_request(port) as connection, connect(port) as idle:
        process.send_signal(number)
        assert read_all(idle) == b""  # it is closed: the server has heard
        connection.sendall(BODY)
        assert answer_on(connection) == (200, expected)
        assert process.wait(SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            connect(port)


def test_who_never_sends_the_rest_does_not_keep_the_server(tiny: Path) -> None:
    with server(tiny, "--receive-timeout", "0.2") as (process, port), begin_request(port) as connection:
        process.send_signal(signal.SIGTERM)
        status, error = answer_on(connection)
        assert (status, error["type"]) == (408, "RequestTimeoutError")
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    "start", [b"", b"POST", HEAD.encode(), b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"]
)
def test_a_connection_that_sends_no_head_is_closed(tiny: Path, expected: "dict[str, object]", start: bytes) -> None:
    with server(tiny, "--header-timeout", "0.3") as (_, port), connect(port) as connection:
        connection.sendall(start)
        found = read_all(connection)
        assert found.startswith(b"HTTP/1.1 200 ") == start.endswith(b"\r\n\r\n")
        assert predict(port) == (200, expected)


def test_of_too_many_connections_the_one_that_is_idle_for_longest_is_closed(
    tiny: Path, expected: "dict[str, object]"
) -> None:
    options = ("--max-connections", "2", "--header-timeout", "3600")
    with server(tiny, *options) as (_, port), begin_request(port) as busy, connect(port) as idle:
        idle.sendall(b"GET ")
        assert predict(port) == (200, expected)
        assert read_all(idle) == b""
        busy.sendall(BODY)
        assert answer_on(busy) == (200, expected)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\nx HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_typed_answer(tiny: Path, expected: "dict[str, object]", request_: bytes) -> None:
    with server(tiny) as (_, port), connect(port) as connection:
        connection.sendall(request_)
        status, error = answer_on(connection)
        assert (status, error["type"]) == (400, "RequestError")
        assert predict(port) == (200, expected)


@pytest.mark.parametrize(
    "request_",
    [
        # A length beyond the body, then nothing; a chunk that is longer than it says; a length and chunks at once.
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /smuggled\r\n\r\n",
    ],
)
def test_bodies_that_lie_about_their_length(tiny: Path, expected: "dict[str, object]", request_: bytes) -> None:
    with server(tiny, "--receive-timeout", "0.3", "--header-timeout", "0.3") as (_, port), connect(port) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answers = read_all(connection)
        assert b" 200 " not in answers
        assert b"Traceback" not in answers
        assert predict(port) == (200, expected)


def test_a_client_that_does_not_read_is_dropped(tiny: Path, expected: "dict[str, object]", tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(64 * 1024 * 1024))
    with server(tiny, "--page", str(tmp_path), "--send-timeout", "0.3") as (_, port), connect(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert predict(port) == (200, expected)
        # The metrics say when the server has given up; what the sockets held until then can still be read.
        assert any('mlic_requests_total{handler="page"' in metrics(port) for _ in range(100_000))
        assert len(read_all(connection)) < 64 * 1024 * 1024


def metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_the_token_comes_from_a_file_or_the_environment(
    tiny: Path, expected: "dict[str, object]", tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-the-file\nnot this\n")
    with server(tiny, "--token-file", str(tmp_path / "token"), environment={"MLIC_TOKEN": "other"}) as (_, port):
        assert predict(port)[0] == predict(port, "other")[0] == 401
        assert predict(port, "of-the-file") == (200, expected)
    with server(tiny, environment={"MLIC_TOKEN": "of-the-environment"}) as (_, port):
        assert predict(port)[0] == 401
        assert predict(port, "of-the-environment") == (200, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--token", "two words"], "the token must be one word"),
        (["--token", ""], "the token must be one word"),
        (["--token-file", "nowhere"], "cannot read the token from 'nowhere'"),
        (["--token", "a", "--token-file", "b"], "'--token' and '--token-file' exclude each other"),
        (["--page", "nowhere"], "does not exist"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1:8000"),
        (["--host", "a" * 300], "cannot listen on"),
        (["--max-queue", "0"], "0 is not in the range"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_option_is_one_line(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in arguments else ["--model", str(tiny)]
    result = CliRunner().invoke(serve, [*model, *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_a_port_in_use_is_one_line(tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(serve, ["--model", str(tiny), "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot listen on 127.0.0.1:")


def test_without_the_extra_one_line_says_what_to_install(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mlic_runtime.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(serve, ["--model", str(tiny)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: mlic-serve needs ")
    assert result.stderr.endswith(": pip install 'mlic-runtime[serve]'\n")


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numpy", "PIL", "onnxruntime", "tokenizers", "starlette", "uvicorn", "prometheus_client")
    code = (
        "import sys\nfrom mlic_runtime.cli.serve import serve\n"
        f"try: serve(['--help'])\nfinally: print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS)
    assert shown.stdout.endswith("\n[]\n")
    assert "mlic-runtime" not in shown.stderr
