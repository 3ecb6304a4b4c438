"""Batch prediction against a loop over `predict`: the same pictures, the same session, in turns.

Pictures are 640x480 JPEGs made from a fixed seed, or those of a folder. Usage:
python benchmarks/batch.py [--model PACKAGE] [--pictures FOLDER] [--rows N] [--rounds N] [--output FILE]
"""

import io
import json
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from mlic_runtime import Predictor, Row, open_rows
from mlic_runtime.base.machine import available_cpus
from mlic_runtime.bench.inputs import DEFAULT_CAPTION

_SYNTHETIC = 64  # different pictures


def make_pictures(folder: Path) -> None:
    """Write 640x480 JPEGs of quality 90 with the detail of photographs: noise at three scales."""
    random = np.random.default_rng(0)
    for index in range(_SYNTHETIC):
        total = np.zeros((480, 640, 3))
        for size, weight in (((8, 6), 1.0), ((80, 60), 0.4), ((320, 240), 0.15)):
            noise = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
            total += weight * np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.float64)
        stream = io.BytesIO()
        Image.fromarray((total / 1.55).astype(np.uint8)).save(stream, "JPEG", quality=90)
        (folder / f"{index:03}.jpg").write_bytes(stream.getvalue())


def repeat(rows: list[Row], count: int) -> Iterator[Row]:
    """The rows over and over, `count` in all."""
    for index in range(count):
        yield rows[index % len(rows)]


def measure(predictor: Predictor, rows: list[Row], count: int, rounds: int, batch_size: int, workers: int) -> Any:
    """Seconds of each way in each round, and the largest difference between their probabilities."""
    seconds: dict[str, list[float]] = {"loop": [], "batch": []}
    difference = 0.0
    for turn in range(-1, rounds):  # the first warms up
        start = time.perf_counter()
        alone = [predictor.predict(row.image, row.caption) for row in repeat(rows, count)]
        middle = time.perf_counter()
        together = list(predictor.predict_rows(repeat(rows, count), batch_size=batch_size, workers=workers))
        end = time.perf_counter()
        for one, other in zip(alone, together, strict=True):
            found = getattr(other, "probabilities", {})
            difference = max(difference, *(abs(p - found[label]) for label, p in one.probabilities.items()))
        if turn >= 0:
            seconds["loop"].append(middle - start)
            seconds["batch"].append(end - middle)
            click.echo(f"round {turn + 1}: batch is {seconds['loop'][-1] / seconds['batch'][-1]:.2f} times as fast")
    return seconds, difference


def memory_of_rows(
    predictor: Predictor, rows: list[Row], count: int, batch_size: int, workers: int
) -> dict[str, float]:
    """Peak resident memory of this process in MB, after a tenth of the rows and after all of them."""
    peaks = {}
    for number in (count // 10, count):
        for _ in predictor.predict_rows(repeat(rows, number), batch_size=batch_size, workers=workers):
            pass
        # ru_maxrss: kilobytes on Linux, bytes on macOS
        peaks[str(number)] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            1e6 if sys.platform == "darwin" else 1e3
        )
    return peaks


@click.command()
@click.option("--model", help="A model package.  [default: the released one]")
@click.option("--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="[default: synthetic]")
@click.option("--rows", type=click.IntRange(1), default=256, show_default=True, help="Rows per round.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=available_cpus, help="[default: the CPUs]")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads for one run of the graph.  [default: the physical cores]"
)
@click.option("--memory-rows", type=click.IntRange(10), help="Also show that memory does not grow with so many rows.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def main(
    model: str | None,
    pictures: Path | None,
    rows: int,
    rounds: int,
    batch_size: int,
    workers: int,
    threads: int | None,
    memory_rows: int | None,
    output: Path | None,
) -> None:
    """Measure predict_rows against a loop over predict."""
    predictor = Predictor.load(model, threads=threads)
    with tempfile.TemporaryDirectory() as temporary:
        if pictures is None:
            make_pictures(Path(temporary))
        caption = None if predictor.manifest.text is None else DEFAULT_CAPTION
        with open_rows(pictures or temporary, captions=False) as reader:
            found = [Row(row.image, caption) for _, row in zip(range(rows), reader, strict=False)]
        seconds, difference = measure(predictor, found, rows, rounds, batch_size, workers)
        memory = memory_of_rows(predictor, found, memory_rows, batch_size, workers) if memory_rows else None
    ratios = [loop / batch for loop, batch in zip(seconds["loop"], seconds["batch"], strict=True)]
    result = {
        "what": "predict_rows against a loop over predict, from picture files to predictions, in turns",
        "command": shlex.join(["python", "benchmarks/batch.py", *sys.argv[1:]]),
        "model": f"{predictor.manifest.name}@{predictor.manifest.version}",
        "pictures": "synthetic: 640x480 JPEG, quality 90, seed 0" if pictures is None else "a folder",
        "rows": rows,
        "rounds": rounds,
        "batch_size": batch_size,
        "workers": workers,
        "threads": predictor.session.threads,
        "machine": {"platform": platform.platform(), "cpus": available_cpus(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("onnxruntime", "tokenizers", "numpy", "pillow")},
        "pictures_per_second": {way: round(rows / statistics.median(times), 2) for way, times in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "max_abs_difference_of_probabilities": difference,
        "peak_resident_mb_after_rows": memory,
    }
    click.echo(f"median: batch is {result['ratio']} times as fast; {result['pictures_per_second']} pictures/s")
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
