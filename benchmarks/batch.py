"""Measures batch prediction (`predict_rows`) against a loop over `predict`: same pictures, same session, in turns.

    python benchmarks/batch.py --rows 256 --rounds 7 --output benchmarks/results/batch.json

The pictures are synthetic, or those of a folder. With --memory-rows it also shows that memory does not grow with rows.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from common import PICTURES, describe, make_pictures, model_option, output_option, rounds_option, write_json

from mlic_runtime import Predictor, Row, open_rows
from mlic_runtime.base.machine import available_cpus, peak_bytes
from mlic_runtime.bench.inputs import DEFAULT_CAPTION


def repeat(rows: list[Row], count: int) -> Iterator[Row]:
    """Return the rows over and over, `count` in all."""
    return itertools.islice(itertools.cycle(rows), count)


def measure(
    predictor: Predictor, rows: list[Row], count: int, rounds: int, batch_size: int, workers: int
) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of the loop and of the batch in each round, and how far their probabilities differ at most."""
    seconds: dict[str, list[float]] = {"loop": [], "batch": []}
    difference = 0.0
    for turn in range(-1, rounds):  # the first warms up
        start = time.perf_counter()
        alone = [predictor.predict(row.image, row.caption) for row in repeat(rows, count)]
        middle = time.perf_counter()
        together = list(predictor.predict_rows(repeat(rows, count), batch_size=batch_size, workers=workers))
        end = time.perf_counter()
        for one, other in zip(alone, together, strict=True):
            probabilities = getattr(other, "probabilities", {})
            difference = max(difference, *(abs(p - probabilities[label]) for label, p in one.probabilities.items()))
        if turn >= 0:
            seconds["loop"].append(middle - start)
            seconds["batch"].append(end - middle)
            click.echo(f"round {turn + 1}: batch is {seconds['loop'][-1] / seconds['batch'][-1]:.2f} times as fast")
    return seconds, difference


def memory_of_rows(
    predictor: Predictor, rows: list[Row], count: int, batch_size: int, workers: int
) -> dict[str, float]:
    """Return the peak resident memory of this process in MB, after a tenth of the rows and after all of them."""
    peaks = {}
    for number in (count // 10, count):
        for _ in predictor.predict_rows(repeat(rows, number), batch_size=batch_size, workers=workers):
            pass
        peaks[str(number)] = (peak_bytes() or 0) / 1e6
    return peaks


@click.command()
@model_option
@click.option("--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="[default: synthetic]")
@click.option("--rows", type=click.IntRange(1), default=256, show_default=True, help="Rows per round.")
@rounds_option(7)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=available_cpus, help="[default: the CPUs]")
@click.option("--threads", type=click.IntRange(1), help="Threads of the graph.  [default: the physical cores]")
@click.option("--memory-rows", type=click.IntRange(10), help="Measure memory over this number of rows, too.")
@output_option
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
    result = describe("predict_rows against a loop over predict, from picture files to predictions, in turns")
    predictor = Predictor.load(model, threads=threads)
    with tempfile.TemporaryDirectory() as temporary:
        if pictures is None:
            make_pictures(Path(temporary))
        caption = None if predictor.manifest.text is None else DEFAULT_CAPTION
        with open_rows(pictures or temporary, captions=False) as reader:
            some = [Row(row.image, caption) for row in itertools.islice(reader, rows)]
        seconds, difference = measure(predictor, some, rows, rounds, batch_size, workers)
        memory = memory_of_rows(predictor, some, memory_rows, batch_size, workers) if memory_rows else None
    ratios = [loop / batch for loop, batch in zip(seconds["loop"], seconds["batch"], strict=True)]
    result |= {
        "model": predictor.manifest.title,
        "pictures": PICTURES if pictures is None else "a folder",
        "rows": rows,
        "rounds": rounds,
        "batch_size": batch_size,
        "workers": workers,
        "threads": predictor.session.threads,
        "pictures_per_second": {way: round(rows / statistics.median(times), 2) for way, times in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "max_abs_difference_of_probabilities": difference,
        "peak_resident_mb_after_rows": memory,
    }
    click.echo(f"median: batch is {result['ratio']} times as fast; {result['pictures_per_second']} pictures/s")
    write_json(output, result)


if __name__ == "__main__":
    main()
