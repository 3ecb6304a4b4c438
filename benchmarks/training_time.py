"""What an option does to the time of a training epoch: all values in turns, to share what else the machine does.

Usage: python benchmarks/training_time.py --try "--batch-size 30" --try "--batch-size 50" [--rounds N] [--output FILE]
           -- OPTIONS OF MLIC-TRAIN
"""

import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from mlic_train.base.files import write_bytes


def seconds(arguments: Sequence[str]) -> float:
    """Of the first epoch of a new run, validation included.

    Raises:
        click.ClickException: mlic-train failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = ["--epochs", "1", "--format", "json", "--output", str(Path(folder, "run")), *arguments]
        ended = subprocess.run(
            [sys.executable, "-m", "mlic_train", *given], capture_output=True, text=True, check=False
        )
    if ended.returncode:
        raise click.ClickException(f"mlic-train {shlex.join(arguments)} failed: {ended.stderr.strip()}")
    return float(json.loads(ended.stdout)["history"][0]["seconds"])


@click.command()
@click.option("--try", "tried", multiple=True, required=True, help="Options of one of the runs to compare.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each of them runs.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
@click.argument("training", nargs=-1, type=click.UNPROCESSED)
def main(tried: tuple[str, ...], rounds: int, output: Path | None, training: tuple[str, ...]) -> None:
    """Compare the time of an epoch; ratios are against the first, round by round."""
    found: dict[str, list[float]] = {options: [] for options in tried}
    for turn in range(rounds):
        for options in tried:
            found[options].append(seconds([*training, *shlex.split(options)]))
            click.echo(f"round {turn + 1} of {rounds}: {options}: {found[options][-1]} s", err=True)
    results = {}
    for options, times in found.items():
        ratios = [one / first for one, first in zip(times, found[tried[0]], strict=True)]
        results[options] = {"seconds": times, "ratio": round(statistics.median(ratios), 3)}
        click.echo(f"{statistics.median(times):8.1f} s  {results[options]['ratio']:.3f}  {options}")
    if output is not None:
        facts = {
            "command": shlex.join(["python", "benchmarks/training_time.py", *sys.argv[1:]]),
            "machine": platform.machine(),
            "versions": {name: version(name) for name in ("torch", "numpy")},
            "results": results,
        }
        write_bytes(output, (json.dumps(facts, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
