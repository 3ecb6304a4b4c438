"""Curves: of training over the epochs, and of every label over its thresholds."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlic_runtime.base.arrays import Bools, Floats

from .page import Plot
from .plots import drawable, legend_above, plot, small_multiples
from .run_tables import EPOCH_COLUMNS, SCORES

History = Sequence[Mapping[str, float]]

MOST_PANELS = 60  # more than a page can show and anyone would look at
_GRID = torch.linspace(0, 1, 101)


def training_curves(history: History, best_epoch: int) -> Plot:
    """Return losses, validation scores and seconds over the epochs, with the best epoch marked."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    losses, scores, seconds = figure.subplots(1, 3)
    for name, label in (("train_loss", "train"), ("val_loss", "val")):
        _draw_epochs(losses, "loss", history, name, label)
    for name, label in SCORES.items():
        _draw_epochs(scores, "on val", history, f"val_{name}", label)
    seconds.bar([row["epoch"] for row in history], _column(history, "seconds"), color="tab:gray")
    _name_epochs(seconds, "seconds")
    for axes in (losses, scores):
        axes.axvline(best_epoch, color="black", linestyle=":", linewidth=1, label="best epoch")
        axes.legend(fontsize=8)
    return plot(figure, f"Loss, scores on val and seconds over {len(history)} epochs; epoch {best_epoch} is the best")


def overlaid_curves(histories: Mapping[str, History]) -> Plot:
    """Return the losses and scores of several runs over the epochs."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    names = ("train_loss", "val_loss", "val_samples_f1", "val_map")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for run, history in histories.items():
            _draw_epochs(axes, EPOCH_COLUMNS[name], history, name, drawable(run))
    axes.legend(fontsize=8)
    return plot(figure, "Training curves of " + ", ".join(histories))


def _draw_epochs(axes: Axes, title: str, history: History, name: str, label: str) -> None:
    axes.plot([row["epoch"] for row in history], _column(history, name), marker="o", markersize=3, label=label)
    _name_epochs(axes, title)


def _column(history: History, name: str) -> list[float]:
    return [row.get(name, float("nan")) for row in history]


def _name_epochs(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)


def shown_labels(targets: Bools, known: Bools | None = None) -> list[int]:
    """Return the labels that have a curve: those that are true somewhere and not everywhere, at most MOST_PANELS.

    Of more labels, those that are true in most rows; in the order of the labels. Only rows that know a label count.
    Both are bool (N, L); None: all are known.
    """
    positives = targets.sum(axis=0)
    counted = np.full(len(positives), len(targets)) if known is None else known.sum(axis=0)
    drawn = [i for i, count in enumerate(positives.tolist()) if 0 < count < counted[i]]
    return sorted(sorted(drawn, key=lambda i: (-positives[i], i))[:MOST_PANELS])


def precision_recall_curves(
    names: Sequence[str],
    probabilities: Floats,
    targets: Bools,
    points: Mapping[int, tuple[float, float]],
    known: Bools | None = None,
) -> Plot:
    """Return precision over recall, one panel per label.

    Args:
        names: of the labels, L.
        probabilities: float (N, L).
        targets: bool (N, L).
        points: the (recall, precision) at its threshold of each label that is drawn.
        known: bool (N, L), False where a label is unknown; None where none is.
    """
    figure, panels = small_multiples([names[i] for i in points])
    for axes, (i, point) in zip(panels, points.items(), strict=True):
        row = _rows_of(known, i)
        precision, recall, _ = _curve(probabilities[row, i], targets[row, i])
        axes.step(recall, precision, where="post", linewidth=1.2, label="precision over recall")
        axes.axhline(targets[row, i].mean(), color="tab:gray", linewidth=0.8, linestyle="--", label="chance")
        axes.plot(*point, "o", color="tab:red", markersize=4, clip_on=False, label="at the threshold")
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    legend_above(figure, panels[0])
    return plot(figure, f"Precision over recall of {len(panels)} labels, the chosen thresholds marked")


def threshold_curves(
    names: Sequence[str],
    probabilities: Floats,
    targets: Bools,
    thresholds: Mapping[int, float],
    known: Bools | None = None,
) -> Plot:
    """Return precision, recall and F1 over the threshold, one panel per label with its own threshold marked.

    Args:
        names: of the labels, L.
        probabilities: float (N, L).
        targets: bool (N, L).
        thresholds: the threshold of each label that is drawn.
        known: bool (N, L), False where a label is unknown; None where none is.
    """
    figure, panels = small_multiples([names[i] for i in thresholds])
    for axes, (i, threshold) in zip(panels, thresholds.items(), strict=True):
        row = _rows_of(known, i)
        curve = _curve(probabilities[row, i], targets[row, i], _GRID)
        precision, recall = curve[0][:-1], curve[1][:-1]  # the last point has no threshold
        f1 = 2 * precision * recall / (precision + recall).clip(min=1e-9)
        axes.plot(curve[2], precision, linewidth=0.8, color="tab:blue", alpha=0.7, label="precision")
        axes.plot(curve[2], recall, linewidth=0.8, color="tab:green", alpha=0.7, label="recall")
        axes.plot(curve[2], f1, linewidth=1.6, color="black", label="F1")
        axes.axvline(threshold, color="tab:red", linewidth=1, label="the label's threshold")
    figure.supxlabel("threshold", fontsize=9)
    legend_above(figure, panels[0])
    return plot(figure, f"Precision, recall and F1 of {len(panels)} labels over the threshold")


def _rows_of(known: Bools | None, label: int) -> Bools | slice:
    """Return the rows that know a label."""
    return slice(None) if known is None else known[:, label]


def _curve(
    probabilities: Floats, targets: Bools, thresholds: torch.Tensor | None = None
) -> tuple[npt.NDArray[np.float32], ...]:
    """Return precision, recall and thresholds of one label, from its probabilities and targets (N)."""
    from torchmetrics.functional.classification import binary_precision_recall_curve

    scores = torch.from_numpy(np.asarray(probabilities, dtype=np.float32))
    curve = binary_precision_recall_curve(scores, torch.from_numpy(targets.astype(np.int64)), thresholds=thresholds)
    return tuple(values.numpy() for values in curve)
