"""Draws what mlic-bench measured: latency distribution, throughput against batch size, and stages.

    python benchmarks/plot_bench.py grid.json stages.json --output bench.png

It reads the JSON of mlic-bench: of one combination, of several (--batch-size 1,4,16), and of --stages. Panels without
data are left out.
"""

from pathlib import Path
from typing import Any

import click
from common import COLOURS, read_json
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_STYLES = ("-", "--", ":", "-.")

Report = dict[str, Any]


def read(path: Path) -> list[Report]:
    """Return the reports in a file of mlic-bench, each of one combination or of the stages.

    Raises:
        click.ClickException: the file has other content.
    """
    try:
        content = read_json(path)
        reports: list[Report] = content.get("combinations", [content])
        for report in reports:
            if "stages" not in report:
                list(report["timings"][0]["quantiles_ms"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise click.ClickException(
            f"{path} has nothing to draw ({type(error).__name__}: {error}); expected the JSON of mlic-bench or "
            "mlic-bench --stages"
        ) from error
    return reports


def draw_latency(axes: Axes, reports: list[Report], colours: dict[str, str]) -> None:
    """Draw the share of runs up to each time, for the smallest batch size that was measured."""
    smallest = min(report["batch_size"] for report in reports)
    drawn = [report for report in reports if report["batch_size"] == smallest]
    for report in drawn:
        for timing in report["timings"]:
            quantiles = timing["quantiles_ms"]
            shares = [index / (len(quantiles) - 1) for index in range(len(quantiles))]
            axes.plot(quantiles, shares, color=colours[timing["name"]], **_line(report, timing, reports))
    shown = [time for report in drawn for timing in report["timings"] for time in timing["quantiles_ms"]]
    if max(shown) > 10 * min(shown):
        axes.set_xscale("log")
    axes.set(title=f"latency, batch size {smallest}", xlabel="ms", ylabel="share of runs")


def draw_throughput(axes: Axes, reports: list[Report], colours: dict[str, str]) -> None:
    """Draw pictures per second against batch size, a line for each backend, precision and number of threads."""
    lines: dict[str, tuple[str, dict[str, Any], list[tuple[int, float]]]] = {}
    for report in reports:
        for timing in report["timings"]:
            line = _line(report, timing, reports)
            _, _, points = lines.setdefault(line["label"], (colours[timing["name"]], line, []))
            points.append((report["batch_size"], timing["pictures_per_second"]))
    for colour, line, points in lines.values():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", color=colour, **line)
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({report["batch_size"] for report in reports}))
    axes.set(title="throughput", xlabel="batch size", ylabel="pictures / s")


def draw_stages(axes: Axes, reports: list[Report]) -> None:
    """Draw the medians of the stages of a prediction one behind the other, a bar for each report."""
    names = [f"{report['model']}\n{report['precision']}, {_threads(report)}" for report in reports]
    ends = [0.0] * len(reports)
    for index, stage in enumerate(stage["name"] for stage in reports[0]["stages"]):
        widths = [report["stages"][index]["p50_ms"] for report in reports]
        axes.barh(range(len(reports)), widths, left=ends, color=COLOURS[index % len(COLOURS)], label=stage)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.set_yticks(range(len(reports)), names)
    axes.set(title="one prediction", xlabel="ms (medians)")


def _line(report: Report, timing: Report, reports: list[Report]) -> dict[str, Any]:
    """Return the line's style, by precision and threads, and its label; the colour stands for the backend."""
    kinds = list(dict.fromkeys(_kind(one) for one in reports))
    # Other backends always run in float32.
    kind = _kind(report) if timing["name"] == report["timings"][0]["name"] else _threads(report)
    label = f"{timing['name']}, {kind}" if len(kinds) > 1 else timing["name"]
    return {"linestyle": _STYLES[kinds.index(_kind(report)) % len(_STYLES)], "label": label}


def _kind(report: Report) -> str:
    return f"{report['precision']}, {_threads(report)}"


def _threads(report: Report) -> str:
    return "1 thread" if report["threads"] == 1 else f"{report['threads']} threads"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .png or .svg file.")
def main(files: tuple[Path, ...], output: Path) -> None:
    """Draw the FILES, which are JSON of mlic-bench."""
    if output.suffix.lower() not in (".png", ".svg"):
        raise click.BadParameter(f"expected a name that ends in .png or .svg, found {output.name}")
    reports = [report for path in files for report in read(path)]
    stages = [report for report in reports if "stages" in report]
    timed = [report for report in reports if "stages" not in report]
    several = len({report["batch_size"] for report in timed}) > 1
    number = bool(timed) + several + bool(stages)
    figure = Figure(figsize=(5.2 * number, 3.8), layout="constrained")
    panels = iter(figure.subplots(1, number, squeeze=False)[0])
    names = dict.fromkeys(timing["name"] for report in timed for timing in report["timings"])
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    if timed:
        draw_latency(next(panels), timed, colours)
    if several:
        draw_throughput(next(panels), timed, colours)
    if stages:
        draw_stages(next(panels), stages)
    for axes in figure.axes:
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        axes.grid(alpha=0.3)
    machine = reports[0]["machine"]
    figure.suptitle(f"{reports[0]['model']} on {machine['processor']}, {machine['cpus']} CPUs", fontsize="medium")
    figure.savefig(output, dpi=150)


if __name__ == "__main__":
    main()
