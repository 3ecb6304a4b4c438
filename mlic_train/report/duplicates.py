"""Rows with the same picture: the same name, the same bytes, or nearly the same pixels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlic_runtime.annotations.source.members import PictureFile
from mlic_train.data import Record, Split
from mlic_train.data.near_duplicates import close_pairs, has_contrast
from mlic_train.data.picture_info import PictureInfo

SAME_ID, SAME_BYTES, NEAR = "same image ID", "identical bytes", "near-identical"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a split; `picture` is None where it has no picture that could be read."""

    split: str
    record: Record
    picture: PictureInfo | None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row and an earlier one with the same picture.

    Attributes:
        first: a row of an earlier split, or an earlier row of the same split.
        second: the later row.
        same_bytes: whether the pictures have the same bytes; None where one of them was not read.
        bits: how many bits of the hashes differ.
        grey: by how much the small grey copies differ, of 255.
    """

    first: Row
    second: Row
    same_bytes: bool | None = None
    bits: int = 0
    grey: float = 0.0


@dataclass
class Duplicates:
    """All duplicates of one kind.

    Attributes:
        counts: for (earlier split, later split), the rows of the later one that have a duplicate in the earlier one;
            for (split, split), the rows that have an earlier duplicate in their own split.
        pairs: each of these rows with its duplicate.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    pairs: list[Duplicate] = field(default_factory=list)

    def add(self, pair: Duplicate) -> None:
        """Count a row and keep it with its duplicate."""
        self.counts[pair.first.split, pair.second.split] += 1
        self.pairs.append(pair)

    def across(self) -> list[Duplicate]:
        """Return the pairs of two different splits, which make a measurement too good."""
        return [pair for pair in self.pairs if pair.first.split != pair.second.split]


def rows_of(splits: Mapping[str, Split], pictures: Mapping[PictureFile, PictureInfo]) -> list[Row]:
    """Return the rows of all splits, in order, each with the facts about its picture."""
    return [
        Row(name, record, None if record.image is None else pictures.get(record.image))
        for name, split in splits.items()
        for record in split.records
    ]


def find_duplicates(rows: Sequence[Row]) -> dict[str, Duplicates]:
    """Find rows with the same picture; a row counts once for every split that has its picture.

    `data.check` finds the same overlaps for its list of problems. Here both rows of a pair are needed, and pictures
    that are nearly the same without having the same bytes.

    Args:
        rows: those of all splits; "earlier" is meant in this order.

    Returns:
        The duplicates by kind: SAME_ID, SAME_BYTES and NEAR.
    """
    names = [row.record.image_id for row in rows]
    digests = [None if row.picture is None else row.picture.digest for row in rows]
    # One name in two folders of a single split is no duplicate: the folder is part of the name.
    return {SAME_ID: _equal(rows, names, inside=False), SAME_BYTES: _equal(rows, digests), NEAR: _near(rows)}


def _equal(rows: Sequence[Row], keys: Sequence[str | None], inside: bool = True) -> Duplicates:
    """Return the rows whose key an earlier row has; `inside` counts rows of one split too."""
    result = Duplicates()
    first: dict[str, dict[str, Row]] = {}
    for row, key in zip(rows, keys, strict=True):
        if key is None:
            continue
        earlier = first.setdefault(key, {})
        for split, other in earlier.items():
            if inside or split != row.split:
                same = row.picture.digest == other.picture.digest if row.picture and other.picture else None
                result.add(Duplicate(other, row, same))
        earlier.setdefault(row.split, row)
    return result


def _near(rows: Sequence[Row]) -> Duplicates:
    """Return rows with a near copy of an earlier picture of other bytes, each with the nearest one of every split."""
    # The first copy in a split stands for all with the same bytes: they would be near to the same pictures.
    first: dict[tuple[str, str], tuple[Row, PictureInfo]] = {}
    for row in rows:
        if row.picture is not None and has_contrast(row.picture.grey):
            first.setdefault((row.split, row.picture.digest), (row, row.picture))
    kept = list(first.values())
    result = Duplicates()
    if not kept:
        return result
    nearest: dict[tuple[int, str], tuple[int, float, int]] = {}  # (later, split): (bits, grey, earlier)
    for later, earlier, bits, grey in close_pairs(np.stack([info.grey for _, info in kept]).astype(np.int16)):
        (row, info), candidate = kept[earlier], (bits, grey, earlier)
        if info.digest != kept[later][1].digest:
            nearest[later, row.split] = min(candidate, nearest.get((later, row.split), candidate))
    for (later, _), (bits, grey, earlier) in nearest.items():
        result.add(Duplicate(kept[earlier][0], kept[later][0], False, bits, grey))
    return result
