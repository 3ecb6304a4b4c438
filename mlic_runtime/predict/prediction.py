"""From logits to predictions: `PredictionOptions`, the decisions, and `Prediction`, which notebooks show as a table."""

import sys
from dataclasses import dataclass
from numbers import Integral, Real  # numpy's numbers belong to these, too
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.text import printable
from mlic_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlic_runtime.explain.explanation import Explanation

    from .evidence import Evidence

MAX_ROWS = 10  # of a notebook's table: labels that were not predicted fill what the predicted ones leave
MAX_CHARACTERS = 200  # of a path, a caption or a label in a notebook's table

# Inline, because notebooks drop style sheets. No colour is named, so it fits light and dark themes alike.
_TABLE = "border-collapse:collapse;text-align:left"
_CELL = "text-align:left;padding:1px 8px"
_TRACK = "width:120px;height:0.7em;border:1px solid;opacity:0.6"
_BAR = "height:100%;background:currentColor"


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """How probabilities become predictions; checked when it is made.

    Attributes:
        threshold: in [0, 1], replaces the threshold of every label; None keeps those of the model package.
        top_k: >= 1, keep only the k most probable in `Prediction.probabilities`; None keeps all. `Prediction.labels`
            are always all that were predicted.
        at_least_one: where no label reaches its threshold, predict the most probable one.

    Raises:
        InputError: a value out of range.
    """

    threshold: float | None = None
    top_k: int | None = None
    at_least_one: bool = False

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_count("top_k", self.top_k)
        if self.threshold is not None and not (isinstance(self.threshold, Real) and 0 <= self.threshold <= 1):
            raise InputError(f"threshold must be in [0, 1], found {self.threshold!r}")


@dataclass(frozen=True)
class Prediction:
    """What the model says about one picture with its caption.

    A notebook shows it as a small table with bars and, if there is evidence, small heat maps and shaded words.

    Attributes:
        image: the path as it was given; None for a picture from memory and for no picture; for a `Row`, its title.
        caption: the caption as it was given.
        labels: the names of the predicted labels, those whose probability reaches their threshold, most probable first.
        probabilities: {label: probability in [0, 1]}, most probable first; only the first k if `top_k` was given.
        model: "name@version" of the model package.
        evidence: where it comes from, if that was wanted (see `Predictor.predict`); else None.
    """

    image: str | None
    caption: str | None
    labels: tuple[str, ...]
    probabilities: dict[str, float]
    model: str
    evidence: "Evidence | None" = None

    def to_dict(self) -> dict[str, Any]:
        """Return the same content, ready for `json.dumps`; "evidence" is there only if it was wanted."""
        content = {
            "image": self.image,
            "caption": self.caption,
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "model": self.model,
        }
        return content if self.evidence is None else {**content, "evidence": self.evidence.to_dict()}

    def __repr__(self) -> str:
        labels = ", ".join(
            f"{label} {self.probabilities[label]:.2f}" if label in self.probabilities else label
            for label in self.labels
        )
        # printable: a path or a label may hold line breaks and terminal codes
        return printable(f"<Prediction {self.image or '(no path)'}: {labels or 'no label'}>")

    def _repr_html_(self) -> str:
        if self.evidence is None:
            return to_html(self)
        from mlic_runtime.explain.page import to_fragment  # here, because most predictions have no evidence

        return f"<div>{to_html(self)}{to_fragment(explain(self))}</div>"


def check_count(name: str, count: int) -> None:
    """Raise an InputError unless the value of the option `name` is a whole number from 1 to sys.maxsize."""
    if not isinstance(count, Integral) or count < 1:
        raise InputError(f"{name} must be 1 or more, found {count!r}")
    if count > sys.maxsize:
        raise InputError(f"{name} must be at most {sys.maxsize}, found {count}")


