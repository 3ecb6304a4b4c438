"""Checks that very many predictions give equal answers in threads and processes, and measures if memory grows.

    python benchmarks/soak.py --output benchmarks/results/soak.json --plot benchmarks/results/soak.png

- `threads`: threads share one predictor. Each predicts thousands of times in its own order, and every answer must equal
  that of a single thread to the last bit.
- `processes`: processes start at once with an empty graph cache. Every answer must be equal, and the cache must then
  hold exactly one whole entry.
- `memory`: one thread predicts JPEGs of 640x480 with captions, one after the other. Growth is the highest resident
  memory after the warm-up against the one at the end of the warm-up. Linux only.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from common import COLOURS, ROOT, TINY, describe, make_pictures, output_option, resident_bytes, write_json
from matplotlib.figure import Figure
from PIL import Image

from mlic_runtime import Prediction, Predictor
from mlic_runtime.graph.cache import CacheEntry

PARTS = ("threads", "processes", "memory")
CAPTIONS = ("red", "no blue bright", "", "green green", "bright unknown words", "a red wall and a blue door")
SMALL = (64, 48)  # size of the pictures for `threads`, which would spend most of the time on decoding larger ones
SAMPLES = 400  # of resident memory

Row = tuple[bytes, str | None]

PROCESS = """
import json, sys
from pathlib import Path
from mlic_runtime import Predictor
model, pictures, captions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
predictor = Predictor.load(model, threads=1)
for number, path in enumerate(sorted(Path(pictures).glob("*.jpg"))[:8]):
    print(json.dumps(predictor.predict(path.read_bytes(), captions[number % len(captions)]).to_dict()))
