"""Can the probabilities be believed? How often what was said with some probability is true, before and after."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_runtime.predict.prediction import sigmoid
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import Outputs

from .html import table
from .measured import MODE_NAMES, Measured
from .plots import render

BINS = 15  # those of the expected calibration error, see `compute_metrics`


def reliability_bins(outputs: Outputs) -> tuple[npt.NDArray[np.float64], ...]:
    """Decisions in each of BINS bins of probability: how many, their mean probability, and the share that is true.

    Over rows with at least one label. Three float64 (BINS); NaN where a bin is empty.
    """
    labelled = outputs.targets.any(axis=1)
    values, truth = sigmoid(outputs.logits[labelled]).ravel(), outputs.targets[labelled].ravel()
    count, said, true = (
        np.histogram(values, bins=BINS, range=(0, 1), weights=weights)[0].astype(np.float64)
        for weights in (None, values.astype(np.float64), truth.astype(np.float64))
    )
    filled = np.where(count > 0, count, np.nan)
    return count, said / filled, true / filled


def calibration_error(outputs: Outputs) -> float:
    """The expected calibration error, as everywhere else."""
    probabilities = sigmoid(outputs.logits)
    return compute_metrics(probabilities, outputs.targets, np.full(probabilities.shape[1], 0.5))["ece"]


def reliability_diagram(measured: Measured) -> str:
    """Both diagrams side by side, with how many decisions each bin holds below."""
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    answers = (("before calibration", measured.raw["both"]), ("after calibration", measured.calibrated["both"]))
    for column, (title, outputs) in enumerate(answers):
        above, below = axes[0, column], axes[1, column]
        count, said, true = reliability_bins(outputs)
        above.plot((0, 1), (0, 1), color="tab:gray", linestyle="--", linewidth=1)
        above.plot(said, true, marker="o", markersize=4)
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is true")
        above.set_title(f"{title}: error {calibration_error(outputs):.4f}", fontsize=10)
        edges = np.linspace(0, 1, BINS + 1)
        below.bar(edges[:-1], count, width=np.diff(edges), align="edge", color="tab:gray", edgecolor="white")
        below.set(yscale="log", xlabel="probability", ylabel="decisions")
        for panel in (above, below):
            panel.grid(alpha=0.25)
    return render(figure, "Share of decisions that are true over their probability, before and after calibration")


def calibration_table(raw: Mapping[str, Outputs], calibrated: Mapping[str, Outputs]) -> str:
    """The expected calibration error of every mode that has a row with a label, before and after."""
    rows = [
        (MODE_NAMES[mode], calibration_error(raw[mode]), calibration_error(calibrated[mode]))
        for mode in raw
        if raw[mode].targets.any()
    ]
    return table(("input", "expected calibration error before", "after"), rows)
