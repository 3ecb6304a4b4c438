"""What the engine `ray` costs and gains on one machine: the same rows through both engines, in turns.

    python benchmarks/ray_overhead.py [--rows N,...] [--model PACKAGE] [--rounds N] [--output FILE]

Needs mlic-runtime[ray]. The cluster is started once, and timed; each job is then a whole `mlic-infer --input` in this
process, from loading the model to the last file. With `--model tests/data/tiny` rows are captions alone, so that nearly
all is overhead; other models get 640x480 JPEGs, made from a fixed seed, with a caption.
"""

import json
import shlex
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from batch import make_pictures
from click.testing import CliRunner

from mlic_runtime.cli import infer
from mlic_runtime.command import counts
from mlic_runtime.cpus import available_cpus, machine_facts
from mlic_runtime.feed import DEFAULT_CAPTION
from mlic_runtime.ray_engine import connected

CAPTIONS = ("red", "no blue bright", "green green", DEFAULT_CAPTION)


def write_rows(folder: Path, count: int, pictures: bool) -> Path:
    """A rows file of `count` rows, whose pictures lie in `folder`."""
    names = [path.name for path in sorted(folder.glob("*.jpg"))] if pictures else [None]
    file = folder / f"{count}.jsonl"
    lines = ({"image": names[i % len(names)], "caption": CAPTIONS[i % len(CAPTIONS)]} for i in range(count))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def seconds_of(arguments: list[str]) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    result = CliRunner().invoke(infer, arguments)
    if result.exit_code != 0:
        raise click.ClickException(f"mlic-infer {shlex.join(arguments)} failed: {result.stderr}")
    return time.perf_counter() - start


def measure(source: Path, scratch: Path, model: str, actors: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    ways: dict[str, list[str]] = {
        "local, 1 thread": ["--threads", "1", "--workers", "1"],
        f"local, {available_cpus()} CPUs": [],
        **{
            f"ray, {count} actor{'s' if count > 1 else ''} of 1 CPU": ["--engine", "ray", "--actors", str(count)]
            for count in range(1, actors + 1)
        },
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for number, (way, options) in enumerate(ways.items()):
            output = scratch / f"{source.stem}-{turn}-{number}"
            command = ["--model", model, "--input", str(source), "--output", str(output), *options]
            seconds[way].append(seconds_of(command))
            click.echo(f"{source.stem} rows, {way}: {seconds[way][-1]:.2f} s", err=True)
    return seconds


@click.command()
@click.option("--model", default="hybrid", show_default=True, help="A model package.")
@click.option(
    "--rows", default="100,1000", callback=counts, show_default=True, help="How many, one or several numbers."
)
@click.option("--actors", type=click.IntRange(1), default=2, show_default=True, help="From one up to so many.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def main(model: str, rows: tuple[int, ...], actors: int, rounds: int, output: Path | None) -> None:
    """Measure both engines."""
    pictures = Path(model).name != "tiny"
    found: list[dict[str, Any]] = []
    start = time.perf_counter()
    with connected("local", actors), tempfile.TemporaryDirectory() as temporary:
        starting = time.perf_counter() - start
        folder = Path(temporary) / "in"
        folder.mkdir()
        if pictures:
            make_pictures(folder)
        for count in rows:
            seconds = measure(write_rows(folder, count, pictures), Path(temporary), model, actors, rounds)
            for way, times in seconds.items():
                median = statistics.median(times)
                found.append(
                    {
                        "rows": count,
                        "engine": way,
                        "seconds": [round(one, 3) for one in times],
                        "rows_per_second": round(count / median, 1),
                    }
                )
    result = {
        "what": "whole jobs of mlic-infer --input with both engines, in turns; the cluster was there already",
        "command": shlex.join(["python", "benchmarks/ray_overhead.py", *sys.argv[1:]]),
        "model": model,
        "input": "captions and 640x480 JPEGs, quality 90, seed 0" if pictures else "captions alone",
        "machine": machine_facts(),
        "versions": {name: version(name) for name in ("ray", "pyarrow", "onnxruntime", "numpy")},
        "seconds_to_start_the_cluster": round(starting, 2),
        "jobs": found,
    }
    for job in found:
        click.echo(f"{job['rows']:>7} rows  {job['engine']:24} {job['rows_per_second']:>9} rows/s")
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
