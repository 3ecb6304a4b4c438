"""From files of any format to one split."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mlic_train.config import DATA_FORMATS
from mlic_train.data.source.addresses import SHARD_SUFFIX
from mlic_train.data.source.members import PictureFile
from mlic_train.data.source.pictures import PictureFolder
from mlic_train.data.source.text import Row, Rows
from mlic_train.errors import DataError

from .formats import coco, competition, jsonl, shards
from .formats import csv_table as csv_format
from .labels import LabelSet, infer_labels
from .problems import Problem
from .records import Record, Split

_SUFFIXES: Mapping[str, str] = {".csv": "csv", ".jsonl": "jsonl", ".json": "coco", SHARD_SUFFIX: "shards"}


def read_labels(files: Sequence[Path], data_format: str = "auto", labels_file: Path | None = None) -> LabelSet:
    """The labels of a data set.

    They come from the labels file where there is one; else from the categories of the COCO files among them; else from
    the rows: every label that occurs, by number when all are whole numbers, else by name. Rows that cannot be read are
    passed over here, `read_split` reports them.

    Raises:
        DataError: a file cannot be used, or there is no label.
    """
    if labels_file is not None:
        return LabelSet.from_file(labels_file)
    formats = {file: detect_format(file, data_format) for file in files}
    if not formats:
        raise DataError("found no file to take the labels from; expected a labels file or the training files")
    if annotated := [file for file, name in formats.items() if name == "coco"]:
        return coco.read_labels(annotated)
    rows = (row for file, name in formats.items() for row in _rows(file, name, None))
    cells = [row.labels for row in rows if isinstance(row, Row) and row.labels is not None]
    try:
        return infer_labels(cells)
    except DataError as error:
        raise DataError(f"{', '.join(map(str, files))}: {error} in the rows; give a labels file") from None


def read_split(
    files: Sequence[Path],
    labels: LabelSet,
    *,
    images: Path | None = None,
    data_format: str = "auto",
    skip_bad_rows: bool = False,
    pictures: bool = True,
) -> Split:
    """Read one or more files into one split.

    Rows that name the same picture become one record with several captions, also across the files. They must have the
    same labels; a row that is not labelled takes those of the others, so that a file of captions and a file of labels
    can be read together.

    Args:
        files: read in this order.
        labels: what the rows' labels are looked up in.
        images: the pictures folder; by default `images` beside each file, else the file's own folder (COCO: see
            `coco.picture_folders`; it may have a folder per split in it). Shards have their pictures in them.
        data_format: one of DATA_FORMATS; "auto" goes by the name: .csv, .jsonl, .json (COCO), .tar (shards).
        skip_bad_rows: leave bad rows out and list them in `Split.skipped`, instead of raising at the first.
        pictures: False reads captions and labels only: `Record.image` is None and no picture has to be there.

    Raises:
        DataError: a file cannot be used, a row is bad (and bad rows are not to be skipped), or no record is left.
    """
    split = collect_split(
        files, labels, images=images, data_format=data_format, skip_bad_rows=skip_bad_rows, pictures=pictures
    )
    if not split.records:
        why = f"all {len(split.skipped)} rows were bad, the first: {split.skipped[0]}" if split.skipped else "no rows"
        raise DataError(f"{', '.join(map(str, files))}: found no usable record ({why}); expected at least one")
    return split


def collect_split(
    files: Sequence[Path],
    labels: LabelSet,
    *,
    images: Path | None,
    data_format: str,
    skip_bad_rows: bool,
    pictures: bool,
) -> Split:
    """The same as `read_split`, but no record at all is no error."""
    if not files:
        raise DataError("found no file to read; expected at least one")
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: not a folder; expected the pictures folder")
    builder = _Builder(labels, skip_bad_rows, pictures)
    for file in files:
        name = detect_format(file, data_format)
        folder = PictureFolder(_images_folder(file, name, images)) if pictures and name != "shards" else None
        for row in _rows(file, name, labels):
            if isinstance(row, Problem):
                builder.refuse(row)
            else:
                builder.add(file, row, folder)
    return builder.finish()


def detect_format(file: Path, data_format: str = "auto") -> str:
    """The format to read a file as: the given one, or for "auto" the one its name ends in.

    Raises:
        DataError: the format is not in DATA_FORMATS, or the name tells none.
    """
    if data_format not in DATA_FORMATS:
        raise DataError(f"found the data format {data_format!r}; expected one of {', '.join(DATA_FORMATS)}")
    if data_format != "auto":
        return data_format
    try:
        return _SUFFIXES[file.suffix.lower()]
    except KeyError:
        raise DataError(
            f"{file}: cannot tell its format by its name; expected {', '.join(_SUFFIXES)}, or say --data-format"
        ) from None


def _rows(file: Path, name: str, labels: LabelSet | None) -> Rows:
    if name == "coco":
        return coco.read_rows(file, labels)
    readers: dict[str, Callable[[Path], Rows]] = {
        "csv": csv_format.read_rows,
        "competition": competition.read_rows,
        "jsonl": jsonl.read_rows,
        "shards": shards.read_rows,
    }
    return readers[name](file)


def _images_folder(file: Path, name: str, given: Path | None) -> Path:
    candidates = coco.picture_folders(file, given) if name == "coco" else [given or file.parent / "images"]
    return next((folder for folder in candidates if folder.is_dir()), file.parent)


@dataclass(slots=True)
class _Entry:
    """A record that may still get captions and labels from later rows."""

    image_id: str | None
    image: PictureFile | None
    captions: list[str]
    labels: tuple[int, ...] | None
    file: Path
    number: int


class _Builder:
    """Merges rows into records and keeps or raises what is wrong with them."""

    def __init__(self, labels: LabelSet, skip_bad_rows: bool, pictures: bool) -> None:
        self._labels = labels
        self._skip = skip_bad_rows
        self._pictures = pictures
        self._parsed: dict[str | tuple[str, ...], tuple[int, ...] | DataError] = {}
        self._entries: dict[PictureFile | str | tuple[Path, int], _Entry] = {}
        self._skipped: list[Problem] = []
        self._warnings: list[Problem] = []

    def refuse(self, problem: Problem) -> None:
        if not self._skip:
            _stop(problem)
        self._skipped.append(problem)

    def add(self, file: Path, row: Row, folder: PictureFolder | None) -> None:
        labels = self._indices(row)
        if isinstance(labels, DataError):
            return self.refuse(Problem(file, row.number, "unknown-label", str(labels)))
        image: PictureFile | None = row.picture if self._pictures else None
        if row.image_id is None and not row.captions:
            message = "found neither a picture nor a caption; expected at least one"
            return self.refuse(Problem(file, row.number, "bad-row", message))
        if row.image_id is not None and folder is not None:
            try:
                path = folder.path(row.image_id)
            except ValueError as error:
                return self.refuse(Problem(file, row.number, "bad-row", str(error)))
            if not folder.has(path):
                message = f"no picture at {path}; expected it there, or another folder with --images"
                return self.refuse(Problem(file, row.number, "missing-picture", message))
            image = path
        if row.blank_caption:
            message = "the caption is blank; the row counts as having none"
            self._warnings.append(Problem(file, row.number, "empty-caption", message, "warning"))
        key = image or row.image_id or (file, row.number)
        if key in self._entries:
            return self._merge(self._entries[key], file, row, labels)
        self._entries[key] = _Entry(row.image_id, image, list(row.captions), labels, file, row.number)
        return None

    def finish(self) -> Split:
        records = []
        for entry in self._entries.values():
            if entry.image is None and not entry.captions:
                message = f"found no caption for {entry.image_id!r}; without pictures, each row must have one"
                self.refuse(Problem(entry.file, entry.number, "bad-row", message))
                continue
            records.append(
                Record(entry.image_id, entry.image, tuple(entry.captions), entry.labels, entry.file, entry.number)
            )
        return Split(tuple(records), self._labels, tuple(self._skipped), tuple(self._warnings))

    def _merge(self, entry: _Entry, file: Path, row: Row, labels: tuple[int, ...] | None) -> None:
        first = f"record {entry.number}" + ("" if entry.file == file else f" of {entry.file}")
        if labels is not None and entry.labels is not None and labels != entry.labels:
            message = (
                f"found {row.image_id!r} with the labels {self._names(labels)}, but {first} gives it "
                f"{self._names(entry.labels)}; expected the same labels in every row of a picture"
            )
            return self.refuse(Problem(file, row.number, "duplicate-id", message))
        new = [caption for caption in row.captions if caption not in entry.captions]
        if not new and (labels is None or entry.labels is not None):
            message = f"found {row.image_id!r} again with nothing that {first} does not have"
            self._warnings.append(Problem(file, row.number, "duplicate-id", message, "warning"))
        entry.captions += new
        entry.labels = entry.labels if labels is None else labels
        return None

    def _indices(self, row: Row) -> tuple[int, ...] | DataError | None:
        cell = row.labels
        if cell is None:
            return None
        if cell not in self._parsed:
            try:
                self._parsed[cell] = self._labels.parse(cell) if isinstance(cell, str) else self._labels.indices(cell)
            except DataError as error:
                self._parsed[cell] = error  # kept as well: the near matches in its message take time to find
        return self._parsed[cell]

    def _names(self, labels: tuple[int, ...]) -> str:
        return json.dumps([self._labels.names[index] for index in labels], ensure_ascii=False)


def _stop(problem: Problem) -> NoReturn:
    raise DataError(f"{problem}; mend the row, or leave bad rows out with --skip-bad-rows")
