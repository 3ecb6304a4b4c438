"""`mlic-report compare`: the HTML page of a comparison of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .comparison import Comparison
from .curves import MOST_PANELS, overlaid_curves
from .label_metrics import LabelMetrics, label_metrics
from .measurement import MODE_NAMES
from .page import Part, Plot, Section, Table, facts, left_out, render_page, side_by_side, write_page
from .plots import bar_positions, drawable, plot
from .run_facts import history, model_facts
from .run_tables import SCORES, metrics_caption, metrics_table


def write_comparison(comparison: Comparison, output: Path) -> None:
    """Write the comparison as one HTML file.

    Raises:
        TrainError: the file cannot be written.
    """
    parts: list[Part] = [
        _facts(comparison),
        _hyperparameter_section(comparison),
        _metrics_section(comparison),
        _difference_section(comparison),
        _training_section(comparison),
        _label_section(comparison),
    ]
    write_page(output, render_page("Runs: " + ", ".join(comparison.runs), parts, comparison.warnings))


def _facts(comparison: Comparison) -> Table:
    columns = {run: model_facts(trained) for run, trained in comparison.runs.items()}
    for column in columns.values():
        del column["labels"]  # all runs have the same; a long line in every column would only hide the rest
        if "data fingerprint" in column:
            column["data fingerprint"] = str(column["data fingerprint"])[:12]
    return side_by_side(columns)


def _hyperparameter_section(comparison: Comparison) -> Section:
    title, different = "Hyperparameters that differ", comparison.hyperparameters()
    if not different:
        return Section(title, "There are none.")
    rows = [(name, *by_run.values()) for name, by_run in different.items()]
    return Section(title, "", [Table(("hyperparameter", *comparison.runs), rows)])


def _metrics_section(comparison: Comparison) -> Section:
    rows = [
        ((result.run, result.split, MODE_NAMES.get(result.mode, result.mode)), result.metrics)
        for result in comparison.results
    ]
    where = (
        "now, all runs on the same rows"
        if comparison.measurements
        else "in each run, on the data that it was trained with, which may differ"
    )
    caption = metrics_caption(metrics for _, metrics in rows)
    return Section("Metrics", caption, [metrics_table(("run", "split", "input"), rows), facts([("measured", where)])])


def _difference_section(comparison: Comparison) -> Section:
    if not comparison.measurements:
        return left_out("Differences", "give --data, and the runs are measured on the same rows")
    rows = [
        (result.run, MODE_NAMES[result.mode], *(result.differences[name] for name in SCORES))
        for result in comparison.results
        if result.differences
    ]
    first = next(iter(comparison.runs))
    return Section(
        "Differences",
        f"Less {first}; in brackets the 95 % interval of a paired bootstrap over rows: where it holds 0, these rows "
        "cannot tell the runs apart.",
        [Table(("run", "input", *SCORES.values()), rows)],
    )


def _training_section(comparison: Comparison) -> Section:
    histories = {run: rows for run, trained in comparison.runs.items() if (rows := history(trained))}
    without = [run for run in comparison.runs if run not in histories]
    parts: list[Part] = [overlaid_curves(histories)] if histories else []
    return Section("Training", "", [*parts, *([facts([("without a history", ", ".join(without))])] if without else [])])


def _label_section(comparison: Comparison) -> Section:
    if not comparison.measurements:
        return left_out("Labels", "give --data, and every label is measured")
    names = next(iter(comparison.runs.values())).config.model.labels
    by_run = {
        run: label_metrics(names, each.probabilities, each.targets, each.thresholds, each.known)
        for run, each in comparison.measurements.items()
    }
    unknown = any(label.unknown for label in next(iter(by_run.values())))
    header = ("label", "true", *(["unknown"] if unknown else []))
    header = (*header, *(f"{kind}: {run}" for kind in ("F1", "AP") for run in by_run))
    rows = []
    for labels in zip(*by_run.values(), strict=True):
        counts = (labels[0].support, labels[0].unknown) if unknown else (labels[0].support,)
        rows.append((labels[0].name, *counts, *(label.f1 for label in labels), *(label.ap for label in labels)))
    return Section(
        "Labels", "Lines and brackets are 95 % bootstrap intervals.", [_label_plot(names, by_run), Table(header, rows)]
    )


def _label_plot(names: Sequence[str], by_run: Mapping[str, Sequence[LabelMetrics]]) -> Plot:
    """Return F1 and AP of every label, one colour per run, with intervals."""
    support = [label.support for label in next(iter(by_run.values()))]
    shown = sorted(sorted(range(len(names)), key=lambda i: (-support[i], i))[:MOST_PANELS])
    figure = Figure(figsize=(10, 1.2 + len(shown) * (0.16 + 0.1 * len(by_run))), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    offsets, _ = bar_positions(len(by_run))
    for axes, kind, title in zip(panels, ("f1", "ap"), ("F1", "AP"), strict=True):
        for index, (run, labels) in enumerate(by_run.items()):
            numbers = [(y, number) for y, i in enumerate(shown) if (number := getattr(labels[i], kind)) is not None]
            heights = [y + offsets[index] for y, _ in numbers]
            colour = f"C{index}"
            axes.plot([number.value for _, number in numbers], heights, "o", ms=4, color=colour, label=drawable(run))
            for y, (_, number) in zip(heights, numbers, strict=True):
                if number.low is not None:
                    axes.plot((number.low, number.high), (y, y), linewidth=1, color=colour, alpha=0.5)
        axes.set(xlim=(-0.02, 1.02))
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.25)
    panels[0].set_yticks(np.arange(len(shown)), [drawable(names[i]) for i in shown], fontsize=8)
    panels[0].invert_yaxis()
    panels[1].legend(fontsize=8)
    return plot(figure, "F1 and average precision of every label by run, with 95 % intervals")
