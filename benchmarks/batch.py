"""Measures batch prediction (`predict_rows`) against a loop over `predict`, and against what the CPUs can do, in turns.

    python benchmarks/batch.py --rows 256 --rounds 7 --output benchmarks/results/batch.json
    python benchmarks/batch.py --batch-size 4,8,16,32 --workers 1,2 --rounds 5

What the CPUs can do is CPUs / (decode + graph): the time of one row in one thread, with a graph of one thread and a
batch of one. That supposes that two CPUs do twice the work of one. Where they are two threads of a core, or share a
limit, they do not: `--processes` also measures that many processes at once, which share nothing, each with one thread.

The pictures are synthetic, or those of a folder. With --memory-rows it also shows that memory does not grow with rows.
"""

import itertools
import statistics
import subprocess
import sys
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


def name_of(batch_size: int, workers: int) -> str:
    """Return what a way of predicting is called in the result."""
    return f"batch {batch_size}, {workers} {'worker' if workers == 1 else 'workers'}"


def measure(
    predictor: Predictor, single: Predictor, rows: list[Row], count: int, rounds: int, ways: list[tuple[int, int]]
) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of the loop, of each way and of one thread in each round, and how far probabilities differ.

    Args:
        predictor: the model.
        single: the same with one thread.
        rows: some rows.
        count: predict so many.
        rounds: measured turns.
        ways: pairs of batch size and workers.
    """
    seconds: dict[str, list[float]] = {}
    difference = 0.0

    def timed(name: str, start: float) -> None:
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    for turn in range(-1, rounds):  # the first warms up
        start = time.perf_counter()
        alone = [predictor.predict(row.image, row.caption) for row in repeat(rows, count)]
        timed("loop", start)
        start = time.perf_counter()
        pixels = [single.prepare(row) for row in repeat(rows, count)]
        timed("decode", start)
        tokens = single._tokenise([rows[0].caption])
        start = time.perf_counter()
        for picture in pixels:
            single.session.run(picture[None], *tokens)
        timed("graph", start)
        del pixels
        for way in ways:
            start = time.perf_counter()
            together = list(predictor.predict_rows(repeat(rows, count), batch_size=way[0], workers=way[1]))
            timed(name_of(*way), start)
            for one, other in zip(alone, together, strict=True):
                probabilities = getattr(other, "probabilities", {})
                difference = max(difference, *(abs(p - probabilities[label]) for label, p in one.probabilities.items()))
        if turn < 0:
            seconds = {}
            continue
        ratios = (
            f"{name} {seconds['loop'][-1] / times[-1]:.2f}"
            for name, times in seconds.items()
            if name.startswith("batch")
        )
        click.echo(f"round {turn + 1}, times as fast as the loop: {'; '.join(ratios)}", err=True)
    return seconds, difference


def rows_of_processes(model: str | None, precision: str, count: int, rows: int) -> float:
    """Return the rows per second of a number of processes at once, each a loop over `predict` in one thread.

    Each process is ready before the first begins to count.
    """
    command = [sys.executable, __file__, "--as-process", "--precision", precision, "--rows", str(rows)]
    command += ["--model", model] if model else []
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    seconds = time.perf_counter() - start
    for process in processes:
        process.communicate()
    return count * rows / seconds


def as_process(predictor: Predictor, some: list[Row], rows: int) -> None:
    """Predict rows when a line comes on standard input."""
    predictor.predict(some[0].image, some[0].caption)
    print("ready", flush=True)
    sys.stdin.readline()
    for row in repeat(some, rows):
        predictor.predict(row.image, row.caption)
    print("done", flush=True)


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


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        found = [int(part) for part in value.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise click.BadParameter(f"found {value!r}, expected whole numbers from 1, separated by commas")
    return found


@click.command()
@model_option
@click.option("--precision", default="auto", show_default=True, help="See mlic-infer.")
@click.option("--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="[default: synthetic]")
@click.option("--rows", type=click.IntRange(1), default=256, show_default=True, help="Rows per round.")
@rounds_option(7)
@click.option("--batch-size", "batch_sizes", callback=_numbers, default="8", show_default=True, help="One or several.")
@click.option("--workers", callback=_numbers, help="One or several.  [default: the CPUs]")
@click.option("--threads", type=click.IntRange(1), help="Threads of the graph.  [default: the physical cores]")
@click.option("--processes", type=click.IntRange(1), help="Also measure so many processes at once, and one.")
@click.option("--memory-rows", type=click.IntRange(10), help="Measure memory over this number of rows, too.")
@click.option("--as-process", "is_process", is_flag=True, hidden=True)
@output_option
def main(
    model: str | None,
    precision: str,
    pictures: Path | None,
    rows: int,
    rounds: int,
    batch_sizes: list[int],
    workers: list[int] | None,
    threads: int | None,
    processes: int | None,
    memory_rows: int | None,
    is_process: bool,
    output: Path | None,
) -> None:
    """Measure predict_rows against a loop over predict."""
    result = describe("predict_rows against a loop over predict, from picture files to predictions, in turns")
    single = Predictor.load(model, precision=precision, threads=1)
    ways = list(itertools.product(batch_sizes, workers or [available_cpus()]))
    with tempfile.TemporaryDirectory() as temporary:
        if pictures is None:
            make_pictures(Path(temporary))
        caption = None if single.manifest.text is None else DEFAULT_CAPTION
        with open_rows(pictures or temporary, captions=False) as reader:
            some = [Row(row.image, caption) for row in itertools.islice(reader, rows)]
        if is_process:
            as_process(single, some, rows)
            return
        predictor = Predictor.load(model, precision=precision, threads=threads)
        seconds, difference = measure(predictor, single, some, rows, rounds, ways)
        memory = memory_of_rows(predictor, some, memory_rows, *ways[-1]) if memory_rows else None
    per_second = {name: round(rows / statistics.median(times), 2) for name, times in seconds.items()}
    possible = [available_cpus() * rows / (a + b) for a, b in zip(seconds["decode"], seconds["graph"], strict=True)]
    result |= {
        "model": predictor.manifest.title,
        "precision": predictor.precision,
        "pictures": PICTURES if pictures is None else "a folder",
        "rows": rows,
        "rounds": rounds,
        "threads": predictor.session.threads,
        "pictures_per_second": per_second,
        "cpus_by_decode_plus_graph": round(statistics.median(possible), 2),
        "ways": {name_of(*way): _compare(seconds, name_of(*way), possible, rows) for way in ways},
        "max_abs_difference_of_probabilities": difference,
        "peak_resident_mb_after_rows": memory,
    }
    if processes is not None:
        result["rows_per_second_of_processes"] = {
            str(count): round(rows_of_processes(model, predictor.precision, count, rows), 2) for count in (1, processes)
        }
    for name, value in [*per_second.items(), *result["ways"].items()]:
        click.echo(f"{name}: {value}")
    click.echo(f"CPUs / (decode + graph): {result['cpus_by_decode_plus_graph']} pictures/s")
    click.echo(f"processes: {result.get('rows_per_second_of_processes')}")
    write_json(output, result)


def _compare(seconds: dict[str, list[float]], name: str, possible: list[float], rows: int) -> dict[str, float]:
    """Return how a way compares with the loop and with what is possible; medians over the rounds."""
    ratios = [loop / way for loop, way in zip(seconds["loop"], seconds[name], strict=True)]
    return {
        "ratio_to_loop": round(statistics.median(ratios), 3),
        "ratio_to_loop_min": round(min(ratios), 3),
        "ratio_to_loop_max": round(max(ratios), 3),
        "share_of_possible": round(
            statistics.median(rows / way / most for way, most in zip(seconds[name], possible, strict=True)), 3
        ),
    }


if __name__ == "__main__":
    main()
