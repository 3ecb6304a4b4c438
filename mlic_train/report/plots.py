"""What all plots share: text that is safe to draw, colours, panels, histograms, and the way into the page."""

import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from .page import Plot, data_uri
from .text import shorten

SPLIT_COLOURS = {"train": "#4477aa", "val": "#ee7733", "test": "#009988"}  # distinct with red-green blindness too
# Splits are often alike and then lie on each other: the first is drawn broad, so that it shows under the others.
SPLIT_WIDTHS = {"train": 4.0, "val": 2.2, "test": 1.0}
_ANNOTATED = 41  # rows or columns up to which a matrix has room for numbers
_COLUMNS = 6
_PANEL = (1.95, 1.75)  # inches
_WIDE = 1500  # pixels; a wider plot cannot be read at the width of the page, so it scrolls


def drawable(text: str, most: int = 24) -> str:
    """Return text as matplotlib shall draw it: shortened, and `$` is a dollar sign, not the start of a formula."""
    return shorten(text, most).replace("$", r"\$")


def small_multiples(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one small square panel per title, all with axes from 0 to 1."""
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


def draw_histograms(axes: Axes, values: Mapping[str, Sequence[float]], bins: Sequence[float]) -> None:
    """Draw for every split the outline of the histogram of its values, in percent of the split."""
    for split, numbers in values.items():
        axes.hist(
            numbers,
            bins=bins,
            weights=[100 / len(numbers)] * len(numbers),
            histtype="step",
            linewidth=SPLIT_WIDTHS[split],
            alpha=0.85,
            label=split,
            color=SPLIT_COLOURS[split],
        )


def bar_positions(count: int) -> tuple[list[float], float]:
    """Return the offsets of `count` bars that share one place, and the width of each."""
    width = 0.8 / count
    return [(index - (count - 1) / 2) * width for index in range(count)], width


def share_matrix(shares: npt.NDArray[np.float64], above: Sequence[str], beside: Sequence[str], alt: str) -> Plot:
    """Return a matrix of shares, in percent where there is room for numbers.

    Args:
        shares: float (R, C) in 0..1; NaN is grey.
        above: the names of the columns.
        beside: the names of the rows.
        alt: what the plot shows.
    """
    rows, columns = shares.shape
    annotated = max(rows, columns) <= _ANNOTATED
    cell, size = (0.38, 8) if annotated else (0.17, 6)  # inches, points
    figure = Figure(figsize=(cell * columns + 2.2, cell * rows + 1.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("#ddd")
    largest = max(0.01, float(np.nanmax(shares)))
    image = axes.imshow(100 * shares, vmin=0, vmax=100 * largest, cmap="Blues")
    axes.set_xticks(range(columns), above, rotation=45, ha="left", rotation_mode="anchor", fontsize=size)
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), beside, fontsize=size)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label("% of the row's label", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if annotated:
        for (i, j), share in np.ndenumerate(shares):
            if share > 0:
                colour = "white" if share > 0.6 * largest else "black"
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return plot(figure, alt)


def legend_above(figure: Figure, axes: Axes) -> None:
    """Write the legend of `axes` above the whole figure."""
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)


def plot(figure: Figure, alt: str) -> Plot:
    """Return the figure as a PNG inside the page; `alt` says in words what it shows."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # such characters are drawn as boxes
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    with Image.open(buffer) as drawn:
        wide = drawn.width > _WIDE
    return Plot(data_uri(buffer, "image/png"), alt, wide)
