"""The worst mistakes: wrong decisions that the model was surest of, with picture, caption and scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlic_runtime.annotations.source.members import image_source
from mlic_runtime.base.text import printable
from mlic_runtime.picture.decode import load_image

from .measurement import Measurement
from .page import Part, Section, Table, thumbnail


@dataclass(frozen=True)
class Mistake:
    """One wrong decision: about label `label` in row `row`."""

    row: int
    label: int
    probability: float


def worst_mistakes(
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.bool_],
    decisions: npt.NDArray[np.bool_],
    count: int,
) -> tuple[list[Mistake], list[Mistake]]:
    """Return the false positives with the highest and the false negatives with the lowest probability.

    Rows without any label count too. Of equal probabilities the first row comes first.

    Args:
        probabilities: float (N, L).
        targets: bool (N, L).
        decisions: bool (N, L), False where a label is unknown.
        count: how many of each to return at most.
    """
    result = []
    for wrong, sign in ((decisions & ~targets, -1.0), (targets & ~decisions, 1.0)):
        rows, labels = wrong.nonzero()
        values = probabilities[rows, labels]
        order = np.argsort(sign * values, kind="stable")[:count]
        result.append([Mistake(int(rows[k]), int(labels[k]), float(values[k])) for k in order])
    return result[0], result[1]


def mistake_sections(names: Sequence[str], measurement: Measurement, count: int) -> list[Section]:
    """Return the sections on false positives and on false negatives, at most `count` mistakes each."""
    arrays = measurement.probabilities, measurement.targets, measurement.decisions
    positives, negatives = worst_mistakes(*arrays, count)
    return [
        _section(
            "Worst false positives", "Predicted, not true: the highest probabilities.", names, measurement, positives
        ),
        _section(
            "Worst false negatives", "True, not predicted: the lowest probabilities.", names, measurement, negatives
        ),
    ]


def _section(
    title: str, caption: str, names: Sequence[str], measurement: Measurement, mistakes: Sequence[Mistake]
) -> Section:
    """Return the mistakes with their pictures, and below them those of rows without a picture as a table."""
    if not mistakes:
        return Section(title, "There are none.")
    parts: list[Part] = []
    rows = []
    for mistake in mistakes:
        record = measurement.records[mistake.row]
        label, threshold = names[mistake.label], float(measurement.thresholds[mistake.label])
        true = ", ".join(names[i] for i in record.labels or ()) or "none of the labels"
        if record.unknown:
            true += f" (unknown: {', '.join(names[i] for i in record.unknown)})"
        text = f"“{record.captions[0]}”" if record.captions else "(no caption)"
        where = f"{printable(record.file.name)}, record {record.number}"
        if record.image is None:
            rows.append((text, label, mistake.probability, threshold, true, where))
        else:
            scores = f"{label}: {mistake.probability:.3f} (threshold {threshold:.3f})"
            lines = "\n".join((scores, f"true: {true}", text, where))
            parts.append(thumbnail(load_image(image_source(record.image)), lines))
    if rows:
        parts.append(Table(("caption", "label", "probability", "threshold", "true", "row"), rows))
    return Section(title, caption, parts)
