"""The worst errors: what the model was surest of and wrong, with picture, caption and scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlic_runtime.picture.decode import load_image
from mlic_train.data.source.members import image_source

from .facts import printable
from .html import paragraph, picture, table
from .measured import Measured


@dataclass(frozen=True)
class Mistake:
    """One wrong decision: of label `label` in row `row`."""

    row: int
    label: int
    probability: float


def worst_mistakes(
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.bool_],
    decisions: npt.NDArray[np.bool_],
    count: int,
) -> tuple[list[Mistake], list[Mistake]]:
    """The false positives with the highest and the false negatives with the lowest probability, at most `count` each.

    All float or bool (N, L); rows without any label count too. Of equal probabilities the first row comes first.
    """
    found = []
    for wrong, sign in ((decisions & ~targets, -1.0), (targets & ~decisions, 1.0)):
        rows, labels = wrong.nonzero()
        values = probabilities[rows, labels]
        order = np.argsort(sign * values, kind="stable")[:count]
        found.append([Mistake(int(rows[k]), int(labels[k]), float(values[k])) for k in order])
    return found[0], found[1]


def mistakes_parts(names: Sequence[str], measured: Measured, mistakes: Sequence[Mistake]) -> str:
    """The mistakes side by side with their pictures, and below them those of rows that have none, as a table."""
    if not mistakes:
        return paragraph("There are none.")
    figures, rows = [], []
    for mistake in mistakes:
        record = measured.records[mistake.row]
        label, threshold = names[mistake.label], float(measured.thresholds[mistake.label])
        true = ", ".join(names[i] for i in record.labels or ()) or "none of the labels"
        caption = f"“{record.captions[0]}”" if record.captions else "(no caption)"
        where = f"{printable(record.file.name)}, record {record.number}"
        if record.image is None:
            rows.append((caption, label, mistake.probability, threshold, true, where))
        else:
            said = f"{label}: {mistake.probability:.3f} (threshold {threshold:.3f})"
            text = "\n".join((said, f"true: {true}", caption, where))
            figures.append(picture(load_image(image_source(record.image)), text).rstrip("\n"))
    header = ("caption", "label", "probability", "threshold", "true", "row")
    return "".join(figures) + (table(header, rows) if rows else "")
