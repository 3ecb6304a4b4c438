"""A prediction as HTML, which notebooks show instead of its repr."""

import html
from typing import TYPE_CHECKING

from .render import printable

if TYPE_CHECKING:
    from .prediction import Prediction

MAX_ROWS = 10  # of labels that were not predicted, only as many as fit below the predicted ones
MAX_CHARACTERS = 200  # of a path, a caption or a label

# Inline, because notebooks drop style sheets. No colour is named, so it fits light and dark themes alike.
_TABLE = "border-collapse:collapse;text-align:left"
_CELL = "text-align:left;padding:1px 8px"
_TRACK = "width:120px;height:0.7em;border:1px solid;opacity:0.6"
_BAR = "height:100%;background:currentColor"


def to_html(prediction: "Prediction") -> str:
    """A table without scripts: predicted labels in bold with a tick, and a bar for each probability.

    Every text is escaped: names, captions and labels are what strangers wrote.
    """
    chosen = set(prediction.labels)
    names = list(prediction.labels)
    names += [label for label in prediction.probabilities if label not in chosen][: max(0, MAX_ROWS - len(names))]
    rows = [_row(label, prediction.probabilities.get(label), label in chosen) for label in names]
    hidden = len(chosen.union(prediction.probabilities)) - len(names)
    if hidden:
        rows.append(f'<tr><td style="{_CELL}" colspan="4">{hidden} less probable not shown</td></tr>')
    given = [("image", prediction.image), ("caption", prediction.caption), ("model", prediction.model)]
    lines = [f"{name}: {_text(value)}" for name, value in given if value is not None]
    head = f'<caption style="caption-side:top;text-align:left">{"<br>".join(lines)}</caption>'
    return f'<table style="{_TABLE}">{head}<tbody>{"".join(rows)}</tbody></table>'


def _row(label: str, probability: float | None, chosen: bool) -> str:
    """`probability` None: predicted, but outside of the top k."""
    name = f"<b>{_text(label)}</b>" if chosen else _text(label)
    bar, number = "", ""
    if probability is not None:
        bar = f'<div style="{_TRACK}"><div style="{_BAR};width:{100 * probability:.1f}%"></div></div>'
        number = f"{probability:.4f}"
    cells = [f'<td style="{_CELL}">{cell}</td>' for cell in (name, bar, number, "✓" if chosen else "")]
    return f"<tr>{''.join(cells)}</tr>"


def _text(text: str) -> str:
    # printable: control characters, and lone surrogates, which have no place in what a notebook file holds
    return html.escape(printable(text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"))
