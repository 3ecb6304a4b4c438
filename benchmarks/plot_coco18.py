"""The results on coco18 test as one picture: the origin's models, ours, and ours without one part at a time.

Reads what mlic-sweep, benchmarks/ablation.py and mlic-export measured.
Usage: python benchmarks/plot_coco18.py OUTPUT.png
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import click
from matplotlib.figure import Figure

_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "benchmarks" / "results"
_COLOURS = {"samples_f1": "#1f5f8b", "map": "#c8553d"}
_TITLES = {"samples_f1": "samples F1", "map": "mAP"}


class Line(NamedTuple):
    """One row of the plot: for each metric all the values that were measured (seeds or hyperparameters)."""

    name: str
    values: dict[str, list[float]]


def read(file: Path) -> dict[str, Any]:
    """A JSON object."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def lines() -> list[Line]:
    """From the top of the plot to its bottom."""
    found = []
    for model, name in (("cnn", "origin's CNN"), ("hybrid", "origin's hybrid")):
        trials = read(_RESULTS / f"coco18-origin-{model}.json")["trials"]
        tests = [trial["metrics"]["test"] for trial in trials]
        found.append(Line(f"{name}, {len(tests)} runs", {m: [test[m] for test in tests] for m in _COLOURS}))
    for split, name in (("-picture-only", "picture only"), ("-caption-only", "caption only"), ("", "both")):
        test = read(_ROOT / "exported" / "hybrid" / "manifest.json")["metrics"]["fp32"][f"test{split}"]
        found.append(Line(f"released hybrid, {name}", {metric: [test[metric]] for metric in _COLOURS}))
    for name, variant in read(_RESULTS / "coco18-ablation.json")["variants"].items():
        tests = [seed["metrics"]["test"] for seed in variant["seeds"].values()]
        found.append(Line(f"ablation: {name}", {metric: [test[metric] for test in tests] for metric in _COLOURS}))
    return found


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
def main(output: Path) -> None:
    """Draw the picture."""
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
