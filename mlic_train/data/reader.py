"""From files of any format to one split."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from mlic_runtime.annotations.formats.format import ColumnNames, Row
from mlic_runtime.annotations.formats.registry import FORMATS, find_format
from mlic_runtime.annotations.labels import LabelSet, infer_labels
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.rows import AnnotatedRows, LocatedRow, RowKey, join_captions
from mlic_train.errors import DataError

from .records import Record, Split


def read_labels(
    files: Sequence[Path],
    data_format: str = "auto",
    labels_file: Path | None = None,
    columns: ColumnNames | None = None,
) -> LabelSet:
    """Return the labels of a data set.

    They come from the labels file where there is one; else from the files whose format declares labels (COCO's
    categories); else from the rows: every label that occurs, by number when all are whole numbers, else by name. Rows
    that cannot be read are ignored here; `read_split` reports them.

    Raises:
        DataError: a file cannot be used, or there is no label.
    """
    if labels_file is not None:
        return LabelSet.from_file(labels_file)
    if not files:
        raise DataError("found no file to take the labels from; expected a labels file or the training files")
    formats = {file: find_format(file, data_format, columns) for file in files}
    for each in FORMATS:
        declaring = [file for file, found in formats.items() if found.name == each.name]
        if declaring and (declared := formats[declaring[0]].read_labels(declaring)) is not None:
            return declared
    rows = [row for file, found in formats.items() for row in found.read_rows(file, None) if isinstance(row, Row)]
    labelled = [row for row in rows if row.labels is not None]
    if not labelled:
        where = ", ".join(map(str, files))
        if not rows:
            raise DataError(f"{where}: found no rows; expected at least one with a label")
        raise DataError(
            f"{where}: found {len(rows)} rows and no labels; expected a column or field with the labels of each (see "
            "--labels-column), or another file that has them"
        )
    cells = [cell for row in labelled for cell in (row.labels, row.unknown) if cell is not None]
    try:
        return infer_labels(cells, files[0])
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
    allow_empty: bool = False,
    columns: ColumnNames | None = None,
) -> Split:
    """Read one or more files into one split.

    Rows that name the same picture become one record with several captions, also across the files. They must have the
    same labels; a row that is not labelled takes those of the others, so that a file of captions and a file of labels
    can be read together.

    Args:
        files: read in this order.
        labels: the labels that rows may have.
        images: the pictures folder; by default `images` beside each file, else the file's own folder (see
            `Format.picture_folders`).
        data_format: one of DATA_FORMATS; with "auto" the name of a file decides.
        skip_bad_rows: list bad rows in `Split.skipped`, instead of raising at the first.
        pictures: False reads captions and labels only: `Record.image` is None and no picture has to be there.
        allow_empty: return a split without records, instead of raising.
        columns: the columns of tables that the user names.

    Raises:
        DataError: a file cannot be used, a row is bad (and bad rows are not skipped), or there is no record.
    """
    if not files:
        raise DataError("found no file to read; expected at least one")
    rows = AnnotatedRows(
        files, images, pictures=pictures, data_format=data_format, columns=columns, images_option="--images"
    )
    builder = _SplitBuilder(labels, skip_bad_rows)
    for row in rows.read(labels):
        if isinstance(row, Problem):
            builder.refuse(row)
        else:
            builder.add(row)
    for note in rows.notes():
        builder.refuse(Problem(files[0], None, "interpreted", note, "warning"))
    for problem in labels.notes:
        if problem.file in files:  # once, although all splits have the same labels
            builder.refuse(problem)
    split = builder.finish()
    if not split.records and not allow_empty:
        why = f"all {len(split.skipped)} rows were bad, the first: {split.skipped[0]}" if split.skipped else "no rows"
        raise DataError(f"{', '.join(map(str, files))}: found no usable record ({why}); expected at least one")
    return split


class _SplitBuilder:
    """Merges rows into records, and keeps or raises the problems of rows."""

    def __init__(self, labels: LabelSet, skip_bad_rows: bool) -> None:
        self._labels = labels
        self._skip = skip_bad_rows
        self._parsed: dict[str | tuple[str, ...], tuple[int, ...] | DataError] = {}
        self._records: dict[RowKey, Record] = {}
        self._skipped: list[Problem] = []
        self._warnings: list[Problem] = []
        self._missing: dict[Path, list[str]] = {}  # cells that say that there is no value

    def refuse(self, problem: Problem) -> None:
        if problem.severity == "warning":
            self._warnings.append(problem)
            return
        if not self._skip:
            raise DataError(f"{problem}; mend the row, or leave bad rows out with --skip-bad-rows")
        self._skipped.append(problem)

    def add(self, located: LocatedRow) -> None:
        file, row = located.file, located.row
        labels, unknown = self._indices(row.labels), self._indices(row.unknown)
        if labels is None and row.labels is not None:
            self._missing.setdefault(file, []).append(str(row.labels).strip())
        if isinstance(labels, DataError) or isinstance(unknown, DataError):
            error = labels if isinstance(labels, DataError) else unknown
            return self.refuse(Problem(file, row.number, "unknown-label", str(error)))
        if twice := {*(labels or ())} & {*(unknown or ())}:
            message = f"found {self._names(tuple(sorted(twice)))} as labels and as unknown; expected each only once"
            return self.refuse(Problem(file, row.number, "bad-row", message))
        if row.image_id is None and not row.captions:
            message = "found neither a picture nor a caption; expected at least one"
            return self.refuse(Problem(file, row.number, "bad-row", message))
        if located.problem is not None:
            return self.refuse(located.problem)
        if row.blank_caption:
            message = "the caption is blank; the row counts as having none"
            self._warnings.append(Problem(file, row.number, "empty-caption", message, "warning"))
        if located.key in self._records:
            return self._merge(located, labels, unknown or ())
        self._records[located.key] = Record(
            row.image_id,
            located.picture,
            row.captions,
            labels,
            file,
            row.number,
            unknown=unknown or (),
            split=row.split,
        )
        return None

    def finish(self) -> Split:
        for file, cells in self._missing.items():
            message = f"{len(cells)} cells of labels say that there is no value, such as {cells[0]!r}: not labelled"
            self._warnings.append(Problem(file, None, "interpreted", message, "warning"))
        records = []
        for record in self._records.values():
            if record.image is None and not record.captions:
                message = f"found no caption for {record.image_id!r}; without pictures, each row must have one"
                self.refuse(Problem(record.file, record.number, "bad-row", message))
            else:
                records.append(record)
        return Split(tuple(records), self._labels, tuple(self._skipped), tuple(self._warnings))

    def _merge(self, located: LocatedRow, labels: tuple[int, ...] | None, unknown: tuple[int, ...]) -> None:
        file, row = located.file, located.row
        record = self._records[located.key]
        first = f"record {record.number}" + ("" if record.file == file else f" of {record.file}")
        if record.labels is None or labels is None:
            both, left = (record.labels, record.unknown) if labels is None else (labels, unknown)
        else:
            # What one row knows and another does not is known; what one has and another lacks is a contradiction.
            both = tuple(sorted({*record.labels, *labels}))
            left = tuple(sorted({*record.unknown} & {*unknown}))
            if {*both} - {*record.labels, *record.unknown} or {*both} - {*labels, *unknown}:
                message = (
                    f"found {row.image_id!r} with the labels {self._names(labels)}, but {first} gives it "
                    f"{self._names(record.labels)}; expected the same labels in every row of a picture"
                )
                return self.refuse(Problem(file, row.number, "duplicate-id", message))
        if row.split != record.split:
            message = f"found {row.image_id!r} in the split {row.split!r}, but {first} has it in {record.split!r}"
            return self.refuse(Problem(file, row.number, "split-overlap", message))
        captions = join_captions(record.captions, row.captions)
        if captions == record.captions and (both, left) == (record.labels, record.unknown):
            message = f"found {row.image_id!r} again with nothing that {first} does not have"
            self._warnings.append(Problem(file, row.number, "duplicate-id", message, "warning"))
        self._records[located.key] = dataclasses.replace(record, captions=captions, labels=both, unknown=left)
        return None

    def _indices(self, cell: str | tuple[str, ...] | None) -> tuple[int, ...] | DataError | None:
        if cell is None:
            return None
        if isinstance(cell, str) and self._labels.is_missing(cell):
            return None
        if cell not in self._parsed:
            try:
                self._parsed[cell] = self._labels.parse(cell) if isinstance(cell, str) else self._labels.indices(cell)
            except DataError as error:
                self._parsed[cell] = error  # kept as well: finding the similar labels in its message takes time
        return self._parsed[cell]

    def _names(self, labels: tuple[int, ...]) -> str:
        return json.dumps([self._labels.names[index] for index in labels], ensure_ascii=False)
