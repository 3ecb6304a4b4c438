"""Checks of a data set: all its problems in one list, before training takes hours."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mlic_runtime.annotations.formats.format import ColumnNames
from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem, Severity
from mlic_runtime.annotations.source.members import PictureFile, image_source, size_of
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.text import counted
from mlic_runtime.errors import ImageError
from mlic_train.errors import DataError

from .reader import read_split
from .records import Record, Split, contradict
from .summary import summarise


def check_splits(
    splits: Mapping[str, tuple[Path, ...]],
    labels: LabelSet,
    *,
    images: Path | None = None,
    data_format: str = "auto",
    pictures: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> list[Problem]:
    """Read every split and decode every picture; list what is wrong instead of raising it.

    Bad rows are the errors of `read_split`. Of the others, these are errors: a file that cannot be read, no record,
    an undecodable picture, a picture in two splits (the same bytes or, where a split is read without pictures, the
    same image id). These are warnings: a blank caption, a row that repeats another, two pictures of one split with the
    same bytes, records without labels (one per file), a label that no record of a split has.

    Args:
        splits: the files of each split; a picture in two splits is reported in the later one.
        labels: the labels that rows may have.
        images: see `read_split`.
        data_format: see `read_split`.
        pictures: see `read_split`.
        progress: called after each picture, from the calling thread, with the pictures so far and their total.
        workers: threads that decode, at least 1; by default one per processor, at most 8.

    Returns:
        The problems by split, file and record; empty when there is none.
    """
    read: dict[str, Split] = {}
    bad: list[Problem] = []
    for name, files in splits.items():
        split = read_leniently(files, labels, images=images, data_format=data_format, pictures=pictures)
        if isinstance(split, Problem):
            bad.append(split)
        else:
            read[name] = split
    return sort_problems([*bad, *find_problems(read, splits, progress, workers)], splits)


def read_leniently(
    files: tuple[Path, ...],
    labels: LabelSet,
    *,
    images: Path | None,
    data_format: str,
    pictures: bool,
    columns: ColumnNames | None = None,
) -> Split | Problem:
    """Return a split with its bad rows listed as skipped, or the problem of a file that cannot be used at all."""
    try:
        return read_split(
            files,
            labels,
            images=images,
            data_format=data_format,
            skip_bad_rows=True,
            pictures=pictures,
            allow_empty=True,
            columns=columns,
        )
    except DataError as caught:
        return bad_file(files, str(caught))


def find_problems(
    splits: Mapping[str, Split],
    files: Mapping[str, tuple[Path, ...]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
    taught: Collection[str] = (),
) -> list[Problem]:
    """Return the problems of splits that were read, in no order; see `check_splits`.

    A label of which no training row says anything is an error, unless it is `taught`.
    """
    problems: list[Problem] = []
    for name, split in splits.items():
        problems += [*split.skipped, *split.warnings, *_missing(name, files, split, taught)]
    digests, errors = _check_pictures(splits, progress, workers)
    for split in splits.values():
        problems += _undecodable(split, errors)
    problems += [each.problem() for each in _find_repeated(splits, digests)]
    return problems


def sort_problems(problems: Iterable[Problem], splits: Mapping[str, tuple[Path, ...]]) -> list[Problem]:
    """Return the problems in the order of the splits, of their files and of the records."""
    places = {file: place for place, file in enumerate(file for files in splits.values() for file in files)}
    return sorted(problems, key=lambda problem: (places.get(problem.file, -1), problem.number or 0))


def leave_out_undecodable(
    splits: Mapping[str, Split], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Split]:
    """Decode every picture; return the splits without the records whose picture cannot be, listed as skipped.

    A record whose picture an earlier split has too is left out as well: `check_splits` calls both errors.

    Args:
        splits: by name.
        progress: see `check_splits`.

    Raises:
        DataError: a split has no other records.
    """
    digests, errors = _check_pictures(splits, progress, None)
    overlap: dict[str, list[Problem]] = {name: [] for name in splits}
    for each in _find_repeated(splits, digests):
        if each.overlaps:
            overlap[each.split].append(each.problem())
    kept = {}
    for name, split in splits.items():
        problems = _undecodable(split, errors) + overlap[name]
        bad = {(problem.file, problem.number) for problem in problems}
        records = tuple(record for record in split.records if (record.file, record.number) not in bad)
        if problems and not records:
            raise DataError(f"{problems[0]}; found no usable record in the split {name!r}, expected at least one")
        kept[name] = dataclasses.replace(split, records=records, skipped=(*split.skipped, *problems))
    return kept


def find_overlap(splits: Mapping[str, Split], extra: Split) -> list[Problem]:
    """Return the records of `extra` whose picture one of the splits has, as split-overlap in `check_splits`.

    Only files of equal size are read, so that it costs little where nothing overlaps.

    Raises:
        DataError: a picture cannot be read.
    """
    by_size: dict[int, set[PictureFile]] = {}
    try:
        for record in (record for split in (*splits.values(), extra) for record in split.records):
            if record.image is not None:
                by_size.setdefault(size_of(record.image), set()).add(record.image)
        digests: dict[PictureFile, str | None] = {
            # No other file can equal one of a size of its own: then its path tells it apart as well as a hash.
            picture: hashlib.sha256(picture.read_bytes()).hexdigest() if len(pictures) > 1 else str(picture)
            for pictures in by_size.values()
            for picture in pictures
        }
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {os_error_reason(error)}; expected a picture") from None
    repeated = _find_repeated({**splits, "extra": extra}, digests)
    return [each.problem() for each in repeated if each.split == "extra" and each.overlaps]


def describe_shared(splits: Mapping[str, Split]) -> list[str]:
    """Return which splits have pictures of an earlier one, as split-overlap in `check_splits`, a line each.

    Their files tell, so that no picture is read. Copies of a file are others here.
    """
    records = [record for split in splits.values() for record in split.records]
    paths = {record.image: str(record.image) for record in records if record.image is not None}
    shared: dict[str, list[_Repeated]] = {}
    for each in _find_repeated(splits, paths):
        if each.overlaps:
            shared.setdefault(each.split, []).append(each)
    return [
        f"{name} shares {counted(len(found), 'picture')} with "
        f"{' and '.join(dict.fromkeys(each.other_split for each in found))}, such as {found[0].record.image_id!r}, "
        "so that its metrics are too good; --skip-bad-rows leaves such rows out"
        for name, found in shared.items()
    ]


def bad_file(files: tuple[Path, ...], message: str) -> Problem:
    """Return the problem of the file that a message begins with, else of the first."""
    for file in files:
        if message.startswith(f"{file}:"):
            rest = message.removeprefix(f"{file}:").lstrip()
            return Problem(file, None, "bad-file", f"line {rest}" if rest[:1].isdigit() else rest)
    return Problem(files[0] if files else Path(), None, "bad-file", message)


def _missing(
    name: str, files: Mapping[str, tuple[Path, ...]], split: Split, taught: Collection[str]
) -> Iterable[Problem]:
    """Yield what a split lacks as a whole: records, labelled records, records with a label."""
    first = next((record.file for record in split.records), next(iter(files.get(name) or files["train"]), Path()))
    if not split.records:
        yield Problem(first, None, "empty-split", f"found no usable record of {name}; expected at least one")
        return
    summary = summarise(split)
    by_file: dict[Path, list[Record]] = {}
    for record in split.records:
        by_file.setdefault(record.file, []).append(record)
    for file, records in by_file.items():
        unlabelled = [record for record in records if record.labels is None]
        if unlabelled:
            example = f"record {unlabelled[0].number}"
            message = f"{len(unlabelled)} of {len(records)} records have no labels, the first is {example}"
            stops = not summary.labelled and name != "test"
            yield Problem(file, None, "unlabelled", message, "error" if stops else "warning")
    for label, count in summary.label_counts.items():
        if not count and summary.labelled:
            unknown = summary.unknown_counts[label]
            beside = f", and in {unknown} of {summary.labelled} it is unknown" if unknown else ""
            blind = name == "train" and unknown == summary.labelled and label not in taught
            severity: Severity = "error" if blind else "warning"
            message = f"no record of {name} has the label {label!r}{beside}"
            yield Problem(first, None, "unused-label", message, severity)


def _check_pictures(
    splits: Mapping[str, Split], progress: Callable[[int, int], None], workers: int | None
) -> tuple[dict[PictureFile, str | None], dict[PictureFile, str]]:
    """Return what `_check_picture` does for each picture of the splits: its sha256, and its error if it has one."""
    found = list(dict.fromkeys(record.image for split in splits.values() for record in split.records if record.image))
    digests: dict[PictureFile, str | None] = {}
    errors: dict[PictureFile, str] = {}
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as threads:
        for picture, (digest, error) in zip(found, threads.map(_check_picture, found), strict=True):
            digests[picture] = digest
            if error is not None:
                errors[picture] = error
            progress(len(digests), len(found))
    return digests, errors


def _undecodable(split: Split, errors: Mapping[PictureFile, str]) -> list[Problem]:
    return [
        Problem(record.file, record.number, "undecodable-picture", errors[record.image])
        for record in split.records
        if record.image is not None and record.image in errors
    ]


def _check_picture(picture: PictureFile) -> tuple[str | None, str | None]:
    """Return a picture's sha256, None if it cannot be read, and its error, None if it can be decoded."""
    from mlic_runtime.picture.decode import load_image  # loads numpy and Pillow, which reading does without

    try:
        digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    except OSError as error:
        return None, f"{picture}: cannot be read: {os_error_reason(error)}; expected a picture"
    try:
        load_image(image_source(picture))
    except ImageError as error:
        return digest, str(error)
    return digest, None


