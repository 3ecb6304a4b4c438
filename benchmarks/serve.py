"""Loads mlic-serve: throughput and latency beside `predict`, overload, memory, hostile clients, and a restart.

    python benchmarks/serve.py --output benchmarks/results/serve.json

- `load`: so many clients, each of which sends its next request when it has the answer to the last one, beside a loop
  over `predict` and beside `predict_rows` on the same pictures with the same threads, all in turns. Then requests at
  half of the best rate, whether or not answers have come. Client and server share the machine.
- `overload`: four times as many clients as the queue has places, for `--overload-seconds`.
- `growth`: `--requests` small requests; the resident memory after the first tenth against the one at the end.
- `hostile`: `--idle` connections that send nothing, while `--hostile` bad requests get answers, with a good one after
  each.
- `restart`: kill -9 under load, then the time until a new process on the same port answers.

Linux only. Every answer is checked: one of 200 is a prediction, any other has "error" and "type".
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from common import ROOT, TINY, describe, make_pictures, output_option, write_json

from mlic_runtime import Predictor
from mlic_runtime.rows.row import Row

PARTS = ("load", "overload", "growth", "hostile", "restart")
CAPTION = "a dog runs on the beach"
TIMEOUT = 120.0

Body = tuple[bytes, str]  # content and Content-Type


class Server:
    """A process of mlic-serve."""

    def __init__(self, model: str | None, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-c", "from mlic_runtime.cli.serve import main; main()", "--port", str(port)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [*command, *(["--model", model] if model else []), *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r":(\d+)$", line.strip())
        if found is None:
            raise click.ClickException(line + self.process.stderr.read())
        self.port = int(found[1])

    def resident(self) -> int:
        """Return its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """Return the most resident memory that it ever had, in bytes."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) * 1024

    def end(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        code = self.process.wait(TIMEOUT)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def serving(model: str | None, *options: str) -> Iterator[Server]:
    """Start a server; it has to live until the end, and to end cleanly."""
    server = Server(model, *options)
    try:
        yield server
        if server.process.poll() is not None:
            raise click.ClickException(f"the server died with exit code {server.process.returncode}")
    except BaseException:
        server.process.kill()
        server.process.wait()
        raise
    if code := server.end():
        raise click.ClickException(f"after SIGTERM the server ended with exit code {code}")


class Client:
    """One connection that is kept; `ask` opens it again where the server has closed it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    def ask(self, body: Body) -> int:
        """Send a request to /v1/predict, check the answer, and return its status."""
        self._connection.request("POST", "/v1/predict", body[0], {"Content-Type": body[1]})
        response = self._connection.getresponse()
        content = json.loads(response.read())
        if response.status == 200:
            assert "probabilities" in content or "predictions" in content, content
        else:
            assert set(content) == {"error", "type"}, content
        return response.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def form(picture: bytes, caption: str = CAPTION) -> Body:
    """Return a form with a picture and a caption."""
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n',
        picture,
        f'\r\n--x\r\nContent-Disposition: form-data; name="caption"\r\n\r\n{caption}\r\n--x--\r\n'.encode(),
    ]
    return b"".join(parts), "multipart/form-data; boundary=x"


def closed_loop(port: int, bodies: list[Body], clients: int, requests: int) -> dict[str, Any]:
    """Let clients send requests as fast as they get answers."""
    counter = itertools.count()
    seconds: list[float] = []

    def client() -> None:
        connection = Client(port)
        while (number := next(counter)) < requests:
            start = time.perf_counter()
            status = connection.ask(bodies[number % len(bodies)])
            seconds.append(time.perf_counter() - start)
            assert status == 200, status
        connection.close()

    start = time.perf_counter()
    in_threads(client, clients)
    return {"clients": clients, **rate(len(seconds), time.perf_counter() - start), **percentiles(seconds)}


def in_threads(work: Callable[[], object], count: int) -> None:
    """Run `work` in so many threads at once, and raise the first error of one."""
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()


def open_loop(port: int, bodies: list[Body], per_second: float, requests: int) -> dict[str, Any]:
    """Send requests at a steady rate; each takes from when it was due."""
    start = time.perf_counter() + 0.1
    local = threading.local()

    def send(number: int) -> float:
        due = start + number / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        if not hasattr(local, "client"):
            local.client = Client(port)
        assert local.client.ask(bodies[number % len(bodies)]) == 200
        return time.perf_counter() - due

    with ThreadPoolExecutor(32) as pool:
        seconds = list(pool.map(send, range(requests)))
    found = percentiles(seconds)
    return {"offered_per_s": round(per_second, 2), **found, "p99_by_p50": round(found["p99_ms"] / found["p50_ms"], 2)}