def sigmoid(logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the logistic function of logits of any size, without overflow.

    Args:
        logits: finite numbers, any shape.

    Returns:
        float32 in [0, 1], the same shape.
    """
    values = np.asarray(logits, dtype=np.float32)
    small = np.exp(-np.abs(values))  # in (0, 1], so both quotients below are exact at their end of the range
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def decide(
    probabilities: npt.NDArray[np.floating[Any]], thresholds: npt.ArrayLike, *, at_least_one: bool = False
) -> npt.NDArray[np.bool_]:
    """Return which labels are predicted: those whose probability reaches their threshold.

    Args:
        probabilities: (B, L) in [0, 1].
        thresholds: (L,) in [0, 1]. They are compared as float64, so that no threshold is rounded.
        at_least_one: where no label of a row reaches its threshold, predict the most probable one (the first of equal
            ones).

    Returns:
        bool (B, L).
    """
    chosen = np.asarray(probabilities >= np.asarray(thresholds, dtype=np.float64), dtype=np.bool_)
    if at_least_one:
        empty = np.flatnonzero(~chosen.any(axis=1))
        chosen[empty, probabilities[empty].argmax(axis=1)] = True
    return chosen


def make_prediction(
    image: str | None,
    caption: str | None,
    model: str,
    labels: tuple[str, ...],
    probabilities: npt.NDArray[np.float32],
    chosen: npt.NDArray[np.bool_],
    top_k: int | None,
) -> Prediction:
    """Return the `Prediction` of one row.

    `labels` are L names, `probabilities` is float32 (L,), and `chosen` is bool (L,): which labels are predicted.
    """
    order = np.argsort(-probabilities, kind="stable")  # equal ones stay in the manifest's order
    return Prediction(
        image=image,
        caption=caption,
        labels=tuple(labels[index] for index in order if chosen[index]),
        probabilities={labels[index]: float(probabilities[index]) for index in order[:top_k]},
        model=model,
    )


def explain(
    prediction: Prediction, thresholds: "Mapping[str, float] | None" = None, resize: str | None = None
) -> "Explanation":
    """Choose what is shown of a prediction with evidence: the predicted labels, else the most probable ones.

    Args:
        prediction: has evidence.
        thresholds: {label: its threshold}; None where they are not known.
        resize: `ImageSpec.resize` of the model.

    Raises:
        InputError: there is no evidence.
    """
    from mlic_runtime.explain.explanation import (
        MAX_EXPLAINED,
        MOST_PROBABLE,
        Explanation,
        LabelEvidence,
        LabelScore,
    )

    found = prediction.evidence
    if found is None:
        raise InputError("the prediction has no evidence: predict with evidence=True")
    known = thresholds or {}
    names = list(dict.fromkeys([*prediction.labels, *prediction.probabilities]))
    explained = prediction.labels[:MAX_EXPLAINED] or names[:MOST_PROBABLE]
    return Explanation(
        image=prediction.image,
        caption=prediction.caption,
        model=prediction.model,
        method=found.method,
        resize=resize,
        pixels=found.pixels,
        spans=found.spans,
        scores=tuple(
            LabelScore(name, prediction.probabilities.get(name), known.get(name), name in prediction.labels)
            for name in names
        ),
        evidence=tuple(
            LabelEvidence(
                name,
                None if found.picture is None else found.picture[name],
                None if found.caption is None else found.caption[name],
                found.rest.get(name),
            )
            for name in explained
        ),
        unexplained=max(0, len(prediction.labels) - MAX_EXPLAINED),
    )


def to_html(prediction: Prediction) -> str:
    """Return a table without scripts: predicted labels in bold with a tick, and a bar for each probability.

    Every text is escaped, because strangers wrote the names, captions and labels.
    """
    predicted = set(prediction.labels)
    names = list(prediction.labels)
    names += [label for label in prediction.probabilities if label not in predicted][: max(0, MAX_ROWS - len(names))]
    rows = [_table_row(label, prediction.probabilities.get(label), label in predicted) for label in names]
    hidden = len(predicted.union(prediction.probabilities)) - len(names)
    if hidden:
        rows.append(f'<tr><td style="{_CELL}" colspan="4">{hidden} less probable not shown</td></tr>')
    facts = [("image", prediction.image), ("caption", prediction.caption), ("model", prediction.model)]
    lines = [f"{name}: {_escape(value)}" for name, value in facts if value is not None]
    head = f'<caption style="caption-side:top;text-align:left">{"<br>".join(lines)}</caption>'
    return f'<table style="{_TABLE}">{head}<tbody>{"".join(rows)}</tbody></table>'


def _table_row(label: str, probability: float | None, predicted: bool) -> str:
    """Return a row of the table; `probability` is None for a predicted label outside of the top k."""
    name = f"<b>{_escape(label)}</b>" if predicted else _escape(label)
    bar, number = "", ""
    if probability is not None:
        bar = f'<div style="{_TRACK}"><div style="{_BAR};width:{100 * probability:.1f}%"></div></div>'
        number = f"{probability:.4f}"
    cells = [f'<td style="{_CELL}">{cell}</td>' for cell in (name, bar, number, "✓" if predicted else "")]
    return f"<tr>{''.join(cells)}</tr>"


def _escape(text: str) -> str:
    # printable: a notebook file cannot hold lone surrogates, and should not hold control characters
    import html  # here, because only notebooks need it

    return html.escape(printable(text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"))
