"""The first lines of a run's report: how good the model is, and where it is weakest."""

from collections.abc import Sequence

from .label_metrics import LabelMetrics
from .measurement import Measurement
from .page import Section, facts
from .run_tables import score

_WEAKEST = 5


def summary_section(measurement: Measurement, labels: Sequence[LabelMetrics], measured_on: str) -> Section:
    """Return what somebody who opens the report wants to know first, of rows with all their inputs.

    Args:
        measurement: of the run.
        labels: the metrics of its labels.
        measured_on: the split, and what it was used for before.
    """
    targets, decisions = measurement.targets, measurement.decisions
    wrong = decisions & ~targets
    missed = targets & ~decisions
    right = int((~(wrong | missed).any(axis=1)).sum())
    predicted, true = int(decisions.sum()), int(targets.sum())
    weak = sorted((each for each in labels if each.support and each.f1.value < 1), key=lambda each: each.f1.value)
    shown = ", ".join(f"{each.name} {each.f1.value:.2f}" for each in weak[:_WEAKEST])
    return Section(
        "In short",
        "Every row with all that it has. 1 is the best F1. In brackets its 95 % interval: the fewer rows, the wider.",
        [
            facts(
                [
                    ("measured on", measured_on),
                    ("samples F1", score(measurement.metrics["both"], "samples_f1")),
                    ("rows with every label right", f"{right:,} of {len(targets):,}"),
                    ("predicted labels that are wrong", f"{int(wrong.sum()):,} of {predicted:,}"),
                    ("true labels that are missed", f"{int(missed.sum()):,} of {true:,}"),
                    ("weakest labels, with their F1", shown or "none: every label is right in every row"),
                ]
            )
        ],
    )
