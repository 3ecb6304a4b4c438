"""`Prediction`: what the model says about one picture with its caption, and the options that shape it."""

import sys
from dataclasses import dataclass
from numbers import Integral, Real  # numpy's numbers are such as well
from typing import Any

from .errors import InputError
from .render import printable


@dataclass(frozen=True)
class Prediction:
    """What the model says about one picture with its caption.

    In a notebook it shows itself as a small table with bars.

    Attributes:
        image: the path as it was given, or None for a picture from memory and for no picture; of a `Row` its title.
        caption: the caption as it was given.
        labels: the names of the predicted labels, those whose probability reaches their threshold, most probable first.
        probabilities: {label: probability in [0, 1]}, most probable first; only the first k if `top_k` was given.
        model: "name@version" of the model package.
    """

    image: str | None
    caption: str | None
    labels: tuple[str, ...]
    probabilities: dict[str, float]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """The same content, ready for `json.dumps`."""
        return {
            "image": self.image,
            "caption": self.caption,
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "model": self.model,
        }

    def __repr__(self) -> str:
        found = ", ".join(
            f"{label} {self.probabilities[label]:.2f}" if label in self.probabilities else label
            for label in self.labels
        )
        # printable: a path or a label may hold line breaks and terminal codes
        return printable(f"<Prediction {self.image or '(no path)'}: {found or 'no label'}>")

    def _repr_html_(self) -> str:
        from .notebook import to_html

        return to_html(self)


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """How probabilities become predictions; see `Predictor.predict`."""

    threshold: float | None
    top_k: int | None
    at_least_one: bool

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_count("top_k", self.top_k)
        if self.threshold is not None and not (isinstance(self.threshold, Real) and 0 <= self.threshold <= 1):
            raise InputError(f"threshold must be in [0, 1], found {self.threshold!r}")


def check_count(name: str, count: int) -> None:
    """Refuse what is not a whole number of 1 or more, or too large for Python to count to.

    Raises:
        InputError: `count` is not one; `name` is the option.
    """
    if not isinstance(count, Integral) or count < 1:
        raise InputError(f"{name} must be 1 or more, found {count!r}")
    if count > sys.maxsize:
        raise InputError(f"{name} must be at most {sys.maxsize}, found {count}")
