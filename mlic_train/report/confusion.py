"""Confusion by co-occurrence: where a label was missed, what was predicted instead?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .page import Part, Section, Table, facts
from .plots import drawable, share_matrix

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_MOST = 40  # labels a side; more cannot be read
_LISTED = 5


@dataclass(frozen=True)
class Confusion:
    """Counts of rows.

    `missed` int (L): true and not predicted. `instead` int (L, L): [i, j] of the rows that missed i, those where j was
    predicted and is not true. `alone` int (L): of the rows that missed i, those where nothing was predicted wrongly.
    """

    missed: Ints
    instead: Ints
    alone: Ints


def confusion(targets: Bools, decisions: Bools) -> Confusion:
    """Count over all rows; both bool (N, L), and False where a label is unknown."""
    missed, wrong = (targets & ~decisions).astype(np.int64), (decisions & ~targets).astype(np.int64)
    nothing_wrong = (wrong.sum(axis=1) == 0).astype(np.int64)
    return Confusion(missed.sum(axis=0), missed.T @ wrong, missed.T @ nothing_wrong)


def confusion_section(names: Sequence[str], counts: Confusion) -> Section:
    """Return the most frequent confusions, and the matrix of shares."""
    title = "Confusion by co-occurrence"
    if not counts.missed.any():
        return Section(title, "No label was missed.")
    rows = _largest(counts.missed)
    columns = _largest(counts.instead[rows].sum(axis=0))
    order = np.argsort(-counts.instead, axis=None, kind="stable")[:_LISTED].tolist()
    pairs = [divmod(index, len(names)) for index in order]
    table = [(names[i], names[j], f"{n:,} of {counts.missed[i]:,}") for i, j in pairs if (n := counts.instead[i, j])]
    shares = np.concatenate([counts.alone[rows, None], counts.instead[np.ix_(rows, columns)]], axis=1)
    above = ["nothing wrong", *(drawable(names[j]) for j in columns)]
    beside = [f"{drawable(names[i])} ({counts.missed[i]:,})" for i in rows]
    alt = "Share of rows with a missed label in which another label was predicted wrongly"
    parts: list[Part] = [share_matrix(shares / counts.missed[rows, None], above, beside, alt)]
    if table:
        parts.append(Table(("missed", "most often predicted wrongly", "of the rows that missed it"), table))
    parts.append(facts([("missed labels that are drawn", f"{len(rows)} of {(counts.missed > 0).sum()}")]))
    return Section(
        title,
        "Row i, column j: of the rows where i is true but missed, the share where j was predicted wrongly; “nothing "
        "wrong” is where i was only left out.",
        parts,
    )


def _largest(counts: Ints) -> list[int]:
    """Return the indices of the largest counts above 0, at most _MOST, in the order of the labels."""
    order = np.argsort(-counts, kind="stable")[:_MOST]
    return sorted(int(i) for i in order if counts[i] > 0)