def rate(count: int, seconds: float) -> dict[str, Any]:
    """Return how many, and how many in a second."""
    return {"requests": count, "per_s": round(count / seconds, 2)}


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50_ms": round(1e3 * float(p50), 2), "p99_ms": round(1e3 * float(p99), 2)}


def measure_load(
    model: str | None, bodies: list[Body], pictures: list[bytes], clients: list[int], requests: int, rounds: int
) -> dict[str, Any]:
    """Measure `load`."""
    predictor = Predictor.load(model)
    loops: dict[str, list[float]] = {"predict": [], "predict_rows": []}
    levels: dict[int, list[dict[str, Any]]] = {count: [] for count in clients}
    chosen = [pictures[number % len(pictures)] for number in range(requests)]
    with serving(model) as server:
        closed_loop(server.port, bodies, 4, 16)  # warm
        for _ in range(rounds):
            start = time.perf_counter()
            for picture in chosen:
                predictor.predict(picture, CAPTION)
            loops["predict"].append(requests / (time.perf_counter() - start))
            start = time.perf_counter()
            done = sum(1 for _ in predictor.predict_rows(Row(image=picture, caption=CAPTION) for picture in chosen))
            loops["predict_rows"].append(done / (time.perf_counter() - start))
            for count in clients:
                levels[count].append(closed_loop(server.port, bodies, count, requests))
        medians = [_median(found) for found in levels.values()]
        best = max(level["per_s"] for level in medians)
        half = open_loop(server.port, bodies, best / 2, requests)
    rows = statistics.median(loops["predict_rows"])
    return {
        "pictures": len(pictures),
        "predict_per_s": round(statistics.median(loops["predict"]), 2),
        "predict_rows_per_s": round(rows, 2),
        "clients": medians,
        "best_by_predict_rows": round(best / rows, 3),
        "half_load": half,
    }