class _Repeated(NamedTuple):
    """A record whose picture an earlier one, `other`, has too."""

    split: str
    record: Record
    other_split: str
    other: Record

    @property
    def overlaps(self) -> bool:
        """Whether two splits share the picture."""
        return self.split != self.other_split

    def problem(self) -> Problem:
        record, other = self.record, self.other
        where = f"record {other.number} of {other.file}"
        same = record.labels is None or (other.labels is not None and not contradict(record, other))
        labels = "" if same else ", with other labels"
        if self.overlaps:
            message = f"{record.image_id!r} is also in the split {self.other_split!r} as {other.image_id!r}"
            return Problem(record.file, record.number, "split-overlap", f"{message}, {where}{labels}")
        message = f"{record.image_id!r} has the same bytes as {other.image_id!r}, {where}{labels}"
        return Problem(record.file, record.number, "duplicate-picture", message, "warning")


def _find_repeated(splits: Mapping[str, Split], digests: Mapping[PictureFile, str | None]) -> Iterator[_Repeated]:
    """Yield each record whose picture an earlier record has too; `digests` tell pictures apart."""
    by_digest: dict[str, tuple[str, Record]] = {}
    by_id: dict[str, tuple[str, Record]] = {}
    for name, split in splits.items():
        for record in split.records:
            if record.image_id is None:
                continue
            digest = None if record.image is None else digests[record.image]
            other = by_digest.get(digest) if digest is not None else None
            if other is None and (same_id := by_id.get(record.image_id)):
                # One name in two folders may be two pictures; where both have a file, their bytes have decided.
                other = same_id if record.image is None or same_id[1].image is None else None
            by_id.setdefault(record.image_id, (name, record))
            if digest is not None:
                by_digest.setdefault(digest, (name, record))
            if other is not None:
                yield _Repeated(name, record, *other)
