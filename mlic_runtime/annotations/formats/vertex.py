"""Vertex AI's import files for pictures: JSON lines with `imageGcsUri`, and CSV without a header.

Formats: https://cloud.google.com/vertex-ai/docs/image-data/classification/prepare-data and, for the older CSV of AutoML
Vision, https://cloud.google.com/vision/automl/docs/prepare
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_range, read_text
from mlic_runtime.base.override import override

from .format import Format, Rows, clean_row, split_called, with_other_names, with_split
from .parsing import csv_records, parse_each
from .picture_names import address_notes, names_of, with_tails

_URI = "imageGcsUri"
_SCHEME = "gs://"
_ML_USE = "aiplatform.googleapis.com/ml_use"
_ONE, _SEVERAL, _BOXES = "classificationAnnotation", "classificationAnnotations", "boundingBoxAnnotations"
_KNOWN = (_URI, _ONE, _SEVERAL, _BOXES, "dataItemResourceLabels")
_SPLITS = ("train", "training", "validation", "test", "unassigned", "")
_COORDINATES = 8  # of a box in CSV: four corners, some left blank
_NEGATIVE = "NEGATIVE_IMAGE"  # AutoML Vision: a picture that is known to have no box
_EXPECTED_CSV = "a line such as training,gs://bucket/1.jpg,dog,cat"


@dataclass(slots=True)
class _Picture:
    """A picture: the number of its first line, its labels (None if it is not labelled), its split, its lines."""

    number: int
    labels: dict[str, None] | None
    split: str
    lines: int = 1
    boxes: int = 0
    unread: set[str] = field(default_factory=set)


class Vertex(Format):
    """Vertex AI's JSON lines and CSV: a row for each picture.

    Labels of all lines of a picture count, as in Vertex AI; boxes count as labels. A picture without annotations is not
    labelled and left out; an empty list of annotations means none of the labels. `ml_use` says the split. Pictures lie
    in Google's storage (gs://) and are looked for by their names in the pictures folder.
    """

    name = "vertex"
    title = "Vertex AI import file"
    split_files = ("{split}.jsonl", "{split}.csv")

    @override
    def recognizes(self, source: Path) -> bool:
        if source.suffix.lower() not in (".jsonl", ".csv") or not source.is_file():
            return False
        try:
            head = read_range(source, 0, 65536).decode("utf-8-sig", "replace").lstrip()
        except OSError:
            return False
        first = head.split("\n", 1)[0].rstrip("\r")
        if source.suffix.lower() == ".jsonl":
            return first.startswith("{") and f'"{_URI}"' in first
        cells = [cell.strip().strip('"') for cell in first.split(",")[:2]]
        return cells[0].startswith(_SCHEME) or (len(cells) > 1 and cells[1].startswith(_SCHEME))

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        pictures: dict[str, _Picture] = {}
        for line in _lines(file):
            if isinstance(line, Problem):
                yield line
                continue
            uri, found = line
            if (first := pictures.setdefault(uri, found)) is found:
                continue
            if first.split != found.split:
                message = f"found {uri!r} for {found.split!r}, but line {first.number} has it for {first.split!r}"
                yield Problem(file, found.number, "split-overlap", message)
                continue
            first.lines, first.boxes = first.lines + 1, first.boxes + found.boxes
            if found.labels is not None:
                first.labels = {**(first.labels or {}), **found.labels}
        labelled = {uri: picture for uri, picture in pictures.items() if picture.labels is not None}
        names = [names_of(uri) for uri in labelled]
        yield from _notes(file, list(pictures.values()))
        yield from address_notes(file, names)
        for (uri, picture), places in zip(labelled.items(), with_tails(names), strict=True):
            row = clean_row(file, picture.number, places[0] if places else uri, [], tuple(picture.labels or ()))
            yield with_split(with_other_names(row, places[1:]), split_called(picture.split))

    @override
    def describe(self, file: Path) -> str:
        found = [line for line in _lines(file) if not isinstance(line, Problem)]
        pictures = {uri for uri, _ in found}
        labels = {label for _, picture in found for label in picture.labels or ()}
        kind = "CSV" if file.suffix.lower() == ".csv" else "JSON lines"
        split = ", split in ml_use" if any(split_called(picture.split) for _, picture in found) else ""
        return f"{self.title} ({kind}): {len(pictures):,} pictures, {len(labels):,} labels{split}"


def _lines(file: Path) -> Iterator[tuple[str, _Picture] | Problem]:
    """Return the address and the content of each line, or its Problem."""
    if file.suffix.lower() == ".csv":
        return parse_each(file, enumerate(csv_records(file), start=1), _csv_line, _EXPECTED_CSV)
    lines = enumerate(read_text(file).split("\n"), start=1)
    return parse_each(
        file, ((number, line) for number, line in lines if line.strip()), _json_line, f"an object with {_URI}"
    )


def _csv_line(number: int, record: list[str]) -> tuple[str, _Picture]:
    cells = [cell.strip() for cell in record]
    use = "" if cells[0].startswith(_SCHEME) else cells.pop(0)
    if not cells or not cells[0].startswith(_SCHEME) or use.lower() not in _SPLITS:
        raise ValueError(f"found {','.join(record)[:60]!r}; expected {_EXPECTED_CSV}")
    uri, *rest = cells
    box = len(rest) in (_COORDINATES, _COORDINATES + 1) and all(not cell or _is_number(cell) for cell in rest[1:])
    names = rest[:1] if box else rest
    found = {" ".join(name.split()): None for name in names if name}
    if box and _NEGATIVE in found:
        return uri, _Picture(number, {}, use)
    return uri, _Picture(number, found or None, use, boxes=int(box and bool(found)))


def _json_line(number: int, line: str) -> tuple[str, _Picture]:
    entry = json.loads(line)
    uri = entry.get(_URI) if isinstance(entry, dict) else None
    if not isinstance(uri, str) or not uri.strip():
        raise ValueError(f"found {line.strip()[:60]!r}; expected an object with {_URI}")
    resource = entry.get("dataItemResourceLabels") or {}
    use = resource.get(_ML_USE, "") if isinstance(resource, dict) else None
    if not isinstance(use, str) or use.lower() not in _SPLITS:
        raise ValueError(f"found {_ML_USE} {use!r}; expected training, validation or test")
    annotations: list[Any] = []
    labelled = False
    for key in (_ONE, _SEVERAL, _BOXES):
        value = entry.get(key)
        if value is not None:
            labelled = True
            annotations += value if isinstance(value, list) else [value]
    names = [each.get("displayName") if isinstance(each, dict) else None for each in annotations]
    wrong = next((each for each, name in zip(annotations, names, strict=True) if not isinstance(name, str)), None)
    if wrong is not None or None in names:
        raise ValueError(f"found the annotation {wrong!r}"[:80] + "; expected an object with displayName")
    found = {name: None for name in (" ".join(str(name).split()) for name in names) if name}
    boxes = entry.get(_BOXES)
    unread = {key for key in entry if key not in _KNOWN}
    return uri.strip(), _Picture(
        number, found if labelled else None, use, boxes=len(boxes) if isinstance(boxes, list) else 0, unread=unread
    )


def _notes(file: Path, pictures: Sequence[_Picture]) -> Iterator[Problem]:
    left = sum(picture.labels is None for picture in pictures)
    boxes = sum(picture.boxes for picture in pictures)
    several = sum(picture.lines > 1 for picture in pictures)
    unread = sorted({key for picture in pictures for key in picture.unread})
    if left:
        message = f"{left} of {len(pictures)} pictures have no annotation; they are left out"
        yield Problem(file, None, "ignored", message, "warning")
    if boxes:
        message = f"the labels of {boxes} boxes count for the whole picture"
        yield Problem(file, None, "interpreted", message, "warning")
    if several:
        message = f"{several} pictures have several lines, whose labels count together"
        yield Problem(file, None, "interpreted", message, "warning")
    if unread:
        yield Problem(file, None, "ignored", f"the keys {', '.join(map(repr, unread[:10]))} are not read", "warning")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
