"""What all plots share: text that is safe to draw, small multiples, the way into the page."""

import warnings
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .html import plot
from .wording import shorten

_COLUMNS = 6
_PANEL = (1.95, 1.75)  # inches


def drawable(text: str, most: int = 24) -> str:
    """Text as matplotlib is to draw it: shortened, and `$` is a dollar sign, not the start of a formula."""
    return shorten(text, most).replace("$", r"\$")


def small_multiples(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """One small square panel from 0 to 1 in both directions per title, with the same axes throughout."""
    columns = min(_COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.5), layout="constrained")
    panels = []
    for index, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(drawable(title), fontsize=8)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.tick_params(labelsize=6)
        axes.tick_params(labelbottom=index + columns >= len(titles), labelleft=index % columns == 0)
        axes.grid(alpha=0.25)
        panels.append(axes)
    return figure, panels


def render(figure: Figure, alt: str) -> str:
    """The figure inside the page; characters that the font does not have are boxes, not warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return plot(figure, alt)
