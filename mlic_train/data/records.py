"""What reading gives: records and splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlic_train.data.problems import Problem

if TYPE_CHECKING:
    from mlic_train.data.source.members import PictureFile

    from .labels import LabelSet


@dataclass(frozen=True, slots=True)
class Record:
    """One picture with its captions and labels, or one caption with its labels.

    Attributes:
        image_id: the picture's name as the file gives it (COCO: `file_name`); None for a caption without a picture.
        image: the picture's file, or its place in a shard; None for a caption without a picture, or when pictures
            were not asked for.
        captions: whole captions, each run of whitespace made one space; empty when there is none.
        labels: sorted indices into the LabelSet; () means none of the labels, None means not labelled.
        file: the file that the (first) row stands in.
        number: the 1-based number of that row in its file; the header is not counted.
        soft: a teacher's probabilities in 0..1, one per label, or their mixture with the record's own labels: what
            training aims at instead of `labels`; None without a teacher.
    """

    image_id: str | None
    image: PictureFile | None
    captions: tuple[str, ...]
    labels: tuple[int, ...] | None
    file: Path
    number: int
    soft: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """The records of one split.

    Attributes:
        records: in the order of the files and of their rows.
        labels: what `Record.labels` points into.
        skipped: why each bad row was left out; empty unless bad rows were to be skipped.
        warnings: what was read but looks odd (blank captions, repeated rows).
    """

    records: tuple[Record, ...]
    labels: LabelSet
    skipped: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
