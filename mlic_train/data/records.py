"""Records and splits: what annotation files are read into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlic_runtime.annotations.problems import Problem
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.errors import ImageError

if TYPE_CHECKING:
    from mlic_runtime.annotations.labels import LabelSet
    from mlic_runtime.annotations.source.members import PictureFile


@dataclass(frozen=True, slots=True)
class Record:
    """One picture with its captions and labels, or one caption with its labels.

    Attributes:
        image_id: the picture's name as the file gives it (COCO: `file_name`); None for a caption without a picture.
        image: the picture's file, or its place in a shard; None for a caption without a picture, or when pictures
            are not wanted.
        captions: whole captions, with one space for each run of whitespace; empty when there is none.
        labels: sorted indices into the LabelSet; () means none of the labels, None means not labelled.
        file: the file of the (first) row.
        number: the 1-based number of that row in its file; the header is not counted.
        soft: the targets of training instead of `labels`: a teacher's probabilities in 0..1, one per label, or their
            mixture with the record's own labels (the teacher's alone for unknown ones), or None for a
            label that nobody knows; None without a teacher.
        unknown: sorted indices of labels that the record neither has nor lacks; none of them is in `labels`.
        split: the split that the row itself names; None where its file or folder says it.
    """

    image_id: str | None
    image: PictureFile | None
    captions: tuple[str, ...]
    labels: tuple[int, ...] | None
    file: Path
    number: int
    soft: tuple[float | None, ...] | None = None
    unknown: tuple[int, ...] = ()
    split: str | None = None


@contextlib.contextmanager
def reading_picture_of(record: Record) -> Iterator[None]:
    """Let the error of a picture say which row names it, and what to do.

    Raises:
        ImageError: the picture of the record cannot be read.
    """
    try:
        yield
    except (ImageError, OSError) as error:
        what = f"{record.image}: {os_error_reason(error)}" if isinstance(error, OSError) else str(error)
        raise ImageError(
            f"{what} ({record.file}:record {record.number}); mend it, or leave such rows out with --skip-bad-rows"
        ) from None


def contradict(first: Record, second: Record) -> bool:
    """Return whether two labelled records say different things of a label that both know."""
    unknown = {*first.unknown, *second.unknown}
    return bool(({*(first.labels or ())} ^ {*(second.labels or ())}) - unknown)


@dataclass(frozen=True, slots=True)
class Split:
    """The records of one split.

    Attributes:
        records: in the order of the files and of their rows.
        labels: the labels that `Record.labels` are indices of.
        skipped: the problem of each bad row, if bad rows are skipped.
        warnings: about rows that were read (blank captions, repeated rows), and about what was not read on purpose.
    """

    records: tuple[Record, ...]
    labels: LabelSet
    skipped: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
