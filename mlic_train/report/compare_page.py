"""The HTML of `mlic-report compare`."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from .compare import Comparison
from .curves import MOST_PANELS, overlaid_curves
from .facts import history, model_facts
from .html import page, paragraph, section, table
from .labels import LabelNumbers, label_numbers
from .measured import MODE_NAMES
from .parts import METRICS_NOTE, SCORES, metrics_table
from .plots import drawable, render


def compare_page(comparison: Comparison) -> str:
    """The whole document."""
    runs = comparison.runs
    return page(
        "Runs: " + ", ".join(runs),
        *(f"<p><strong>{escape(warning)}</strong></p>\n" for warning in comparison.warnings),
        _facts(comparison),
        section("Hyperparameters that differ", _hyperparameters(comparison)),
        section("Metrics", *_metrics(comparison)),
        section("Differences", *_differences(comparison)),
        section("Training", _training(comparison)),
        section("Labels", *_labels(comparison)),
    )


def _facts(comparison: Comparison) -> str:
    facts = {run: dict(model_facts(trained)) for run, trained in comparison.runs.items()}
    for found in facts.values():
        del found["labels"]  # all runs have the same; a long line in every column would only hide the rest
        if "data fingerprint" in found:
            found["data fingerprint"] = str(found["data fingerprint"])[:12]
    names = dict.fromkeys(name for found in facts.values() for name in found)
    return table(("", *facts), [(name, *(found.get(name) for found in facts.values())) for name in names])


def _hyperparameters(comparison: Comparison) -> str:
    different = comparison.hyperparameters()
    if not different:
        return paragraph("None does.")
    return table(("hyperparameter", *comparison.runs), [(name, *by_run.values()) for name, by_run in different.items()])


def _metrics(comparison: Comparison) -> list[str]:
    rows = [
        ((result.run, result.split, MODE_NAMES.get(result.mode, result.mode)), result.metrics)
        for result in comparison.results
    ]
    where = (
        "Measured now, all runs on the same rows."
        if comparison.measured
        else "As stored with each run: each is measured on the data that it was trained with, which may differ."
    )
    return [metrics_table(("run", "split", "input"), rows), paragraph(f"{where} {METRICS_NOTE}")]


def _differences(comparison: Comparison) -> list[str]:
    if not comparison.measured:
        return [paragraph("Left out: give --data, and the runs are measured on the same rows.")]
    first = next(iter(comparison.runs))
    rows = [
        (result.run, MODE_NAMES[result.mode], *(result.differences[name] for name in SCORES))
        for result in comparison.results
        if result.differences
    ]
    text = (
        f"Less {first}; in brackets the 95 % interval of a paired bootstrap: both runs are scored on the same draws "
        "of rows. Where it holds 0, these rows cannot tell the runs apart."
    )
    return [table(("run", "input", *SCORES.values()), rows), paragraph(text)]


def _training(comparison: Comparison) -> str:
    found = {run: history(trained) for run, trained in comparison.runs.items()}
    known = {run: rows for run, rows in found.items() if rows}
    without = [run for run in found if run not in known]
    text = paragraph(f"Without a history: {', '.join(without)}.") if without else ""
    return (overlaid_curves(known) if known else "") + text


def _labels(comparison: Comparison) -> list[str]:
    if not comparison.measured:
        return [paragraph("Left out: give --data, and every label is measured.")]
    labels = next(iter(comparison.runs.values())).config.model.labels
    numbers = {
        run: label_numbers(labels, found.probabilities, found.targets, found.thresholds)
        for run, found in comparison.measured.items()
    }
    header = ["label", "true", *(f"{kind}: {run}" for kind in ("F1", "AP") for run in numbers)]
    rows = []
    for i, name in enumerate(labels):
        label = [found[i] for found in numbers.values()]
        areas = (None if row.ap is None else row.ap.value for row in label)
        rows.append([name, label[0].support, *(row.f1.value for row in label), *areas])
    return [_dots(labels, numbers), paragraph("Lines are 95 % bootstrap intervals."), table(header, rows)]


def _dots(labels: Sequence[str], numbers: Mapping[str, list[LabelNumbers]]) -> str:
    """F1 and AP of every label, one colour per run, with intervals."""
    support = [row.support for row in next(iter(numbers.values()))]
    shown = sorted(sorted(range(len(labels)), key=lambda i: (-support[i], i))[:MOST_PANELS])
    figure = Figure(figsize=(10, 1.2 + len(shown) * (0.16 + 0.1 * len(numbers))), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, title in zip(panels, ("f1", "ap"), ("F1", "AP"), strict=True):
        for index, (run, found) in enumerate(numbers.items()):
            offset = (index - (len(numbers) - 1) / 2) * 0.7 / len(numbers)
            points = [
                (y + offset, number) for y, i in enumerate(shown) if (number := getattr(found[i], kind)) is not None
            ]
            heights, values = [y for y, _ in points], [number.value for _, number in points]
            colour = f"C{index}"
            axes.plot(values, heights, "o", markersize=4, color=colour, label=drawable(run))
            for y, number in points:
                if number.low is not None:
                    axes.plot((number.low, number.high), (y, y), linewidth=1, color=colour, alpha=0.5)
        axes.set(xlim=(-0.02, 1.02))
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.25)
    panels[0].set_yticks(np.arange(len(shown)), [drawable(labels[i]) for i in shown], fontsize=8)
    panels[0].invert_yaxis()
    panels[1].legend(fontsize=8)
    return render(figure, "F1 and average precision of every label by run, with 95 % intervals")
