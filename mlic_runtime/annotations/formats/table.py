"""Tables: CSV, JSON lines, a JSON array of objects, Parquet; read as in inference, see `mlic_runtime.tables.table`.

What the columns hold is found by their names and cells, see `layout`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.labels import MISSING, LabelSet, split_cell
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import open_file
from mlic_runtime.annotations.source.parquet import ParquetPicture, picture_column, picture_sizes
from mlic_runtime.base.far_files import is_uri
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError, InputError
from mlic_runtime.tables.cells import captions_of, picture_of
from mlic_runtime.tables.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    PICTURE_FOLDERS,
    Columns,
    find_columns,
    numbered,
    plain_name,
    ranked,
)
from mlic_runtime.tables.table import BrokenRow, Table, TableRow, open_table

from .dataset_card import class_names
from .format import SPLIT_NAMES, ColumnNames, Format, Row, Rows, clean_row, split_called
from .layout import BLANK, CROSS, LABEL_COLUMNS, UNKNOWN, YES, Layout, find_layout, first_folder, kind_of, list_of
from .picture_names import names_of

_LONG_SHARE = 0.1  # of the pictures; where fewer have several labels on several rows, these are contradictions
_EXPECTED = "a column for pictures (ImageID), for captions (Caption), or both, and columns for labels (Labels)"


class TableFormat(Format):
    """A table: a row for each record. See `layout.find_layout` for what the columns hold.

    Args:
        columns: the columns that the user names.
    """

    def __init__(self, columns: ColumnNames | None = None) -> None:
        self.columns = columns or ColumnNames()

    @override
    def with_columns(self, names: ColumnNames) -> "Format":
        return self if names == self.columns else type(self)(names)

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        layout = self._layout(file, labels, soft=labels is None)
        yield from _notes(file, layout)
        with _opened(file, layout.columns.image) as (table, pictures):
            rows = map(_Rows(file, table, layout, self.columns, pictures).read, table.rows)
            yield from _united(file, layout, rows) if len(layout.labels) == 1 else rows

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        # Columns that are named like labels declare them; so do Hugging Face's class labels.
        names: dict[str, None] = {}
        for file in files:
            layout = self._layout(file, None)
            if layout.labels:
                return _class_labels(files, layout)
            names.update(dict.fromkeys(" ".join(name.split()) for name in layout.one_hot))
        return LabelSet(tuple(names), tuple(names)) if names else None

    @override
    def describe(self, file: Path) -> str:
        layout = self._layout(file, None)
        with _opened(file, layout.columns.image) as (table, _):
            return f"{table.title}: {layout.describe()}"

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        found = super().find_whole(folder)
        fitting = [files for files in found if _has_columns(files[0])]
        metadata = [files for files in fitting if files[0].stem.lower() == "metadata"]  # Hugging Face's imagefolder
        return metadata or fitting or found[:1]

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        split = next(
            (word for words in SPLIT_NAMES.values() for word in words if file.stem.lower().startswith(word)), ""
        )
        roots = [file.parent, file.parent.parent]
        found = [] if images is None else [images / split, images]
        for root in roots[:1] if images is not None else roots:
            inside = [each for each in _folders(root) if each.name.lower() in PICTURE_FOLDERS]
            found += [each / split for each in inside if split] + inside
            found += [root / split] if split else []
        return list(dict.fromkeys([*found, file.parent]))

    def _layout(self, file: Path, labels: LabelSet | None, *, soft: bool = False) -> Layout:
        """Return what the columns of a file hold; the file is read for it once, until it changes.

        Args:
            file: the file.
            labels: the labels of the data set, where they are known.
            soft: take a table whose labels cannot be read, see `Layout.soft`: its pictures and captions can.
        """
        try:
            status = file.stat()
            version = (status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {os_error_reason(error)}; expected a data file") from None
        layout = _find_layout(file, version, self.columns, labels, labels is not None and labels.restricts)
        if layout.soft and not soft:
            raise DataError(f"{file}: {layout.soft}")
        return layout


class CsvTable(TableFormat):
    """CSV with commas, semicolons, tabs or bars, which its header decides."""

    name = "csv"
    title = "CSV table"
    file_names = ("*.csv", "*.tsv", "*.tab")
    split_files = tuple(
        f"{{split}}{more}.{suffix}" for suffix in ("csv", "tsv", "tab", "txt") for more in ("", "_labels", "-labels")
    )

    @override
    def recognizes(self, source: Path) -> bool:
        if source.suffix.lower() != ".txt":
            return super().recognizes(source)
        return source.is_file() and _has_columns(source, several=True)


class JsonLines(TableFormat):
    """JSON lines such as `{"image": "1.jpg", "captions": ["A dog."], "labels": ["dog"]}`.

    Missing or null labels mean not labelled, [] means none of the labels. Blank lines are passed over but counted, so
    that a record's number is its line.
    """

    name = "jsonl"
    title = "JSON lines"
    file_names = ("*.jsonl", "*.ndjson")
    split_files = ("{split}.jsonl", "{split}.ndjson")


class JsonArray(TableFormat):
    """A JSON array of objects, such as `[{"image": "1.jpg", "labels": ["dog"]}]`."""

    name = "json"
    title = "JSON array"
    split_files = ("{split}.json",)

    @override
    def recognizes(self, source: Path) -> bool:
        return source.suffix.lower() == ".json" and source.is_file() and _has_columns(source)


class ParquetTable(TableFormat):
    """Parquet; pictures are named, or lie in the file, see `ParquetPicture`."""

    name = "parquet"
    title = "Parquet"
    file_names = ("*.parquet", "*.pq")
    split_files = ("{split}.parquet", "{split}-*.parquet", "data/{split}.parquet", "data/{split}-*.parquet")

    @override
    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        # Hugging Face writes train-00000-of-00002.parquet: all of them are one choice.
        found = super().find_split(folder, split)
        return [tuple(file for files in found for file in files)] if found else []

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        found = super().find_whole(folder)
        return [tuple(file for files in found for file in files)] if found else []


@dataclasses.dataclass
class _Rows:
    """Makes rows of the records of a table.

    Attributes:
        pictures: the part of the column with the bytes of pictures, and their sizes; None where they are named.
    """

    file: Path
    table: Table
    layout: Layout
    given: ColumnNames
    pictures: tuple[str, Iterator[int | None]] | None
    found: dict[tuple[str, ...], Columns] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        """The names of Hugging Face's class labels in the column of labels, by number; () without any."""
        return _class_names(self.file, self.table, self.layout.labels[0])

    def read(self, record: TableRow | BrokenRow) -> Row | Problem:
        size = None if self.pictures is None else next(self.pictures[1], None)
        if isinstance(record, BrokenRow):
            hint = ""
            if tuple(self.table.header) == ("ImageID", "Labels", "Caption"):
                hint = "; for the competition's own files: mlic-train --data-format competition"
            return Problem(self.file, record.number, "bad-row", record.message + hint)
        try:
            return self._row(record, size)
        except (ValueError, InputError) as error:
            return Problem(self.file, record.number, "bad-row", str(error))

    def _row(self, record: TableRow, size: int | None) -> Row | Problem:
        cells, columns = record.cells, self._columns(record.cells)
        value = cells.get(columns.image) if columns.image is not None else None
        name, _ = picture_of(None if isinstance(value, float) and math.isnan(value) else value)
        if size is not None and name is None:
            name = f"{self.file.name}/{record.number}"
        captions = [text for column in columns.captions for text in _texts(cells.get(column))]
        labels, unknown = self._labels(cells)
        unknown = unknown or self._unsure(cells, labels)
        places = names_of(name or "")
        named = size is not None or not places.address or not _is_address(name or "", self.layout.studio)
        first = name or "" if named else next(iter(places.names), "")
        row = clean_row(self.file, record.number, first, captions, labels, unknown)
        if isinstance(row, Problem):
            return row
        split = None
        if self.layout.split is not None:
            said = cells.get(self.layout.split)
            split = self.layout.split_of(said)
            if split is None:
                raise ValueError(f"found {said!r} in the column {self.layout.split!r}; expected train, val or test")
        elif self.layout.by_folder:
            split = split_called(first_folder(name or ""))
        picture = None
        if size is not None and self.pictures is not None and name is not None:
            picture = ParquetPicture(str(self.file), self.pictures[0], record.number - 1, size, name)
        others = () if named else places.names[1:]
        return dataclasses.replace(row, split=split, picture=picture, other_names=others)

    def _columns(self, cells: dict[str, Any]) -> Columns:
        """Return the columns of a record; the objects of JSON lines may have different ones."""
        wanted = self.layout.columns
        if not self.table.title.startswith("JSON"):
            return wanted
        used = {*self.layout.labels, *self.layout.one_hot, self.layout.split, self.layout.unsure}
        names = tuple(name for name in cells if name not in used)
        if names not in self.found:
            given = [name if name in names else None for name in (self.given.image, self.given.caption)]
            try:
                self.found[names] = find_columns(names, *given)
            except InputError as error:
                if "the same" in str(error):
                    raise
                self.found[names] = Columns(None, ())
        return self.found[names]

    def _labels(self, cells: dict[str, Any]) -> tuple[str | tuple[str, ...] | None, tuple[str, ...]]:
        """Return the labels of a record, and those that are unknown."""
        layout = self.layout
        if layout.one_hot:
            kinds = {name: kind_of(cells.get(name)) for name in layout.one_hot}
            unknown = [name for name, kind in kinds.items() if kind in (BLANK, UNKNOWN) and name not in layout.crosses]
            if len(unknown) == len(kinds):
                return None, ()
            names = [name for name, kind in kinds.items() if kind in (YES, CROSS)]
            return _plain(names), _plain(unknown)
        if not layout.labels:
            return None, ()
        if len(layout.labels) > 1:
            texts = [str(_number(cells.get(name))) for name in layout.labels if cells.get(name) is not None]
            tags = [text for text in texts if text.strip() and text.strip().casefold() not in MISSING]
            return _plain(tags), ()
        column = layout.labels[0]
        value = list_of(cells.get(column))
        if layout.studio and not value:  # an empty answer is none of the labels; without any, nobody answered
            answered = next((name for name in cells if plain_name(name) == "annotationid"), None)
            return ("" if answered is not None and cells[answered] not in (None, "") else None), ()
        known = self._class_names
        if known and isinstance(value, str) and value.strip().isdecimal():
            value = (value.strip(),)
        if known and isinstance(value, tuple):
            if value == ("-1",):  # Hugging Face's mark of a row without labels
                return None, ()
            value = tuple(known[int(key)] if key.isdecimal() and int(key) < len(known) else key for key in value)
        return value, ()

    def _unsure(self, cells: dict[str, Any], labels: str | tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the labels that a cell of its own calls unknown."""
        value = cells.get(self.layout.unsure) if self.layout.unsure is not None else None
        if value is None:
            return ()
        if not isinstance(value, list):
            raise ValueError(f"found unknown {value!r}; expected a list of names or ids")
        unsure = list_of(value)
        if unsure and labels is None:
            raise ValueError("found unknown labels without labels; expected both ([]: none), or neither: not labelled")
        return unsure if isinstance(unsure, tuple) else ()


def _is_address(name: str, studio: bool) -> bool:
    """Return whether a picture is named by an address; absolute paths are refused, but for those of Label Studio."""
    return is_uri(name) or (studio and name.startswith("/data/"))


def _plain(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(name.split()) for name in names))


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _texts(value: Any) -> list[str]:
    """Return the captions of a cell, "" for one that stands for no value."""
    if isinstance(value, float) and math.isnan(value):
        return []
    return ["" if text.strip().casefold() in MISSING else text for text in captions_of(value)]


@functools.lru_cache(maxsize=64)
def _find_layout(
    file: Path, version: tuple[int, int], given: ColumnNames, labels: LabelSet | None, restricts: bool
) -> Layout:
    with _opened(file, None, scan=True) as (table, pictures):
        # What lies in the file as bytes is not read to find the layout.
        rows = (row.cells for row in table.rows if isinstance(row, TableRow))
        try:
            skip = [] if pictures is None else [pictures[0]]
            layout = find_layout(table.header, rows, given, labels, skip, each_own=table.title.startswith("JSON"))
        except InputError as error:
            raise DataError(f"{file}: {error}") from None
        return dataclasses.replace(layout, notes=(*layout.notes, *table.notes))


def _notes(file: Path, layout: Layout) -> Iterator[Problem]:
    unread = [f"columns that are not read: {', '.join(map(repr, layout.unread))}"] if layout.unread else []
    numbers = [f"{note}; its row numbers are not read" for note in layout.notes if note.startswith("the row numbers")]
    for note in (*unread, *numbers):
        yield Problem(file, None, "ignored", note, "warning")
    for note in layout.notes:
        if not note.startswith("the row numbers"):
            yield Problem(file, None, "interpreted", note, "warning")
    if layout.unknown:
        message = (
            f"{layout.unknown} cells of label columns are blank, nan, -1 or ?: whether the label is there is unknown"
        )
        yield Problem(file, None, "interpreted", message, "warning")


def _united(file: Path, layout: Layout, rows: Iterator[Row | Problem]) -> Rows:
    """Yield the rows, or one for each picture where a picture has a row for each of its labels.

    That is so where pictures stand on several rows that differ in their one label only, in a tenth of the pictures or
    more: else two labels are a contradiction, which is refused later.
    """
    found = list(rows)
    groups: dict[tuple[str, str | None], list[Row]] = {}
    for row in found:
        if isinstance(row, Row) and row.image_id is not None and row.labels is not None:
            groups.setdefault((row.image_id, row.split), []).append(row)
    several = [group for group in groups.values() if len({row.labels for row in group}) > 1]
    if not several or len(several) < _LONG_SHARE * len(groups) or not all(map(_is_long, several)):
        yield from found
        return
    first = {id(group[0]): group for group in several}
    rest = {id(row) for group in several for row in group[1:]}
    yield Problem(
        file,
        None,
        "interpreted",
        f"{sum(map(len, several))} rows give {len(several)} pictures a label each in {layout.labels[0]!r}: the labels "
        "of a picture are put together",
        "warning",
    )
    for row in found:
        if isinstance(row, Row) and id(row) in first:
            names = [name for each in first[id(row)] for name in _names_in(each.labels)]
            yield dataclasses.replace(row, labels=_plain(names))
        elif id(row) not in rest:
            yield row


def _is_long(group: Sequence[Row]) -> bool:
    """Return whether rows of one picture differ in their label only, and have one each."""
    alike = len({(row.captions, row.unknown) for row in group}) == 1
    return alike and all(len(_names_in(row.labels)) == 1 for row in group)


def _names_in(labels: str | tuple[str, ...] | None) -> Sequence[str]:
    if labels is None or isinstance(labels, tuple):
        return labels or ()
    return split_cell(labels, "commas")


def _class_names(file: Path, table: Table, column: str) -> tuple[str, ...]:
    return (table.declared or {}).get(column) or class_names(file, column)


def _class_labels(files: Sequence[Path], layout: Layout) -> LabelSet | None:
    """Return Hugging Face's class labels of a column; None where it has none."""
    if len(layout.labels) != 1:
        return None
    declared: tuple[str, ...] = ()
    for file in files:
        with _opened(file, None) as (table, _):
            names = _class_names(file, table, layout.labels[0])
        if declared and names != declared:
            raise DataError(f"{file}: found the class labels {names}; another file has {declared}; expected the same")
        declared = names
    return LabelSet(declared, tuple(map(str, range(len(declared))))) if declared else None


@contextmanager
def _opened(
    file: Path, image: str | None, *, scan: bool = False
) -> Iterator[tuple[Table, tuple[str, Iterator[int | None]] | None]]:
    """Open a table, and if its pictures lie in it, the part of the column that has them, with their sizes.

    Args:
        file: the table.
        image: the column of the pictures, whose bytes are then not read.
        scan: leave out all columns of bytes.

    Raises:
        DataError: it cannot be read.
    """
    parts: dict[str, str] = {}

    def wanted(names: Sequence[str]) -> list[str]:
        for name in names if scan else [name for name in names if name == image]:
            if part := picture_column(file, name):
                parts[name] = part
        return [name if name not in parts else f"{name}.path" for name in names if parts.get(name) != name]

    try:
        with open_file(file) as stream:
            table = open_table(stream, file.suffix.lower(), None, wanted)
            part = parts.get(image or "") or next(iter(parts.values()), None)
            yield table, None if part is None else (part, iter(()) if scan else picture_sizes(file, part))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {os_error_reason(error)}; expected a data file") from None
    except InputError as error:
        raise DataError(f"{file}: {error}; expected {_EXPECTED}") from None


def _has_columns(file: Path, *, several: bool = False) -> bool:
    """Return whether a file is a table with a column for pictures or captions, and one more if `several`."""
    try:
        with _opened(file, None) as (table, _):
            names = table.header
            first = next(iter(table.rows), None) if file.suffix.lower() == ".json" else None
        if isinstance(first, TableRow) and any(
            isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))
            for value in first.cells.values()
        ):
            return False
        find_columns(names)
        known = [*ranked(names, IMAGE_COLUMNS), *ranked(names, CAPTION_COLUMNS), *numbered(names, CAPTION_COLUMNS)]
        return len({*known, *ranked(names, LABEL_COLUMNS)}) > 1 and bool(known) if several else True
    except (DataError, InputError):
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []
