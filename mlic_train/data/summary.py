"""What a split holds, and the fingerprint that says which data a model was trained on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mlic_runtime.annotations.source.members import size_of
from mlic_runtime.base.files import os_error_reason
from mlic_train.errors import DataError

from .records import Record, Split


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """Counts of one split.

    Attributes:
        records: all records; every other count is of records too, unless it says otherwise.
        with_picture: those with a picture file.
        with_caption: those with at least one caption.
        caption_only: those with a caption and no picture file.
        captions: captions, over all records.
        labelled: those whose labels are known, none of them included.
        without_label: those that are labelled with none of the labels, and in which no label is unknown.
        unknown: labels of labelled records of which nobody knows whether the record has them.
        skipped: bad rows that were left out.
        label_counts: for each label's name, in order, the records that have it.
        unknown_counts: for each label's name, in order, the labelled records that neither have nor lack it. The others
            of `labelled` lack it.
    """

    records: int
    with_picture: int
    with_caption: int
    caption_only: int
    captions: int
    labelled: int
    without_label: int
    unknown: int
    skipped: int
    label_counts: Mapping[str, int]
    unknown_counts: Mapping[str, int]


def summarise(split: Split) -> SplitSummary:
    """Count what a split holds."""
    records = split.records
    counts = Counter(index for record in records for index in record.labels or ())
    unknown = Counter(index for record in records for index in record.unknown)
    return SplitSummary(
        records=len(records),
        with_picture=sum(record.image is not None for record in records),
        with_caption=sum(bool(record.captions) for record in records),
        caption_only=sum(record.image is None and bool(record.captions) for record in records),
        captions=sum(len(record.captions) for record in records),
        labelled=sum(record.labels is not None for record in records),
        without_label=sum(record.labels == () and not record.unknown for record in records),
        unknown=sum(len(record.unknown) for record in records if record.labels is not None),
        skipped=len(split.skipped),
        label_counts={name: counts[index] for index, name in enumerate(split.labels.names)},
        unknown_counts={name: unknown[index] for index, name in enumerate(split.labels.names)},
    )


def fingerprint(splits: Mapping[str, Split]) -> str:
    """Return a sha256, 64 hex digits, of the content of the splits.

    It covers each split's name, its label names, and its records in order: image id, captions, label names, the
    picture file's size in bytes, and soft labels and the names of unknown labels where there are any. It does not
    depend on the folder and the format of the data, nor on the order of the splits, so that it is equal on every
    machine.

    Raises:
        DataError: a picture is no longer there.
    """
    digest = hashlib.sha256()
    for name in sorted(splits):
        split = splits[name]
        _feed(digest, [name, split.labels.names])
        for record in split.records:
            labels = None if record.labels is None else [split.labels.names[index] for index in record.labels]
            # Appended, not null without them: so data without a teacher keeps the fingerprint of older versions, and
            # so does data without unknown labels.
            extra: list[object] = [] if record.soft is None else [record.soft]
            if record.unknown:
                extra.append({"unknown": [split.labels.names[index] for index in record.unknown]})
            _feed(digest, [record.image_id, record.captions, labels, _size(record), *extra])
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", value: list[object]) -> None:
    digest.update(json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n")


def _size(record: Record) -> int | None:
    try:
        return None if record.image is None else size_of(record.image)
    except OSError as error:
        where = f"{record.file}:record {record.number}"
        raise DataError(
            f"{where}: the picture {record.image} cannot be read any more: {os_error_reason(error)}"
        ) from None
