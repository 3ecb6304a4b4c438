"""Measures how throughput and memory of mlic-infer grow with rows and workers, for its local engine and for Ray.

    python benchmarks/growth.py --rows 100,1000 --rounds 3 --engine local --engine ray --output FILE

Every measurement is a whole `mlic-infer`, from nothing to a complete result. Its process may use as many CPUs as it has
workers. With the local engine that many threads decode and that many run the graph; with Ray there are that many actors
of one CPU. Each round goes through all combinations. A row is the path of a synthetic picture and a caption. The result
is added at the end of FILE; `growth_table.py` turns FILE into the tables of growth.md.

Memory is the sum over the process and all its descendants, sampled four times a second; shared memory counts once (the
kernel's "proportional set size"). The result is the largest sum, or the peak of the largest process if that is more.
CPU time is summed up over the same processes. Linux only.
"""

import csv
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
from common import (
    PICTURES,
    RUNTIME_LIBRARIES,
    ProcessCost,
    describe,
    make_pictures,
    measure_process,
    model_option,
    read_json,
    rounds_option,
    write_json,
)

from mlic_runtime import Predictor, open_rows
from mlic_runtime.base.machine import available_cpus
from mlic_runtime.base.override import override
from mlic_runtime.bench.cold_start import INFER
from mlic_runtime.bench.inputs import DEFAULT_CAPTION
from mlic_runtime.cli.options import parse_counts

WHAT = "whole mlic-infer processes: throughput, CPU time and memory by rows, workers and engine"
BATCH_SIZE = 32
_SAMPLE_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_READER_ROWS = 20_000


class ProcessTreeSampler(threading.Thread):
    """A thread that samples a process and its descendants until `stop` is set."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.stop, self.peak = threading.Event(), 0
        self._pid, self._cpu = pid, dict[int, float]()

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes that were seen, each as of its last sample."""
        return sum(self._cpu.values())

    @override
    def run(self) -> None:
        while not self.stop.wait(_SAMPLE_SECONDS):
            children, ticks = defaultdict(list), {}
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal() and (fields := _read(entry / "stat").rpartition(")")[2].split()):
                    children[int(fields[1])].append(int(entry.name))
                    ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
            tree = [self._pid]
            for pid in tree:
                tree.extend(children[pid])
            self._cpu |= {pid: ticks[pid] / _TICKS for pid in tree if pid in ticks}
            self.peak = max(self.peak, sum(map(_proportional_bytes, tree)))


def _proportional_bytes(pid: int) -> int:
    lines = _read(Path("/proc", str(pid), "smaps_rollup")).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has just ended
        return ""


def run(command: list[str], cpus: int) -> ProcessCost:
    """Run a command to its end on that many CPUs.

    Raises:
        click.ClickException: it failed.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cpus > len(allowed):
        raise click.ClickException(f"{cpus} workers need as many CPUs; this process may use {len(allowed)}")
    samplers: list[ProcessTreeSampler] = []

    def sample(pid: int) -> None:
        os.sched_setaffinity(0, allowed)
        samplers.append(ProcessTreeSampler(pid))
        samplers[0].start()

    os.sched_setaffinity(0, allowed[:cpus])  # the new process inherits it
    try:
        cost = measure_process(command, started=sample)
    finally:
        os.sched_setaffinity(0, allowed)
        for sampler in samplers:
            sampler.stop.set()
            sampler.join()
    # The kernel's count includes what happened after the last sample, but not the processes that Ray detaches.
    return cost._replace(cpu=max(samplers[0].cpu, cost.cpu), peak=max(samplers[0].peak, cost.peak))


def write_rows(file: Path, pictures: list[str], count: int, caption: str | None) -> None:
    """Write a CSV file with that many rows."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image"] if caption is None else ["image", "caption"])
        for name in itertools.islice(itertools.cycle(pictures), count):
            writer.writerow([name] if caption is None else [name, caption])


def command_line(engine: str, workers: int, source: Path, output: Path, given: list[str]) -> list[str]:
    """Return the command of one measurement."""
    shared = ["--input", str(source), "--output", str(output), "--batch-size", str(BATCH_SIZE), *given]
    if engine == "ray":
        own = ["--engine", "ray", "--actors", str(workers), "--threads", "1", "--workers", "1"]
    else:
        own = ["--format", "jsonl", "--threads", str(workers), "--workers", str(workers)]
    return [sys.executable, "-c", INFER, *shared, *own]


