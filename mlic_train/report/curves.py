"""Curves: of training over the epochs, and of every label over its thresholds."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from mlic_runtime.base.arrays import Bools, Floats

from .plots import drawable, render, small_multiples

History = Sequence[Mapping[str, float]]

MOST_PANELS = 60  # more than a page can show and anyone would look at
_GRID = torch.linspace(0, 1, 101)
_SCORES = {"val_samples_f1": "samples F1", "val_micro_f1": "micro F1", "val_macro_f1": "macro F1", "val_map": "mAP"}


def training_curves(history: History, best_epoch: int) -> str:
    """Losses, validation scores and seconds over the epochs, the best epoch marked."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    losses, scores, seconds = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    for name, label in (("train_loss", "train"), ("val_loss", "val")):
        losses.plot(epochs, _column(history, name), marker="o", markersize=4, label=label)
    for name, label in _SCORES.items():
        scores.plot(epochs, _column(history, name), marker="o", markersize=4, label=label)
    seconds.bar(epochs, _column(history, "seconds"), color="tab:gray")
    for axes, title in ((losses, "loss"), (scores, "on val"), (seconds, "seconds")):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if axes is not seconds:
            axes.axvline(best_epoch, color="black", linestyle=":", linewidth=1, label="best epoch")
            axes.legend(fontsize=8)
    return render(figure, f"Loss, scores on val and seconds over {len(history)} epochs; epoch {best_epoch} is the best")


def overlaid_curves(histories: Mapping[str, History]) -> str:
    """The losses and scores of several runs over the epochs."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = {
        "train_loss": "train loss",
        "val_loss": "val loss",
        "val_samples_f1": "val samples F1",
        "val_map": "val mAP",
    }
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for run, history in histories.items():
            epochs = [row["epoch"] for row in history]
            axes.plot(epochs, _column(history, name), marker="o", markersize=3, label=drawable(run))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return render(figure, "Training curves of " + ", ".join(histories))


def shown_labels(targets: Bools) -> list[int]:
    """The labels that have a curve: those that are true somewhere and not everywhere, at most MOST_PANELS.

    Of more, those that are true in most rows; in the order of the labels.
    """
    positives = targets.sum(axis=0)
    known = [i for i, count in enumerate(positives.tolist()) if 0 < count < len(targets)]
    return sorted(sorted(known, key=lambda i: (-positives[i], i))[:MOST_PANELS])


def precision_recall_curves(
    names: Sequence[str], probabilities: Floats, targets: Bools, points: Mapping[int, tuple[float, float]]
) -> str:
    """Precision over recall, one panel per label.

    Args:
        names: of the labels, L.
        probabilities: float (N, L).
        targets: bool (N, L).
        points: of each label that is drawn, the (recall, precision) at its threshold.
    """
    from torchmetrics.functional.classification import binary_precision_recall_curve

    scores, truth = _tensors(probabilities, targets)
    figure, panels = small_multiples([names[i] for i in points])
    for axes, (i, point) in zip(panels, points.items(), strict=True):
        precision, recall, _ = binary_precision_recall_curve(scores[:, i], truth[:, i])
        axes.step(recall.numpy(), precision.numpy(), where="post", linewidth=1.2, label="precision over recall")
        axes.axhline(float(truth[:, i].float().mean()), color="tab:gray", linewidth=0.8, linestyle="--", label="chance")
        axes.plot(*point, "o", color="tab:red", markersize=4, clip_on=False, label="at the threshold")
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    _legend(figure)
    return render(figure, f"Precision over recall of {len(panels)} labels, the chosen thresholds marked")


def threshold_curves(
    names: Sequence[str], probabilities: Floats, targets: Bools, thresholds: Mapping[int, float]
) -> str:
    """Precision, recall and F1 over the threshold, one panel per label; its own threshold is marked."""
    from torchmetrics.functional.classification import binary_precision_recall_curve

    scores, truth = _tensors(probabilities, targets)
    figure, panels = small_multiples([names[i] for i in thresholds])
    for axes, (i, threshold) in zip(panels, thresholds.items(), strict=True):
        precision, recall, at = binary_precision_recall_curve(scores[:, i], truth[:, i], thresholds=_GRID)
        precision, recall = precision[:-1], recall[:-1]  # the last point has no threshold
        f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
        axes.plot(at.numpy(), precision.numpy(), linewidth=0.8, color="tab:blue", alpha=0.7, label="precision")
        axes.plot(at.numpy(), recall.numpy(), linewidth=0.8, color="tab:green", alpha=0.7, label="recall")
        axes.plot(at.numpy(), f1.numpy(), linewidth=1.6, color="black", label="F1")
        axes.axvline(threshold, color="tab:red", linewidth=1, label="the label's threshold")
    figure.supxlabel("threshold", fontsize=9)
    _legend(figure)
    return render(figure, f"Precision, recall and F1 of {len(panels)} labels over the threshold")


def _tensors(probabilities: Floats, targets: Bools) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.asarray(probabilities, dtype=np.float32)), torch.from_numpy(targets.astype(np.int64))


def _legend(figure: Figure) -> None:
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)


def _column(history: History, name: str) -> list[float]:
    return [row.get(name, float("nan")) for row in history]
