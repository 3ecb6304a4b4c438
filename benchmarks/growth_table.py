"""Prints the tables of growth.md from what `growth.py` measured.

python benchmarks/growth_table.py benchmarks/results/growth-2cpu-xeon.json
"""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import click
from common import markdown_table, read_json

BUSY = 0.5  # load average for each CPU above which a measurement is marked

Measurement = dict[str, Any]
Key = tuple[str, str, int]  # package, engine, workers


class Rate(NamedTuple):
    """The two numbers of the formula: seconds = start + rows / (workers x rows_per_second)."""

    start: float
    workers: int
    rows_per_second: float  # of each worker

    def seconds(self, rows: int) -> float:
        """Return how long a job with that many rows takes."""
        return self.start + rows / (self.workers * self.rows_per_second)


def read_measurements(file: Path) -> dict[Key, list[Measurement]]:
    """Return the measurements, fewest rows first; the last one where a combination was measured several times."""
    by_key: dict[Key, dict[int, Measurement]] = defaultdict(dict)
    for run in read_json(file)["runs"]:
        busy = run["load_average_before"] > BUSY * run["machine"]["cpus"]
        for measurement in run["measurements"]:
            key = (f"{run['model']} {run['precision']}", measurement["engine"], measurement["workers"])
            by_key[key][measurement["rows"]] = measurement | {"busy": busy}
    return {key: [by_rows[rows] for rows in sorted(by_rows)] for key, by_rows in sorted(by_key.items())}


def fit_rate(measurements: list[Measurement]) -> Rate:
    """Draw the line of the formula through the measurements with the fewest and with the most rows."""
    fewest, most = measurements[0], measurements[-1]
    seconds_per_row = (_seconds(most) - _seconds(fewest)) / (most["rows"] - fewest["rows"])
    workers = measurements[0]["workers"]
    return Rate(_seconds(fewest) - seconds_per_row * fewest["rows"], workers, 1 / (seconds_per_row * workers))


def _seconds(measurement: Measurement) -> float:
    return float(statistics.median(measurement["seconds"]))


def measured_table(file: Path) -> str:
    """Return what was measured, a line for each combination."""
    rows = [
        [
            package,
            engine,
            str(workers),
            f"{each['rows']:,}",
            f"{each['pictures_per_second']:.1f}" + (" (busy)" if each["busy"] else ""),
            f"{each['cpu_ms_per_picture']:.2f}",
            f"{each['peak_mb']:.0f}",
        ]
        for (package, engine, workers), measurements in read_measurements(file).items()
        for each in measurements
    ]
    header = "package, engine, workers, rows, pictures/s (start included), CPU-ms for each, peak memory in MB"
    return markdown_table(header.split(", "), rows)


def rate_table(file: Path) -> str:
    """Return the numbers of the formula, and its errors for the jobs in between, which they were not made from."""
    rows = []
    for (package, engine, workers), measurements in read_measurements(file).items():
        if len(measurements) < 2:
            continue
        rate = fit_rate(measurements)
        errors = [
            f"{rate.seconds(each['rows']) / _seconds(each) - 1:+.0%} at {each['rows']:,} rows"
            for each in measurements[1:-1]
        ]
        numbers = [f"{rate.start:.1f}", f"{rate.rows_per_second:.1f}"]
        rows.append([package, engine, str(workers), *numbers, "; ".join(errors)])
    header = "package, engine, workers, start in s, rows/s of each worker, error of the formula"
    return markdown_table(header.split(", "), rows)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """Print the tables of growth.md."""
    click.echo(f"{measured_table(file)}\n\n{rate_table(file)}")


if __name__ == "__main__":
    main()
