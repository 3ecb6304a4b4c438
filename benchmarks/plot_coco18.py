"""Draws the results on coco18 test: the origin's models, ours, and ours without one part at a time.

    python benchmarks/plot_coco18.py benchmarks/results/coco18.png

It reads what mlic-sweep, benchmarks/ablation.py and mlic-export measured.
"""

from pathlib import Path
from typing import NamedTuple

import click
from common import COLOURS, RESULTS, ROOT, read_json
from matplotlib.figure import Figure

_COLOURS = {"samples_f1": COLOURS[0], "map": COLOURS[1]}
_TITLES = {"samples_f1": "samples F1", "map": "mAP"}


class Line(NamedTuple):
    """One row of the plot: for each metric the values of all seeds or hyperparameters."""

    name: str
    values: dict[str, list[float]]


def lines() -> list[Line]:
    """Return the rows of the plot, from top to bottom."""
    rows = []
    for model, name in (("cnn", "origin's CNN"), ("hybrid", "origin's hybrid")):
        trials = read_json(RESULTS / f"coco18-origin-{model}.json")["trials"]
        tests = [trial["metrics"]["test"] for trial in trials]
        rows.append(Line(f"{name}, {len(tests)} runs", {m: [test[m] for test in tests] for m in _COLOURS}))
    for split, name in (("-picture-only", "picture only"), ("-caption-only", "caption only"), ("", "both")):
        test = read_json(ROOT / "exported" / "hybrid" / "manifest.json")["metrics"]["fp32"][f"test{split}"]
        rows.append(Line(f"released hybrid, {name}", {metric: [test[metric]] for metric in _COLOURS}))
    for name, variant in read_json(RESULTS / "coco18-ablation.json")["variants"].items():
        tests = [seed["metrics"]["test"] for seed in variant["seeds"].values()]
        rows.append(Line(f"ablation: {name}", {metric: [test[metric] for test in tests] for metric in _COLOURS}))
    return rows


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
def main(output: Path) -> None:
    """Draw the plot into OUTPUT."""
    rows = lines()
    figure = Figure(figsize=(9, 0.34 * len(rows) + 1.0), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        for metric, colour in _COLOURS.items():
            values = row.values[metric]
            axes.plot([min(values), max(values)], [place, place], color=colour, alpha=0.35, linewidth=2)
            label = _TITLES[metric] if place == 0 else None
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.8, label=label)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("on the 500 labelled rows of coco18 test")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
