"""A prediction as a record of CSV, for one picture and for many."""

from typing import TYPE_CHECKING

from mlic_runtime.base.text import LIST_SEPARATOR

if TYPE_CHECKING:  # it loads numpy, and `mlic-infer --help` loads this module
    from .prediction import Prediction


def csv_columns(labels: tuple[str, ...]) -> list[str]:
    """Return the header of predictions as CSV."""
    # The prefix keeps a label with the name "image" apart from the column of that name.
    return ["image", "caption", "model", "labels", *(f"p_{label}" for label in labels)]


def csv_cells(prediction: "Prediction", labels: tuple[str, ...]) -> list[object]:
    """Return a prediction in the columns of `csv_columns`."""
    probabilities = [prediction.probabilities.get(label, "") for label in labels]
    chosen = LIST_SEPARATOR.join(prediction.labels)
    return [prediction.image, prediction.caption, prediction.model, chosen, *probabilities]
