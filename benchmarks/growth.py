"""How throughput and memory grow with the rows and the workers, for the local engine of mlic-infer and for Ray.

    python benchmarks/growth.py [--model PACKAGE] [--precision P] [--rows 100,1000] [--workers 1,2] [--engine local]...
                                [--rounds N] [--output FILE]

Every measurement is a whole `mlic-infer`, from nothing to a complete result, in a process of its own that may use as
many CPUs as it has workers: with the local engine that many threads decode and as many run the graph, with Ray there
are that many actors of one CPU each. The rounds go through all combinations in turns. A row is a path and a caption;
the pictures are those of `batch.py`, over and over. What is measured is added to the FILE, after what is in it.

Memory is the largest sum over the process and all its descendants, where memory that several share counts once (the
kernel's "proportional set size"), looked at four times a second, or the largest process's own peak if that is more. CPU
time is counted the same way. Linux only.
"""

import csv
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import click
from batch import make_pictures

from mlic_runtime import Predictor, open_rows
from mlic_runtime.base.machine import available_cpus, machine_facts
from mlic_runtime.bench.cold_start import INFER
from mlic_runtime.bench.inputs import DEFAULT_CAPTION
from mlic_runtime.cli.options import parse_counts

LIBRARIES = ("onnxruntime", "tokenizers", "numpy", "pillow", "pyarrow", "ray")
BATCH_SIZE = 32
_SAMPLE_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_READER_ROWS = 20_000


class Used(NamedTuple):
    """Seconds from start to end, CPU seconds, and peak memory in bytes."""

    seconds: float
    cpu: float
    peak: int


class Watch(threading.Thread):
    """Looks at a process and its descendants until `stop` is set."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.stop, self.peak = threading.Event(), 0
        self._pid, self._cpu = pid, dict[int, float]()

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes that were seen, as of the last look at each."""
        return sum(self._cpu.values())

    def run(self) -> None:
        """Look until told to stop."""
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
            self.peak = max(self.peak, sum(map(_proportional, tree)))


def _proportional(pid: int) -> int:
    lines = _read(Path("/proc", str(pid), "smaps_rollup")).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has just ended
        return ""


def run(command: list[str], cpus: int) -> Used:
    """Run a command to its end on that many CPUs.

    Raises:
        click.ClickException: it failed.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cpus > len(allowed):
        raise click.ClickException(f"{cpus} workers need as many CPUs; this process may use {len(allowed)}")
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        os.sched_setaffinity(0, allowed[:cpus])
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        finally:
            os.sched_setaffinity(0, allowed)
        watch = Watch(process.pid)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop.set()
        watch.join()
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            raise click.ClickException(f"{shlex.join(command)[:300]} failed: {text}")
    # The kernel's own count has what happened after the last look, but not the processes that Ray leaves to themselves.
    cpu = max(watch.cpu, usage.ru_utime + usage.ru_stime)
    return Used(seconds, cpu, max(watch.peak, usage.ru_maxrss * 1024))


def write_rows(file: Path, pictures: list[str], count: int, caption: str | None) -> None:
    """A CSV file of that many rows."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image"] if caption is None else ["image", "caption"])
        for name in itertools.islice(itertools.cycle(pictures), count):
            writer.writerow([name] if caption is None else [name, caption])


def command_line(engine: str, workers: int, source: Path, output: Path, given: list[str]) -> list[str]:
    """The whole `mlic-infer` of a measurement."""
    shared = ["--input", str(source), "--output", str(output), "--batch-size", str(BATCH_SIZE), *given]
    if engine == "ray":
        own = ["--engine", "ray", "--actors", str(workers), "--threads", "1", "--workers", "1"]
    else:
        own = ["--format", "jsonl", "--threads", str(workers), "--workers", str(workers)]
    return [sys.executable, "-c", INFER, *shared, *own]


def reader_microseconds(folder: Path, pictures: list[str], caption: str | None) -> float:
    """CPU time to read a row of a CSV file, which one process does for all workers; the least of three."""
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
    """All combinations, in turns.

    Returns:
        What was measured of each, and what all have in common: bytes of a picture and the time to read a row.
    """
    found: dict[tuple[str, int, int], list[Used]] = defaultdict(list)
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
                used = run(command_line(engine, count, folder / f"{number}.csv", output, given), count)
                found[engine, count, number].append(used)
                click.echo(
                    f"{engine}, workers {count}, rows {number}: {number / used.seconds:.1f} pictures/s, "
                    f"{used.cpu / number * 1e3:.2f} CPU-ms each, {used.peak / 1e6:.0f} MB",
                    err=True,
                )
    return [_summary(*key, used) for key, used in found.items()], common


def _summary(engine: str, workers: int, rows: int, used: list[Used]) -> dict[str, Any]:
    seconds = statistics.median(one.seconds for one in used)
    return {
        "engine": engine,
        "workers": workers,
        "rows": rows,
        "seconds": [round(one.seconds, 2) for one in used],
        "pictures_per_second": round(rows / seconds, 2),
        "cpu_ms_per_picture": round(statistics.median(one.cpu for one in used) / rows * 1e3, 3),
        "peak_mb": round(max(one.peak for one in used) / 1e6, 1),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@click.command()
@click.option("--model", help="A model package.  [default: the released one]")
@click.option("--precision", default="auto", show_default=True)
@click.option("--rows", callback=parse_counts, default="100,1000", show_default=True, metavar="N,...")
@click.option("--workers", callback=parse_counts, default="1,2", show_default=True, metavar="N,...")
@click.option("--engine", "engines", type=click.Choice(["local", "ray"]), multiple=True, default=["local"])
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
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
    load = os.getloadavg()[0]
    measurements, common = measure(engines, workers, rows, rounds, given, caption)
    result = {
        "command": shlex.join(["python", "benchmarks/growth.py", *sys.argv[1:]]),
        "model": f"{predictor.manifest.name}@{predictor.manifest.version}",
        "precision": predictor.precision,
        "pictures": "synthetic: 640x480 JPEG, quality 90, seed 0",
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        "load_average_before": round(load, 2),
        "machine": machine_facts(),
        "versions": _versions(),
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
    what = "whole mlic-infer processes: throughput, CPU time and memory by rows, workers and engine"
    before: dict[str, Any] = {"what": what, "runs": []}
    if output.exists():
        before = json.loads(output.read_text(encoding="utf-8"))
    before["runs"].append(result)
    output.write_text(json.dumps(before, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