def _median(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def measure_overload(model: str | None, bodies: list[Body], seconds: float) -> dict[str, Any]:
    """Measure `overload`."""
    places = 32
    with serving(model, "--max-queue", str(places)) as server:
        closed_loop(server.port, bodies, 4, 16)
        before = server.resident()
        end = time.perf_counter() + seconds
        statuses: Counter[int] = Counter()

        def client() -> None:
            connection = Client(server.port)
            while time.perf_counter() < end:
                statuses[connection.ask(bodies[0])] += 1
            connection.close()

        in_threads(client, 4 * places)
        unknown = statuses.keys() - {200, 503}
        assert not unknown, unknown
        return {
            "seconds": seconds,
            "places": places,
            "clients": 4 * places,
            "answers": {str(status): count for status, count in sorted(statuses.items())},
            "resident_before_mb": _mb(before),
            "peak_mb": _mb(server.peak()),
        }


def measure_growth(requests: int) -> dict[str, Any]:
    """Measure `growth`, on the tiny model: it is the server that might keep something."""
    small = [form(picture) for picture in small_pictures(16)]
    bad = (b'{"image": "QUJD"}', "application/json")
    bodies = [*small, bad]
    with serving(str(TINY)) as server:

        def send(count: int) -> None:
            counter = itertools.count()

            def client() -> None:
                connection = Client(server.port)
                while (number := next(counter)) < count:
                    assert connection.ask(bodies[number % len(bodies)]) in (200, 400)
                connection.close()

            in_threads(client, 8)

        send(max(1, requests // 10))
        before = server.resident()
        send(requests - requests // 10)
        after = server.resident()
    return {
        "requests": requests,
        "resident_after_a_tenth_mb": _mb(before),
        "resident_at_the_end_mb": _mb(after),
        "growth_percent": round(100 * (after / before - 1), 2),
    }


def small_pictures(count: int) -> list[bytes]:
    """Return small PNGs of noise."""
    import io

    from PIL import Image

    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def hostile_requests() -> list[bytes]:
    """Return requests, byte for byte, none of which may get a 200."""

    def post(body: bytes, kind: str = "application/json", length: int | None = None) -> bytes:
        length = len(body) if length is None else length
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        return f"{head}Connection: close\r\n\r\n".encode() + body

    return [
        post(b"{", length=10**15),  # a huge length
        post(b"{", length=1000),  # a length that is not kept
        post(b"[" * 90_000),
        post(b"[[],[]," * 60_000),
        post(b'{"image": 5}'),
        post(b'{"image": "%%%"}'),
        post(b'{"image": "QUJD"}'),
        post(b'{"top_k": ' + b"9" * 5000 + b"}"),
        post(b"--x\r\n" * 1000, "multipart/form-data; boundary=x"),
        post(form(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0")[0], form(b"")[1]),
        post(b"picture", "image/png"),
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\n",  # and no more
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
    ]


def measure_hostile(requests: int, idle: int) -> dict[str, Any]:
    """Measure `hostile`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft < idle + 256 else soft, hard))
    good, mix = form(small_pictures(1)[0]), hostile_requests()
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    options = ("--header-timeout", "2", "--receive-timeout", "2")
    with serving(str(TINY), *options) as server, contextlib.ExitStack() as stack:
        before = server.resident()
        for _ in range(idle):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT))
        counter = itertools.count()

        def client() -> None:
            while (number := next(counter)) < requests:
                statuses[hostile_answer(server.port, mix[number % len(mix)])] += 1
                start = time.perf_counter()
                connection = Client(server.port)
                assert connection.ask(good) == 200
                connection.close()
                seconds.append(time.perf_counter() - start)

        in_threads(client, 16)
        assert "200" not in statuses
        return {
            "idle_connections": idle,
            "hostile_requests": requests,
            "answers": dict(sorted(statuses.items())),
            "good_between": percentiles(seconds),
            "resident_before_mb": _mb(before),
            "peak_mb": _mb(server.peak()),
        }


def hostile_answer(port: int, request: bytes) -> str:
    """Send a request byte for byte and return the status of the answer, or "closed"."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                found += data
    if not found:
        return "closed"
    head, _, content = found.partition(b"\r\n\r\n")
    assert set(json.loads(content)) == {"error", "type"}, content[:200]
    return head.split(b" ")[1].decode()


def measure_restart(model: str | None, bodies: list[Body], rounds: int) -> dict[str, Any]:
    """Measure `restart`."""
    seconds = []
    server = Server(model)
    for _ in range(rounds):
        closed_loop(server.port, bodies, 4, 8)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        start = time.perf_counter()
        server = Server(model, port=server.port)
        client = Client(server.port)
        assert client.ask(bodies[0]) == 200
        client.close()
        seconds.append(time.perf_counter() - start)
    server.end()
    return {"rounds": rounds, "median_s": round(statistics.median(seconds), 3), "longest_s": round(max(seconds), 3)}


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


@click.command()
@click.option("--model", help="A model package for load, overload and restart.  [default: the released one]")
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="May be repeated.  [default: all]")
@click.option("--clients", default="1,4,16,64", show_default=True, help="Numbers of clients of load.")
@click.option(
    "--per-level", default=512, show_default=True, type=click.IntRange(1), help="Requests of a level of load."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Turns of load and of restart.")
@click.option("--overload-seconds", default=60.0, show_default=True, help="How long overload lasts.")
@click.option("--requests", default=100_000, show_default=True, type=click.IntRange(10), help="Requests of growth.")
@click.option("--hostile", default=1000, show_default=True, type=click.IntRange(1), help="Bad requests of hostile.")
@click.option("--idle", default=10_000, show_default=True, type=click.IntRange(0), help="Idle connections of hostile.")
@output_option
def main(
    model: str | None,
    parts: tuple[str, ...],
    clients: str,
    per_level: int,
    rounds: int,
    overload_seconds: float,
    requests: int,
    hostile: int,
    idle: int,
    output: Path | None,
) -> None:
    """Load mlic-serve."""
    with TemporaryDirectory() as folder:
        make_pictures(Path(folder))
        pictures = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    bodies = [form(picture) for picture in pictures]
    levels = [int(count) for count in clients.split(",")]
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "load": lambda: measure_load(model, bodies, pictures, levels, per_level, rounds),
        "overload": lambda: measure_overload(model, bodies, overload_seconds),
        "growth": lambda: measure_growth(requests),
        "hostile": lambda: measure_hostile(hostile, idle),
        "restart": lambda: measure_restart(model, bodies, rounds),
    }
    result = describe("mlic-serve", ("onnxruntime", "numpy", "pillow", "starlette", "uvicorn", "h11"))
    for part in parts or PARTS:
        result[part] = measures[part]()
        click.echo(f"{part}: {json.dumps(result[part])}")
    write_json(output, result)


if __name__ == "__main__":
    main()
