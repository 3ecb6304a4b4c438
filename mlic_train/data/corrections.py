"""More labelled rows, such as corrected ones: they join train, or give their labels to rows that are there."""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from mlic_runtime.annotations.source.members import PictureFile, size_of
from mlic_runtime.base.files import os_error_reason
from mlic_train.errors import DataError

from .records import Record, Split


def join_rows(splits: Mapping[str, Split], more: Split) -> tuple[dict[str, Split], str]:
    """Join labelled rows to the splits.

    A row whose picture is in the data gives its labels, with what is unknown of them, to the rows with that picture, in
    every split: the same file, or other files with the same bytes. Without picture files the name decides, and without
    a name the captions. Any other row becomes a row of train. A row that is not labelled changes nothing.

    Args:
        splits: by name; "train" is there.
        more: the rows, with the same labels.

    Returns:
        The splits, and one line that says what was done.

    Raises:
        DataError: a picture cannot be read.
    """
    labelled = [record for record in more.records if record.labels is not None]
    keys = _Keys([record for split in (*splits.values(), more) for record in split.records])
    newer = {keys.of(record): record for record in labelled}
    changed: Counter[str] = Counter()
    known: set[Hashable] = set()
    joined = {}
    for name, split in splits.items():
        records = []
        for record in split.records:
            key = keys.of(record)
            if (other := newer.get(key)) is not None:
                known.add(key)
                changed[name] += (record.labels, record.unknown) != (other.labels, other.unknown)
                record = dataclasses.replace(record, labels=other.labels, unknown=other.unknown)
            records.append(record)
        joined[name] = dataclasses.replace(split, records=tuple(records))
    new = [record for key, record in newer.items() if key not in known]
    train = joined["train"]
    joined["train"] = dataclasses.replace(
        train,
        records=(*train.records, *new),
        skipped=(*train.skipped, *more.skipped),
        warnings=(*train.warnings, *more.warnings),
    )
    return joined, _describe(more, len(labelled), len(new), changed, len(known))


def _describe(more: Split, labelled: int, new: int, changed: Mapping[str, int], known: int) -> str:
    files = ", ".join(file.name for file in dict.fromkeys(record.file for record in more.records))
    where = ", ".join(f"{count:,} of {name}" for name, count in changed.items() if count)
    parts = [f"{new:,} rows joined train", f"{known:,} were there already ({where or 'no'} rows got other labels)"]
    if labelled < len(more.records):
        parts.append(f"{len(more.records) - labelled:,} are not labelled and change nothing")
    if labelled > new + known:
        parts.append(f"{labelled - new - known:,} repeat a picture of a later row")
    return f"also {files}: {', '.join(parts)}"


class _Keys:
    """What tells rows with one picture from others; only files of equal size are read."""

    def __init__(self, records: Sequence[Record]) -> None:
        by_size: dict[int, set[PictureFile]] = defaultdict(set)
        try:
            for picture in _pictures(records):
                by_size[size_of(picture)].add(picture)
            self._digests = {
                picture: hashlib.sha256(picture.read_bytes()).hexdigest()
                for pictures in by_size.values()
                if len(pictures) > 1
                for picture in pictures
            }
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {os_error_reason(error)}; expected a picture") from None

    def of(self, record: Record) -> Hashable:
        """Return the same key for rows with the same picture, else name, else captions."""
        if record.image is not None:
            picture = _absolute(record.image)
            return self._digests.get(picture, picture)
        return ("name", record.image_id) if record.image_id is not None else ("captions", record.captions)


def _absolute(picture: PictureFile) -> PictureFile:
    return picture.absolute() if isinstance(picture, Path) else picture


def _pictures(records: Iterable[Record]) -> Iterable[PictureFile]:
    return dict.fromkeys(_absolute(record.image) for record in records if record.image is not None)
