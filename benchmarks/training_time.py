"""Measures what options of mlic-train do to the time of an epoch, in turns.

python benchmarks/training_time.py --try "--batch-size 30" --try "--batch-size 50" -- --model origin_hybrid --data DATA
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from common import describe, output_option, rounds_option, write_json


def epoch_seconds(arguments: Sequence[str]) -> float:
    """Return the seconds of the first epoch of a new run, validation included.

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
@click.option("--try", "tried", multiple=True, required=True, help="Options of one run. Repeat.")
@rounds_option(5)
@output_option
@click.argument("training", nargs=-1, type=click.UNPROCESSED)
def main(tried: tuple[str, ...], rounds: int, output: Path | None, training: tuple[str, ...]) -> None:
    """Compare the time of an epoch; ratios are to the first run of the same round."""
    seconds: dict[str, list[float]] = {options: [] for options in tried}
    for turn in range(rounds):
        for options in tried:
            seconds[options].append(epoch_seconds([*training, *shlex.split(options)]))
            click.echo(f"round {turn + 1} of {rounds}: {options}: {seconds[options][-1]} s", err=True)
    results = {}
    for options, times in seconds.items():
        ratios = [one / first for one, first in zip(times, seconds[tried[0]], strict=True)]
        results[options] = {"seconds": times, "ratio": round(statistics.median(ratios), 3)}
        click.echo(f"{statistics.median(times):8.1f} s  {results[options]['ratio']:.3f}  {options}")
    write_json(output, describe("seconds of a training epoch", ("torch", "numpy")) | {"results": results})


if __name__ == "__main__":
    main()
