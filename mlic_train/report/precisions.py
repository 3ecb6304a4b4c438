"""A plot of what each precision of a model package costs and how good it is."""

import itertools
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mlic_runtime.base.output_files import atomic_path
from mlic_runtime.package.manifest import Manifest
from mlic_train.exporting.latency import by_provider

_SPLITS = {"val": "tab:blue", "test": "tab:orange"}
_MARKERS = "os^Dv"


def plot_precisions(manifest: Manifest, path: Path) -> None:
    """Draw samples F1 against latency and against size, with the Pareto front of each split.

    Args:
        manifest: of a package with measured graphs; what was not measured is not drawn.
        path: the file to write; its suffix says the format, such as .png or .svg.
    """
    providers = by_provider(manifest.latency)
    figure = Figure(figsize=(5 * (len(providers) + 1), 3.6), layout="constrained")
    panels = list(figure.subplots(1, len(providers) + 1, sharey=True, squeeze=False)[0])
    for axes, (provider, specs) in zip(panels, providers.items(), strict=False):
        spec = next(iter(specs.values()))
        _draw(axes, manifest, {name: found.p50_ms for name, found in specs.items()})
        axes.set_xlabel(f"median ms a picture on {provider}, {spec.threads} threads")
        axes.set_title(spec.machine, fontsize=9)
    files = {name: manifest.files[manifest.graph_name(name)].bytes / 1e6 for name in manifest.precisions}
    _draw(panels[-1], manifest, files)
    panels[-1].set_xlabel("MB of the graph")
    panels[0].set_ylabel("samples F1")
    panels[0].legend(fontsize=8)
    # Names beside the points would lie on each other: int8 graphs differ by a few hundredths of a millisecond.
    shown = [
        Line2D([], [], color="grey", linestyle="", marker=marker, label=name)
        for name, marker in _markers(manifest).items()
    ]
    panels[-1].legend(handles=shown, fontsize=8)
    figure.suptitle(f"{manifest.name} {manifest.version}", fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=120)


def _draw(axes: Axes, manifest: Manifest, costs: dict[str, float]) -> None:
    """Draw one panel: `costs` is {precision: cost}, less is better; bars are 95 % bootstrap intervals."""
    widest = max(costs.values())
    for (split, colour), shift in zip(_SPLITS.items(), (0.0, 0.008 * widest), strict=True):  # so that bars stand apart
        points = {
            precision: (cost, metrics["samples_f1"], metrics["samples_f1_low"], metrics["samples_f1_high"])
            for precision, cost in costs.items()
            if (metrics := manifest.metrics.get(precision, {}).get(split)) and "samples_f1_low" in metrics
        }
        markers = _markers(manifest)
        for precision, (cost, f1, low, high) in points.items():
            spread = [[f1 - low], [high - f1]]
            axes.errorbar(
                cost + shift, f1, spread, color=colour, marker=markers[precision], capsize=3, alpha=0.6, linestyle=""
            )
        front = pareto_front([(cost, f1) for cost, f1, _, _ in points.values()])
        axes.plot(
            [cost for cost, _ in front], [gain for _, gain in front], "--", color=colour, linewidth=1, label=split
        )
    axes.grid(alpha=0.25)
    axes.set_xlim(0, 1.15 * widest)


def _markers(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.precisions, itertools.cycle(_MARKERS), strict=False))


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, gain) for which no other has as much gain at less cost, the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front
