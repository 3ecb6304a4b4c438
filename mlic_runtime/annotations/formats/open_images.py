"""Open Images: its tables of image-level labels and of boxes, with class-descriptions.csv.

Formats: https://storage.googleapis.com/openimages/web/download_v7.html, section "Data formats"; FiftyOne keeps the same
tables as labels/classifications.csv, labels/detections.csv and metadata/classes.csv.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_range
from mlic_runtime.base.override import override
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import DataError
from mlic_runtime.tables.csv_records import BrokenRecord

from .format import Format, Rows, clean_row
from .parsing import csv_records, parse_each

_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence")  # boxes have more columns after these
_BOX = "XMin"
_DESCRIPTIONS = ("LabelName", "DisplayName")  # the header that only the newer files have
# Of one split, the first that is there is read: people have seen what the boxes and the machine say as well.
_TABLES = (
    "*{split}-annotations-human-imagelabels.csv",
    "*{split}-annotations-human-imagelabels-boxable.csv",
    "*{split}-annotations-bbox.csv",
    "*{split}-annotations-machine-imagelabels.csv",
)
_IN_FOLDER = ("labels/classifications.csv", "labels/detections.csv")
_PRESENT, _ABSENT = 0.9, 0.1  # confidences from which a label counts as there, and up to which as not there
_PICTURE_SUFFIX = ".jpg"  # Open Images has no other pictures

_Line: TypeAlias = tuple[int, str, str, float]


@dataclass(slots=True)
class _Picture:
    """What a table says about a picture: the number of its first line, and the labels by what is known of them."""

    number: int
    present: dict[str, None] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    between: set[str] = field(default_factory=set)


class OpenImages(Format):
    """Tables with the columns ImageID, Source, LabelName and Confidence: a line for each label or box of a picture.

    Confidence 1 means that the picture has the label, 0 that it has not. A machine's confidences lie between: a label
    is there from 0.9 on, it is not there up to 0.1, and is unknown between. What is not listed for a picture is unknown
    there: nobody looked. A box means that the label is there.

    The labels are those that occur, in the order of `class-descriptions.csv` and named by it; their ids are Google's
    (MID), such as /m/0bt9lr.
    """

    name = "open-images"
    title = "Open Images"

    @override
    def recognizes(self, source: Path) -> bool:
        return source.suffix.lower() == ".csv" and source.is_file() and tuple(_head(source)[:4]) == _COLUMNS

    @override
    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        for pattern in _TABLES:
            name = pattern.format(split=split)
            if found := [file for file in sorted(folder.glob(name)) if self.recognizes(file)]:
                return [(file,) for file in found]
        return []

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        inside: list[tuple[Path, ...]] = [(folder / name,) for name in _IN_FOLDER if self.recognizes(folder / name)]
        return super().find_whole(folder) or inside[:1]

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        pictures: dict[str, _Picture] = {}
        for line in _lines(file):
            if isinstance(line, Problem):
                yield line
                continue
            number, image, label, confidence = line
            picture = pictures.setdefault(image, _Picture(number))
            if confidence >= _PRESENT:
                picture.present.setdefault(label)
            else:
                (picture.absent if confidence <= _ABSENT else picture.between).add(label)
        names = {} if labels is None else _keys(file, labels)
        yield from _notes(file, pictures)
        unknown: dict[frozenset[str], tuple[str, ...]] = {}
        for image, picture in pictures.items():
            # Two lines that contradict each other leave the label unknown.
            contradicted = picture.absent & picture.present.keys()
            present = [label for label in picture.present if label not in contradicted]
            known = frozenset((*present, *(picture.absent - contradicted)))
            if labels is not None and known not in unknown:
                keys = {names.get(label, label) for label in known}
                unknown[known] = tuple(key for key in labels.ids if key not in keys)
            kept = [names.get(label, label) for label in present]
            if labels is not None and labels.restricts:
                kept = [label for label in kept if label in labels]
            row = clean_row(file, picture.number, image, [], tuple(kept))
            if isinstance(row, Problem):
                yield row
            else:
                other_names = () if Path(image).suffix else (image + _PICTURE_SUFFIX,)
                yield dataclasses.replace(row, unknown=unknown.get(known, ()), other_names=other_names)

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        found = {line[2] for file in files for line in _lines(file) if not isinstance(line, Problem)}
        described: dict[str, str] = {}
        for file in files:
            for label, name in _descriptions(file).items():
                described.setdefault(label, name)
        ids = [label for label in described if label in found] + sorted(found - described.keys())
        names = [described.get(label, label) for label in ids]
        # Some classes of Open Images share a name.
        counts = Counter(names)
        names = [name if counts[name] == 1 else f"{name} ({label})" for name, label in zip(names, ids, strict=True)]
        try:
            return LabelSet(tuple(names), tuple(ids))
        except DataError as error:
            raise DataError(f"{', '.join(map(str, files))}: {error}") from None

    @override
    def describe(self, file: Path) -> str:
        boxes = _BOX in _head(file)
        lines = [line for line in _lines(file) if not isinstance(line, Problem)]
        images, labels = {line[1] for line in lines}, {line[2] for line in lines}
        described = _descriptions(file)
        named = f"{len(labels & described.keys()):,} of them named by class descriptions" if described else "not named"
        what = "boxes" if boxes else "labels"
        return f"{self.title}: {len(lines):,} {what} of {len(images):,} pictures, {len(labels):,} classes, {named}"

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        split = file.name.partition("-annotations-")[0].rpartition("-")[2] if "-annotations-" in file.name else ""
        roots = [file.parent, file.parent.parent] if file.parent.name == "labels" else [file.parent]
        if images is not None:
            return [*([images / split] if split else []), images, *roots]
        names = [*([f"images/{split}", split] if split else []), "images", "data"]
        return [*(root / name for root in roots for name in names), *roots]


def _head(file: Path) -> list[str]:
    """Return the cells of a table's first line; none where it cannot be read."""
    try:
        head = read_range(file, 0, 4096).decode("utf-8-sig", "replace")
    except OSError:
        return []
    return [cell.strip().strip('"') for cell in head.split("\n", 1)[0].split(",")]


