"""Val from training rows, where data has none: every label in its share, and what looks alike on one side."""

import csv
import dataclasses
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlic_runtime.annotations.source.members import PictureFile
from mlic_runtime.base.output_files import write_bytes
from mlic_runtime.base.text import counted
from mlic_train.errors import CheckpointError, DataError

from .near_duplicates import close_pairs, has_contrast
from .picture_info import PictureInfo, read_pictures
from .records import Record, Split

DIVISION_NAME = "splits.csv"  # in a run folder: which rows were train, and which val
_COLUMNS = ["split", "file", "record", "image_id", "content"]
# A caption of more rows with pictures than this is a template ("a photo of a dog"), and says nothing of its picture.
_MAX_ROWS_OF_CAPTION = 10
_NAMED = 5  # labels that a line names


@dataclass(frozen=True)
class Division:
    """Which training rows became val, and how they were chosen.

    Attributes:
        split_of: "train" or "val" by the key of a row (see `_row_keys`).
        notes: what there is to say about it, a line each.
    """

    split_of: Mapping[tuple[str, int, str, str], str]
    notes: tuple[str, ...]


def divide(
    split: Split,
    fraction: float,
    seed: int,
    keep: Collection[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Split, Split, Division]:
    """Divide training rows into train and val.

    Rows with the same picture, nearly the same picture, or the same caption stay together. Then iterative
    stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data") gives each label
    its share of val, the rarest first. For a label that is unknown in some rows, the rows that are known to lack it
    are shared out too; so are the kinds of rows (with picture, caption, or both). A label that only one group of such
    rows has goes to train.

    The result depends on the content of the rows, on `fraction` and on `seed`, but on no order, path or file.

    Args:
        split: the training rows.
        fraction: the share of val, above 0, at most 0.5.
        seed: any whole number.
        keep: the files whose rows stay in train; so do rows without labels.
        progress: called with the pictures that were read so far, and with their total.

    Returns:
        Train and val, in the order of the rows, and how they were divided.

    Raises:
        DataError: there are too few rows for both.
    """
    rows = split.records
    pool = [index for index, row in enumerate(rows) if row.labels is not None and row.file not in keep]
    if len(pool) < 2:
        raise DataError(_too_few(split, f"{len(pool)} labelled rows"))
    pictures, _ = read_pictures({"train": split}, progress)
    groups = _groups(rows, pictures)
    movable = set(pool)
    units: dict[int, list[int]] = defaultdict(list)
    for index in pool:
        units[groups[index]].append(index)
    fixed = {groups[index] for index in range(len(rows)) if index not in movable}
    contents = {index: _content(rows[index], pictures) for index in pool}
    ordered = sorted(units, key=lambda group: min(_mix(seed, contents[index]) for index in units[group]))
    strata = _strata([rows[index] for index in pool], len(split.labels))
    by_row = dict(zip(pool, strata, strict=True))
    counts = [Counter(one for index in units[group] for one in by_row[index]) for group in ordered]
    sizes, stay = [len(units[group]) for group in ordered], [group in fixed for group in ordered]
    in_val = stratify(counts, sizes, fraction, stay, len(split.labels))
    val = {index for group, chosen in zip(ordered, in_val, strict=True) if chosen for index in units[group]}
    if not any(rows[index].labels for index in val):
        raise DataError(_too_few(split, f"{len(pool)} rows, of which no group with a label can be spared"))
    keys = _row_keys(rows)
    notes = _describe(split, val, pool, seed, sum(len(unit) - 1 for unit in units.values()))
    division = Division({keys[index]: "val" if index in val else "train" for index in pool}, notes)
    return *_parts(split, val), division


def apply_division(split: Split, division: Division, where: Path) -> tuple[Split, Split]:
    """Divide rows as an earlier division of them did; rows that it did not have go to train.

    Args:
        split: the rows.
        division: the earlier division.
        where: the file that it was read from.

    Raises:
        DataError: rows of its val are not there.
    """
    keys = _row_keys(split.records)
    val = {index for index, key in enumerate(keys) if division.split_of.get(key) == "val"}
    wanted = sum(name == "val" for name in division.split_of.values())
    if len(val) != wanted:
        raise DataError(
            f"found {len(val):,} of the {wanted:,} rows that {where} names for val; give the data that the run was "
            "trained with, or the rows to measure on with --val FILE"
        )
    return _parts(split, val)


def write_division(folder: Path, division: Division) -> None:
    """Write `splits.csv` into a run folder.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((name, *key) for key, name in division.split_of.items())
    write_bytes(folder / DIVISION_NAME, text.getvalue().encode("utf-8", "surrogateescape"))


def read_division(folder: Path) -> Division | None:
    """Return the division that a run folder holds; None where its data was divided already.

    Raises:
        CheckpointError: the file cannot be read, or is not such a file.
    """
    file = folder / DIVISION_NAME
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    header, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    try:
        if header != _COLUMNS:
            raise ValueError(f"found the header {','.join(header)!r}; expected {','.join(_COLUMNS)}")
        split_of = {(path, int(number), image, content): name for name, path, number, image, content in lines}
        if not {*split_of.values()} <= {"train", "val"}:
            raise ValueError("found a split other than train and val")
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged ({error}); give the rows to measure on with --val FILE") from None
    chosen = sum(name == "val" for name in split_of.values())
    return Division(split_of, (f"val: {chosen:,} of {len(split_of):,} rows, as in {file}",))


def stratify(
    counts: Sequence[Mapping[int, int]], sizes: Sequence[int], fraction: float, fixed: Sequence[bool], labels: int
) -> list[bool]:
    """Return which groups of rows go to val, by iterative stratification; see `divide`.

    Args:
        counts: of every group, the rows by stratum; strata are numbered from 0.
        sizes: of every group, its rows.
        fraction: the share of val.
        fixed: which groups have to stay in train.
        labels: how many of the first strata are labels; val gets a group with one of them, if one can be spared.
    """
    strata = 1 + max((stratum for of_group in counts for stratum in of_group), default=-1)
    members: list[list[int]] = [[] for _ in range(strata)]
    totals = np.zeros(strata)
    for group, of_group in enumerate(counts):
        for stratum, count in of_group.items():
            members[stratum].append(group)
            totals[stratum] += count
    left = np.array([len(of_stratum) for of_stratum in members])  # groups that are not placed yet
    wanted = {True: totals * fraction, False: totals * (1 - fraction)}  # rows that val and train still want
    room = {True: sum(sizes) * fraction, False: sum(sizes) * (1 - fraction)}
    placed: dict[int, bool] = {}

    def place(group: int, val: bool) -> None:
        placed[group] = val
        room[val] -= sizes[group]
        for stratum, count in counts[group].items():
            wanted[val][stratum] -= count
            left[stratum] -= 1

    for group, stays in enumerate(fixed):
        if stays or any(len(members[stratum]) == 1 for stratum in counts[group]):
            place(group, False)
    while left.any():
        stratum = int(np.argmin(np.where(left > 0, left, np.iinfo(left.dtype).max)))
        for group in members[stratum]:
            if group not in placed:
                need = {side: (wanted[side][stratum], room[side]) for side in (True, False)}
                place(group, need[True] > need[False])
    for group in range(len(counts)):
        if group not in placed:
            place(group, room[True] > room[False])
    in_val = [placed[group] for group in range(len(counts))]
    _fill(in_val, counts, sizes, fraction, fixed, labels)
    return in_val


def _fill(
    in_val: list[bool],
    counts: Sequence[Mapping[int, int]],
    sizes: Sequence[int],
    fraction: float,
    fixed: Sequence[bool],
    labels: int,
) -> None:
    """Move groups to val while it lacks a label or, by many rare labels, rows; no stratum of train becomes empty."""
    wanted = max(1.0, sum(sizes) * fraction)
    left = Counter(stratum for group, val in enumerate(in_val) if not val for stratum in counts[group])
    size = sum(rows for rows, val in zip(sizes, in_val, strict=True) if val)
    with_label = {group for group, of_group in enumerate(counts) if any(stratum < labels for stratum in of_group)}
    lacks_label = not any(val and group in with_label for group, val in enumerate(in_val))
    # First those whose strata train has most of.
    spare = sorted(
        (group for group, val in enumerate(in_val) if not val and not fixed[group]),
        key=lambda group: -min((left[stratum] for stratum in counts[group]), default=0),
    )
    for group in spare:
        needed = lacks_label and group in with_label
        if (needed or wanted - size >= sizes[group] / 2) and all(left[stratum] > 1 for stratum in counts[group]):
            in_val[group] = True
            size += sizes[group]
            left.subtract(counts[group].keys())
            lacks_label = lacks_label and not needed


def _strata(records: Sequence[Record], labels: int) -> list[list[int]]:
    """Return the strata of each row: its labels, known absences of labels that are unknown elsewhere, and its kind."""
    unsure = {label for record in records for label in record.unknown}
    kinds = {(record.image is not None, bool(record.captions)) for record in records}
    place = {kind: 2 * labels + number for number, kind in enumerate(sorted(kinds))} if len(kinds) > 1 else {}
    result = []
    for record in records:
        has, unknown = set(record.labels or ()), set(record.unknown)
        absent = [labels + label for label in sorted(unsure - has - unknown)]
        kind = place.get((record.image is not None, bool(record.captions)))
        result.append([*sorted(has), *absent, *([] if kind is None else [kind])])
    return result


def _groups(rows: Sequence[Record], pictures: Mapping[PictureFile, PictureInfo]) -> list[int]:
    """Return for each row the number of its group: rows that must stay on one side."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[Hashable, int] = {}
    grey: dict[str, tuple[int, PictureInfo]] = {}
    for index, row in enumerate(rows):
        info = pictures.get(row.image) if row.image is not None else None
        if info is not None:
            parent[root(index)] = root(first.setdefault(info.digest, index))
            if has_contrast(info.grey):
                grey.setdefault(info.digest, (index, info))
    if grey:
        kept = list(grey.values())
        for later, earlier, _, _ in close_pairs(np.stack([info.grey for _, info in kept]).astype(np.int16)):
            parent[root(kept[later][0])] = root(kept[earlier][0])
    by_caption: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        for caption in row.captions:
            by_caption[caption.casefold()].append(index)
    for same in by_caption.values():
        with_picture = sum(rows[index].image is not None for index in same)
        # A row without a picture is its caption; where pictures tell rows apart, a template does not join them.
        bound = same if with_picture <= _MAX_ROWS_OF_CAPTION else [i for i in same if rows[i].image is None]
        for index in bound[1:]:
            parent[root(index)] = root(bound[0])
    return [root(index) for index in range(len(rows))]


def _content(record: Record, pictures: Mapping[PictureFile, PictureInfo]) -> str:
    """Return what a row is, wherever it lies: the bytes of its picture, or its name where it was not read."""
    info = pictures.get(record.image) if record.image is not None else None
    return json.dumps([record.image_id if info is None else info.digest, sorted(record.captions)])


def _mix(seed: int, content: str) -> str:
    return hashlib.sha256(f"{seed}:{content}".encode("utf-8", "surrogatepass")).hexdigest()


def _parts(split: Split, val: Collection[int]) -> tuple[Split, Split]:
    """Return train and val; what is to say of the rows is said of train."""
    train = tuple(record for index, record in enumerate(split.records) if index not in val)
    chosen = tuple(record for index, record in enumerate(split.records) if index in val)
    return dataclasses.replace(split, records=train), Split(chosen, split.labels)


def _row_keys(records: Sequence[Record]) -> list[tuple[str, int, str, str]]:
    """Return (file, record number, image id, hash of id and captions) of each row.

    Files are named from the folder on that they have in common, so that data that has moved is known again.
    """
    files = dict.fromkeys(record.file for record in records)
    depth = min((len(file.parts) - 1 for file in files), default=0)
    if len(files) > 1:
        while depth and len({file.parts[:depth] for file in files}) > 1:
            depth -= 1
    names = {file: "/".join(file.parts[depth:]) for file in files}
    return [
        (
            names[record.file],
            record.number,
            record.image_id or "",
            hashlib.sha256(json.dumps([record.image_id, record.captions]).encode()).hexdigest()[:12],
        )
        for record in records
    ]


def _describe(split: Split, val: Collection[int], pool: Sequence[int], seed: int, together: int) -> tuple[str, ...]:
    """Return the lines that say how the rows were divided."""
    facts = [f"chosen by --split-seed {seed}", "stratified by label"]
    if together:
        rows = counted(together, "row")
        facts.append(f"{rows} kept with others of the same picture, a near copy, or the same caption")
    lines = [f"val: {len(val):,} of {len(pool):,} rows, {'; '.join([', '.join(facts[:2]), *facts[2:]])}"]
    has = Counter(label for index in pool for label in split.records[index].labels or ())
    of_val = Counter(label for index in val for label in split.records[index].labels or ())
    if missing := [label for label in has if not of_val[label]]:
        shown = sorted(missing, key=lambda label: (-has[label], label))
        names = ", ".join(f"{split.labels.names[label]} ({has[label]})" for label in shown[:_NAMED])
        more = f", ... {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
        what = "1 label" if len(missing) == 1 else f"{len(missing)} labels"
        lines.append(f"val has no row of {what}, too rare to divide (rows in train): {names}{more}")
    return tuple(lines)


def _too_few(split: Split, found: str) -> str:
    files = ", ".join(dict.fromkeys(str(record.file) for record in split.records)) or "the training data"
    return (
        f"{files}: found no validation data, and {found}, which is too few to divide val off: give --val FILE, "
        "or more rows"
    )