"""


def make_rows(folder: Path, captions: bool, size: tuple[int, int] | None = None) -> list[Row]:
    """Return the pictures of a folder as JPEG bytes, reduced to `size` if it is given, each with a caption."""
    rows: list[Row] = []
    for number, path in enumerate(sorted(folder.glob("*.jpg"))):
        content = path.read_bytes()
        if size is not None:
            stream = io.BytesIO()
            with Image.open(path) as image:
                image.resize(size).save(stream, "JPEG", quality=90)
            content = stream.getvalue()
        rows.append((content, CAPTIONS[number % len(CAPTIONS)] if captions else None))
    return rows


def soak_threads(predictor: Predictor, rows: list[Row], threads: int, count: int) -> dict[str, Any]:
    """Compare every prediction of many threads with that of one thread.

    Raises:
        click.ClickException: an answer differs.
    """
    expected = [predictor.predict(*row) for row in rows]
    if len({tuple(one.probabilities.values()) for one in expected}) != len(rows):
        raise click.ClickException("several rows have the same answer, so that a mix-up would not be noticed")
    start = threading.Barrier(threads)

    def work(number: int) -> int:
        start.wait()
        wrong = 0
        for turn in range(count):
            index = (turn * (2 * number + 1) + 5 * number) % len(rows)  # each thread has its own order
            wrong += predictor.predict(*rows[index]) != expected[index]
        return wrong

    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        wrong = sum(pool.map(work, range(threads)))
    seconds = time.perf_counter() - begin
    if wrong:
        raise click.ClickException(f"{wrong} of {threads * count} answers differ from those of one thread")
    return {
        "threads": threads,
        "predictions_per_thread": count,
        "predictions": threads * count,
        "different_rows": len(rows),
        "answers_that_differ": wrong,
        "seconds": round(seconds, 1),
    }


def soak_processes(model: Path | str, pictures: Path, rounds: int, number: int, captions: bool) -> dict[str, Any]:
    """Start processes at once with an empty graph cache, several times.

    Raises:
        click.ClickException: a process failed, an answer differs, or the cache is not as it should be.
    """
    answers: set[str] = set()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "XDG_CACHE_HOME": cache}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            given = [str(model), str(pictures), json.dumps(CAPTIONS if captions else [None])]
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", PROCESS, *given],
                    env=environment,
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                for _ in range(number)
            ]
            for process in processes:
                if process.stdout is None or process.stdout.readline() != "ready\n":
                    raise click.ClickException(f"a process did not start: {process.communicate()[1]}")
            for process in processes:
                if process.stdin is not None:
                    process.stdin.write("go\n")
                    process.stdin.flush()
            for process in processes:
                out, error = process.communicate()
                if process.returncode or error:
                    raise click.ClickException(f"a process failed: {error}")
                answers.add(out)
            files = list((Path(cache) / "mlic" / "graphs").iterdir())
            if len(files) != 1 or CacheEntry(files[0]).read() is None:
                raise click.ClickException(
                    f"expected one whole entry in the cache, found {[path.name for path in files]}"
                )
    if len(answers) != 1:
        raise click.ClickException(f"the processes gave {len(answers)} different answers")
    return {
        "processes": number,
        "rounds": rounds,
        "answers_that_differ": 0,
        "cache_entries_after_each_round": 1,
        "files_left_behind": 0,
    }


def soak_memory(predict: Callable[..., Prediction], rows: list[Row], count: int, warm_up: int) -> dict[str, Any]:
    """Measure resident memory over `count` predictions after a warm-up."""
    samples: list[tuple[int, float]] = []
    every = max(1, (count + warm_up) // SAMPLES)
    begin = time.perf_counter()
    for number in range(count + warm_up + 1):
        if number % every == 0 or number in (warm_up, count + warm_up):
            samples.append((number, resident_bytes() / 1e6))
        predict(*rows[number % len(rows)])
    seconds = time.perf_counter() - begin
    before = next(memory for number, memory in samples if number == warm_up)
    after = [memory for number, memory in samples if number >= warm_up]
    return {
        "pictures": "synthetic: 640x480 JPEG, quality 90, from memory, with captions",
        "predictions": count,
        "warm_up_predictions": warm_up,
        "resident_mb_after_warm_up": round(before, 2),
        "resident_mb_at_the_end": round(after[-1], 2),
        "resident_mb_highest": round(max(after), 2),
        "growth_percent": round(100 * (max(after) / before - 1), 2),
        "seconds": round(seconds, 1),
        "samples_mb": [[number, round(memory, 2)] for number, memory in samples],
    }


def plot(result: dict[str, Any], output: Path) -> None:
    """Draw resident memory over the predictions."""
    memory = result["parts"]["memory"]
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*memory["samples_mb"], strict=True), color=COLOURS[0], label="resident memory")
    axes.axvline(memory["warm_up_predictions"], color=COLOURS[5], linestyle="--", label="end of the warm-up")
    allowed = 1.05 * memory["resident_mb_after_warm_up"]
    axes.axhline(allowed, color=COLOURS[1], linestyle=":", label="5 % more than after the warm-up")
    axes.set_ylim(0, 1.25 * max(allowed, memory["resident_mb_highest"]))
    axes.set(title=f"{memory['predictions']:,} predictions: +{memory['growth_percent']} %", xlabel="predictions")
    axes.set(ylabel="MB")
    axes.legend(fontsize="small", loc="lower right")
    axes.grid(alpha=0.3)
    machine = result["machine"]
    figure.suptitle(f"{result['model']} on {machine['processor']}, {machine['cpus']} CPUs", fontsize="medium")
    figure.savefig(output, dpi=150)


@click.command()
@click.option("--model", default=str(TINY), help="A model package.  [default: the one of the tests]")
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS, help="[default: all]")
@click.option("--threads", type=click.IntRange(2), default=16, show_default=True, help="Threads of `threads`.")
@click.option("--count", type=click.IntRange(1), default=10_000, show_default=True, help="Predictions of each thread.")
@click.option("--processes", type=click.IntRange(2), default=4, show_default=True, help="Processes of `processes`.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Starts of all processes.")
@click.option(
    "--predictions", type=click.IntRange(1), default=100_000, show_default=True, help="Predictions of `memory`."
)
@click.option(
    "--warm-up", type=click.IntRange(1), default=2_000, show_default=True, help="Predictions before those of `memory`."
)
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw memory: .png or .svg.")
@output_option
def main(
    model: str,
    parts: tuple[str, ...],
    threads: int,
    count: int,
    processes: int,
    rounds: int,
    predictions: int,
    warm_up: int,
    picture: Path | None,
    output: Path | None,
) -> None:
    """Predict very many times."""
    if picture is not None and "memory" not in parts:
        raise click.UsageError("--plot draws the part memory; leave out --part, or add --part memory")
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        pictures = Path(temporary)
        make_pictures(pictures)
        predictor = Predictor.load(model, threads=1, cache=False)
        captions = predictor.manifest.text is not None
        # Memory comes first: what the other parts allocate would count as warm-up.
        if "memory" in parts:
            measured["memory"] = soak_memory(predictor.predict, make_rows(pictures, captions), predictions, warm_up)
        if "threads" in parts:
            measured["threads"] = soak_threads(predictor, make_rows(pictures, captions, SMALL), threads, count)
        if "processes" in parts:
            measured["processes"] = soak_processes(model, pictures, rounds, processes, captions)
    for name, one in measured.items():
        click.echo(f"{name}: " + ", ".join(f"{key} {value}" for key, value in one.items() if key != "samples_mb"))
    result = describe("many predictions: the same answers in threads and processes, and resident memory")
    result |= {"model": predictor.manifest.title, "precision": predictor.precision, "parts": measured}
    write_json(output, result)
    if picture is not None:
        plot(result, picture)


if __name__ == "__main__":
    main()