def _lines(file: Path) -> Iterator[_Line | Problem]:
    """Return (number, picture, label, confidence) for each line of a table.

    Raises:
        DataError: it has other columns.
    """
    records = csv_records(file)
    header = next(records, [])
    if isinstance(header, BrokenRecord) or tuple(cell.strip() for cell in header[:4]) != _COLUMNS:
        raise DataError(f"{file}: found other columns; expected {','.join(_COLUMNS)} of Open Images")
    parse = functools.partial(_line, len(header))
    return parse_each(file, enumerate(records, start=1), parse, ",".join(_COLUMNS))


def _line(columns: int, number: int, record: Sequence[str]) -> _Line:
    """Return what a line says; ValueError if it has not so many columns, or other values."""
    cells = [cell.strip() for cell in record]
    confidence = _confidence(cells[3]) if len(cells) == columns else None
    if confidence is None or not cells[0] or not cells[2]:
        expected = f"{columns} columns, an ImageID, a LabelName, a Confidence of 0 to 1"
        raise ValueError(f"found {','.join(cells)[:60]!r}; expected {expected}")
    if broken := not_utf8("".join(cells)):
        raise ValueError(broken)
    return number, cells[0], " ".join(cells[2].split()), confidence


def _confidence(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def _descriptions(file: Path) -> dict[str, str]:
    """Return the names of classes by their ids, from the files beside a table."""
    found: dict[str, str] = {}
    folders = (file.parent, file.parent / "metadata", file.parent.parent / "metadata", file.parent.parent)
    files = [path for folder in folders for path in sorted(folder.glob("*class-descriptions*.csv"))]
    files += [path for folder in folders[1:3] for path in [folder / "classes.csv"] if path.is_file()]
    for path in files:
        for record in csv_records(path):
            if isinstance(record, BrokenRecord) or len(record) != len(_DESCRIPTIONS):
                raise DataError(f"{path}: found a line without two columns; expected {','.join(_DESCRIPTIONS)}")
            label, name = (" ".join(cell.split()) for cell in record)
            if (label, name) != _DESCRIPTIONS and label and name:
                found.setdefault(label, name)
    return found


def _keys(file: Path, labels: LabelSet) -> dict[str, str]:
    """Return the id in a set of labels for each of Google's ids that it does not have: by the name of the class."""
    return {
        label: labels.ids[labels.index(name)]
        for label, name in _descriptions(file).items()
        if label not in labels and name in labels
    }


def _notes(file: Path, pictures: dict[str, _Picture]) -> Iterable[Problem]:
    found = pictures.values()
    contradicted = sum(bool(each.absent & each.present.keys()) for each in found)
    between = sum(len(each.between - each.present.keys() - each.absent) for each in found)
    messages = []
    if _BOX in _head(file):
        messages.append("boxes count as labels of the whole picture")
    if between:
        messages.append(
            f"{between} confidences lie between {_ABSENT} and {_PRESENT}, and leave their label unknown; "
            "from 0.9 on it is there, up to 0.1 it is not"
        )
    if contradicted:
        messages.append(f"{contradicted} pictures have a label with confidence 1 and 0, which is unknown there")
    if pictures:
        messages.append(f"labels that are not listed for one of the {len(pictures)} pictures are unknown there")
    others = [path.name for path in sorted(file.parent.glob("*.csv")) if path != file and _same_split(file, path)]
    yield from (Problem(file, None, "interpreted", message, "warning") for message in messages)
    if others:
        yield Problem(file, None, "ignored", f"{', '.join(others)} of the same split is not read", "warning")


def _same_split(file: Path, other: Path) -> bool:
    split, found, _ = file.name.partition("-annotations-")
    return bool(found) and other.name.startswith(f"{split}-annotations-")
