"""Everything that is wrong with a data set, in one list, before hours are spent on training."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.errors import ImageError
from mlic_train.data.source.members import PictureFile, image_source, size_of
from mlic_train.errors import DataError

from .labels import LabelSet
from .problems import Problem
from .reader import read_split
from .records import Record, Split
from .summary import summarise

Progress = Callable[[int, int], None]
"""Called with the pictures looked at so far and with their total."""


@dataclass(frozen=True, slots=True)
class SplitInput:
    """One split to check: the arguments of `read_split`."""

    files: tuple[Path, ...]
    images: Path | None = None
    data_format: str = "auto"
    pictures: bool = True


@dataclass(frozen=True, slots=True)
class _Look:
    """One picture's sha256 (None when it cannot be read) and why it cannot be decoded (None when it can)."""

    digest: str | None
    error: str | None


def check_splits(
    splits: Mapping[str, SplitInput],
    labels: LabelSet,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> list[Problem]:
    """Read every split and decode every picture; list what is wrong instead of raising it.

    Bad rows are the errors of `read_split`. Of the others, these are errors: a file that cannot be read, no record,
    an undecodable picture, a picture in two splits (the same bytes or, where a split is read without pictures, the
    same image id). These are warnings: a blank caption, a row that repeats another, two pictures of one split with the
    same bytes, records without labels (one per file), a label that no record of a split has.

    Args:
        splits: in the order of the list that comes back; a picture in two splits is reported in the later one.
        labels: what the rows' labels are looked up in.
        progress: called after each picture, from the calling thread.
        workers: threads that decode, at least 1; by default one per processor, at most 8.

    Returns:
        The problems by split, file and record; empty when there is none.
    """
    problems: dict[str, list[Problem]] = {}
    read: dict[str, Split] = {}
    for name, given in splits.items():
        problems[name] = []
        try:
            read[name] = read_split(
                given.files,
                labels,
                images=given.images,
                data_format=given.data_format,
                skip_bad_rows=True,
                pictures=given.pictures,
                allow_empty=True,
            )
        except DataError as error:
            problems[name].append(_bad_file(given.files, str(error)))
            continue
        problems[name] += [*read[name].skipped, *read[name].warnings, *_missing(given, read[name])]
    looks = _look_at_all(read.values(), progress, workers)
    for name, split in read.items():
        for record in split.records:
            if record.image is not None and (why := looks[record.image].error):
                problems[name].append(Problem(record.file, record.number, "undecodable-picture", why))
    for name, problem in _repeated(read, looks):
        problems[name].append(problem)
    return [problem for name, given in splits.items() for problem in _ordered(given.files, problems[name])]


def find_overlap(splits: Mapping[str, Split], extra: Split) -> list[Problem]:
    """The records of `extra` whose picture one of the splits has, by the rule for split-overlap of `check_splits`.

    Only files of equal size are read, so that it costs little where nothing overlaps.

    Raises:
        DataError: a picture cannot be read.
    """
    by_size: dict[int, set[PictureFile]] = {}
    try:
        for record in (record for split in (*splits.values(), extra) for record in split.records):
            if record.image is not None:
                by_size.setdefault(size_of(record.image), set()).add(record.image)
        looks = {
            # A file that has its size to itself can be equal to itself only; its path says that as well as a hash.
            path: _Look(hashlib.sha256(path.read_bytes()).hexdigest() if len(paths) > 1 else str(path), None)
            for paths in by_size.values()
            for path in paths
        }
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}; expected a picture") from None
    name = "extra"
    found = _repeated({**splits, name: extra}, looks)
    return [problem for where, problem in found if where == name and problem.kind == "split-overlap"]


def _bad_file(files: tuple[Path, ...], message: str) -> Problem:
    for file in files:
        if message.startswith(f"{file}: "):
            return Problem(file, None, "bad-file", message.removeprefix(f"{file}: "))
    return Problem(files[0] if files else Path(), None, "bad-file", message)


def _missing(given: SplitInput, split: Split) -> Iterable[Problem]:
    """What a split lacks as a whole: records, labelled records, positives of a label."""
    if not split.records:
        yield Problem(given.files[0], None, "empty-split", "found no usable record; expected at least one")
        return
    for file in given.files:
        records = [record for record in split.records if record.file == file]
        unlabelled = [record for record in records if record.labels is None]
        if unlabelled:
            first = f"record {unlabelled[0].number}"
            message = f"{len(unlabelled)} of {len(records)} records have no labels, the first is {first}"
            yield Problem(file, None, "unlabelled", message, "warning")
    summary = summarise(split)
    for name, count in summary.label_counts.items():
        if not count and summary.labelled:
            yield Problem(given.files[0], None, "unused-label", f"no record has the label {name!r}", "warning")


def _look_at_all(splits: Iterable[Split], progress: Progress | None, workers: int | None) -> dict[PictureFile, _Look]:
    paths = list(dict.fromkeys(record.image for split in splits for record in split.records if record.image))
    looks: dict[PictureFile, _Look] = {}
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as threads:
        for path, look in zip(paths, threads.map(_look_at, paths), strict=True):
            looks[path] = look
            if progress is not None:
                progress(len(looks), len(paths))
    return looks


def _look_at(path: PictureFile) -> _Look:
    from mlic_runtime.picture.decode import load_image  # loads numpy and Pillow, which reading does without

    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return _Look(None, f"{path}: cannot be read: {error.strerror}; expected a picture")
    try:
        load_image(image_source(path))
    except ImageError as error:
        return _Look(digest, str(error))
    return _Look(digest, None)


def _repeated(splits: Mapping[str, Split], looks: Mapping[PictureFile, _Look]) -> Iterable[tuple[str, Problem]]:
    """Records whose picture an earlier record has too, with the name of their split."""
    by_digest: dict[str, tuple[str, Record]] = {}
    by_id: dict[str, tuple[str, Record]] = {}
    for name, split in splits.items():
        for record in split.records:
            if record.image_id is None:
                continue
            digest = looks[record.image].digest if record.image is not None else None
            other = by_digest.get(digest) if digest is not None else None
            if other is None and (same_id := by_id.get(record.image_id)):
                # One name in two folders may well be two pictures; bytes have decided that where both have a file.
                other = same_id if record.image is None or same_id[1].image is None else None
            by_id.setdefault(record.image_id, (name, record))
            if digest is not None:
                by_digest.setdefault(digest, (name, record))
            if other is not None:
                yield name, _repeat(name, record, *other)


def _repeat(name: str, record: Record, other_name: str, other: Record) -> Problem:
    where = f"record {other.number} of {other.file}"
    labels = "" if record.labels is None or record.labels == other.labels else ", with other labels"
    if name == other_name:
        message = f"{record.image_id!r} has the same bytes as {other.image_id!r}, {where}{labels}"
        return Problem(record.file, record.number, "duplicate-picture", message, "warning")
    message = f"{record.image_id!r} is also in the split {other_name!r} as {other.image_id!r}, {where}{labels}"
    return Problem(record.file, record.number, "split-overlap", message)


def _ordered(files: tuple[Path, ...], problems: list[Problem]) -> list[Problem]:
    places = {file: place for place, file in enumerate(files)}
    return sorted(problems, key=lambda problem: (places.get(problem.file, -1), problem.number or 0))
