"""Can the probabilities be believed? How often decisions of some probability are true, before and after calibration."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_runtime.predict.prediction import sigmoid
from mlic_train.config import TrainConfig
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import Outputs
from mlic_train.measure.scored import scored_rows

from .measurement import MODE_NAMES, Measurement
from .page import Plot, Section, Table, facts
from .plots import plot

BINS = 15  # as for the expected calibration error, see `compute_metrics`


def reliability_bins(outputs: Outputs) -> tuple[npt.NDArray[np.float64], ...]:
    """Return for each of BINS bins of probability its decisions, their mean probability, and the share that is true.

    Over the known labels of the rows that are scored. Three float64 (BINS); NaN where a bin is empty.
    """
    scored = scored_rows(outputs.targets, outputs.known)
    known = np.full(outputs.targets.shape, True) if outputs.known is None else outputs.known
    counted = scored[:, None] & known
    values, truth = sigmoid(outputs.logits)[counted], outputs.targets[counted]
    count, said, true = (
        np.histogram(values, bins=BINS, range=(0, 1), weights=weights)[0].astype(np.float64)
        for weights in (None, values.astype(np.float64), truth.astype(np.float64))
    )
    filled = np.where(count > 0, count, np.nan)
    return count, said / filled, true / filled


def calibration_error(outputs: Outputs) -> float:
    """Return the expected calibration error, as everywhere else."""
    probabilities = sigmoid(outputs.logits)
    return compute_metrics(probabilities, outputs.targets, np.full(probabilities.shape[1], 0.5), outputs.known)["ece"]


def calibration_section(config: TrainConfig, measurement: Measurement, split: str) -> Section:
    """Return the calibration error of every mode that has a row with a label, and the reliability diagrams."""
    raw, calibrated = measurement.raw, measurement.calibrated
    errors = [
        (MODE_NAMES[mode], calibration_error(outputs), calibration_error(calibrated[mode]))
        for mode, outputs in raw.items()
        if outputs.targets.any()
    ]
    changes = any(not np.array_equal(raw[mode].logits, outputs.logits) for mode, outputs in calibrated.items())
    rows = [
        ("calibration", config.calibration if changes else f"{config.calibration}: this model has none"),
        ("fitted on", "val: the rows that are measured here" if split == "val" else "val"),
        ("odds of a row without labels, against training", f"{config.empty_odds:g}"),
    ]
    return Section(
        "Calibration",
        "Below each diagram: how many decisions have that probability, on a logarithmic scale.",
        [
            facts(rows),
            Table(("input", "expected calibration error before", "after"), errors),
            _diagrams(measurement),
        ],
    )


def _diagrams(measurement: Measurement) -> Plot:
    """Return both diagrams side by side, with the number of decisions in each bin below."""
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    answers = (("before calibration", measurement.raw["both"]), ("after calibration", measurement.calibrated["both"]))
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
    return plot(figure, "Share of decisions that are true over their probability, before and after calibration")