def reader_microseconds(folder: Path, pictures: list[str], caption: str | None) -> float:
    """Return the CPU time to read a row of a CSV file, which one process does for all workers; the least of three."""
    source = folder / "reader.csv"
    write_rows(source, pictures, _READER_ROWS, caption)
    times = []
    for _ in range(3):
        begin = time.process_time()
        with open_rows(source, image_root=folder, captions=caption is not None) as rows:
            number = sum(1 for _ in rows)
        times.append((time.process_time() - begin) / number * 1e6)
    return round(min(times), 2)


def measure(
    engines: tuple[str, ...],
    workers: tuple[int, ...],
    rows: tuple[int, ...],
    rounds: int,
    given: list[str],
    caption: str | None,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Measure all combinations, in turns.

    Returns:
        One measurement for each combination, and what all share: the bytes of a picture and the time to read a row.
    """
    costs: dict[tuple[str, int, int], list[ProcessCost]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_pictures(folder)
        pictures = sorted(path.name for path in folder.glob("*.jpg"))
        common = {
            "picture_bytes": round(statistics.mean((folder / name).stat().st_size for name in pictures)),
            "reader_us_per_row": reader_microseconds(folder, pictures, caption),
        }
        for number in rows:
            write_rows(folder / f"{number}.csv", pictures, number, caption)
        for turn in range(rounds):
            for key in itertools.product(rows, engines, workers):
                number, engine, count = key
                output = folder / f"{number}-{engine}-{count}-{turn}"
                cost = run(command_line(engine, count, folder / f"{number}.csv", output, given), count)
                costs[engine, count, number].append(cost)
                click.echo(
                    f"{engine}, workers {count}, rows {number}: {number / cost.wall:.1f} pictures/s, "
                    f"{cost.cpu / number * 1e3:.2f} CPU-ms each, {cost.peak / 1e6:.0f} MB",
                    err=True,
                )
    return [_summary(*key, runs) for key, runs in costs.items()], common


def _summary(engine: str, workers: int, rows: int, costs: list[ProcessCost]) -> dict[str, Any]:
    seconds = statistics.median(cost.wall for cost in costs)
    return {
        "engine": engine,
        "workers": workers,
        "rows": rows,
        "seconds": [round(cost.wall, 2) for cost in costs],
        "pictures_per_second": round(rows / seconds, 2),
        "cpu_ms_per_picture": round(statistics.median(cost.cpu for cost in costs) / rows * 1e3, 3),
        "peak_mb": round(max(cost.peak for cost in costs) / 1e6, 1),
    }


@click.command()
@model_option
@click.option("--precision", default="auto", show_default=True)
@click.option("--rows", callback=parse_counts, default="100,1000", show_default=True, metavar="N,...")
@click.option("--workers", callback=parse_counts, default="1,2", show_default=True, metavar="N,...")
@click.option("--engine", "engines", type=click.Choice(["local", "ray"]), multiple=True, default=["local"])
@rounds_option(3)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Add the result to this JSON file.")
def main(
    model: str | None,
    precision: str,
    rows: tuple[int, ...],
    workers: tuple[int, ...],
    engines: tuple[str, ...],
    rounds: int,
    output: Path | None,
) -> None:
    """Measure throughput and memory against rows and workers."""
    predictor = Predictor.load(model, precision=precision)
    caption = None if predictor.manifest.text is None else DEFAULT_CAPTION
    given = ["--precision", predictor.precision, *([] if model is None else ["--model", str(Path(model).resolve())])]
    facts, load = describe(WHAT, (*RUNTIME_LIBRARIES, "pyarrow", "ray")), os.getloadavg()[0]
    measurements, common = measure(engines, workers, rows, rounds, given, caption)
    result = {
        **facts,
        "model": predictor.manifest.title,
        "precision": predictor.precision,
        "pictures": PICTURES,
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        "load_average_before": round(load, 2),
        **common,
        "measurements": measurements,
    }
    if load > 0.5 * available_cpus():
        click.echo(
            f"Note: the machine was busy (load average {load:.1f}); trust CPU times rather than seconds", err=True
        )
    if output is None:
        click.echo(json.dumps(result, indent=2))
        return
    content: dict[str, Any] = read_json(output) if output.exists() else {"what": WHAT, "runs": []}
    content["runs"].append(result)
    write_json(output, content)


if __name__ == "__main__":
    main()
