"""Confusion by co-occurrence: where a label was missed, what was said instead?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_runtime.base.arrays import Bools

from .html import paragraph
from .plots import drawable, render

_MOST = 40  # labels a side; more cannot be read


@dataclass(frozen=True)
class Confusion:
    """Counts of rows.

    `missed` int (L): true and not predicted. `instead` int (L, L): [i, j] of the rows that missed i, those where j was
    predicted and is not true. `alone` int (L): of the rows that missed i, those where nothing was predicted wrongly.
    """

    missed: npt.NDArray[np.int64]
    instead: npt.NDArray[np.int64]
    alone: npt.NDArray[np.int64]


def confusion(targets: Bools, decisions: Bools) -> Confusion:
    """Count over all rows; both bool (N, L)."""
    missed, wrong = (targets & ~decisions).astype(np.int64), (decisions & ~targets).astype(np.int64)
    nothing_wrong = (wrong.sum(axis=1) == 0).astype(np.int64)
    return Confusion(missed.sum(axis=0), missed.T @ wrong, missed.T @ nothing_wrong)


def confusion_parts(names: Sequence[str], found: Confusion) -> str:
    """What it means in a sentence, and the matrix of shares."""
    if not found.missed.any():
        return paragraph("No label was missed.")
    text = (
        "Row i, column j: of the rows where i is true but missed, the share in which j was predicted wrongly. "
        "A large share says that the model takes i for j; “nothing wrong” says that i was only left out. "
        f"{_strongest(names, found)}"
    )
    rows = _first(found.missed)
    columns = _first(found.instead[rows].sum(axis=0))
    left_out = int((found.missed > 0).sum()) - len(rows)
    if left_out:
        text += f" The {len(rows)} labels that were missed most are shown, {left_out} are not."
    return paragraph(text) + _matrix(names, found, rows, columns)


def _strongest(names: Sequence[str], found: Confusion) -> str:
    i, j = divmod(int(found.instead.argmax()), len(names))
    count, missed = int(found.instead[i, j]), int(found.missed[i])
    if count == 0:
        return "Here nothing was predicted wrongly in any of them."
    return f"Most often: of {missed} rows that missed {names[i]}, {count} were given {names[j]}."


def _first(counts: npt.NDArray[np.int64]) -> list[int]:
    """The indices with the largest counts above 0, at most _MOST, in the order of the labels."""
    order = np.argsort(-counts, kind="stable")[:_MOST]
    return sorted(int(i) for i in order if counts[i] > 0)


def _matrix(names: Sequence[str], found: Confusion, rows: list[int], columns: list[int]) -> str:
    counts = np.concatenate([found.alone[rows][:, None], found.instead[np.ix_(rows, columns)]], axis=1)
    shares = counts / found.missed[rows][:, None]
    figure = Figure(figsize=(2.6 + 0.42 * shares.shape[1], 1.4 + 0.27 * shares.shape[0]), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    above = ["nothing wrong", *(drawable(names[j]) for j in columns)]
    axes.set_xticks(range(len(above)), above, rotation=45, ha="left", rotation_mode="anchor", fontsize=8)
    axes.xaxis.tick_top()
    beside = [f"{drawable(names[i])} ({found.missed[i]})" for i in rows]
    axes.set_yticks(range(len(beside)), beside, fontsize=8)
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set_ylabel("true but missed (rows)", fontsize=8)
    for (y, x), share in np.ndenumerate(shares):
        if share > 0:
            axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=7, color="w" if share > 0.6 else "k")
    return render(figure, "Share of rows with a missed label in which another label was predicted wrongly")
