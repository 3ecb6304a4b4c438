"""What a format of annotations is: how its files are recognized, and the rows that it yields."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.members import Member
from mlic_runtime.annotations.source.parquet import ParquetPicture
from mlic_runtime.annotations.source.tree import beside_pictures
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, before its picture and labels are looked up.

    Attributes:
        number: 1-based, the header not counted.
        image_id: the picture's name; None when the row names none.
        captions: whole captions, with one space for each run of whitespace, line breaks included; none is blank.
        labels: a Labels cell still to be split, or a list of ids and names; None when the row is not labelled.
        blank_caption: True when a caption was given but blank.
        picture: where the picture lies, for a row of a shard or of Parquet; else it is looked for in the folders.
        unknown: ids or names of labels that the row neither has nor lacks: nobody looked.
        split: "train", "val" or "test" where the row itself names its split; else None.
        other_names: names that the picture may have where there is none of the name `image_id`; the first that is there
            counts. They come before any search in subfolders or by the name without its ending.
    """

    number: int
    image_id: str | None
    captions: tuple[str, ...]
    labels: str | tuple[str, ...] | None
    blank_caption: bool = False
    picture: Member | ParquetPicture | None = None
    unknown: tuple[str, ...] = ()
    split: str | None = None
    other_names: tuple[str, ...] = ()


Rows = Iterator[Row | Problem]
"""A format's rows in order, with a Problem in the place of each row that cannot be read, and maybe warnings."""


SPLIT_NAMES = {
    "train": ("train", "training", "train_set", "training_set"),
    "val": ("val", "valid", "validation", "dev", "val_set", "validation_set", "dev_set"),
    "test": ("test", "testing", "test_set", "testing_set"),
}
"""What files and folders call each split, in lower case; the first is our own word."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The columns of a table that the user names; None and () for those that are found by their names.

    Attributes:
        image: of the pictures.
        caption: of the captions.
        labels: of the labels: one with Labels cells, or several with a label each, or with yes and no in each.
        split: of the splits.
    """

    image: str | None = None
    caption: str | None = None
    labels: tuple[str, ...] = ()
    split: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that are named."""
        return tuple(name for name in (self.image, self.caption, *self.labels, self.split) if name is not None)


class Format(ABC):
    """A format of annotations: a subclass in a module of its own, listed in `registry.FORMATS`.

    A *source* is what its rows are read from: a file, or a folder for formats where the folders themselves say the
    labels. To find the sources of a data folder, `folder.find_splits` asks for each split by name (`find_split`), then
    looks into the folders that are named like splits, then into the folder as a whole (`find_whole`).

    Attributes:
        name: its name after --data-format.
        title: what messages call it, as a user knows it.
        file_names: patterns of the files that are read in this format unless --data-format says another, in lower case.
        split_files: patterns of a split's file in a data folder, where "{split}" stands for each of SPLIT_NAMES.
        fallback: True for a format that fits almost any folder: it is used only where no other one finds a source.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    file_names: ClassVar[tuple[str, ...]] = ()
    split_files: ClassVar[tuple[str, ...]] = ()
    fallback: ClassVar[bool] = False

    def recognizes(self, source: Path) -> bool:
        """Return whether a source is in this format: by its name, and by its content where names do not tell.

        A source that is not there is judged by its name alone.
        """
        return any(fnmatchcase(source.name.lower(), pattern) for pattern in self.file_names)

    @abstractmethod
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        """Yield the rows of a source.

        Args:
            file: the source.
            labels: the labels of the data set, for formats with names and ids of their own for them; None while the
                labels are not known yet.

        Raises:
            DataError: the source cannot be used at all.
        """

    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        """Return the labels that the sources declare; None without declarations: then all that occur in rows count.

        Raises:
            DataError: a source cannot be used, or two contradict each other.
        """
        return None

    def describe(self, file: Path) -> str:
        """Return how a source is read, in one line for people: the format, and what stands for what in it."""
        return self.title

    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        """Return what a data folder has for a split by name; each item is a choice of its own, the sources of one.

        Args:
            folder: the data folder.
            split: one of the names in SPLIT_NAMES.
        """
        names = (pattern.format(split=split) for pattern in self.split_files)
        return [(file,) for name in names for file in sorted(folder.glob(name)) if _is_source(self, file)]

    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        """Return the sources in a folder that holds one split, or a data set that is not divided; choices as above."""
        texts = beside_pictures(folder)
        return [(file,) for file in sorted(folder.iterdir()) if file.name not in texts and _is_source(self, file)]

    def with_columns(self, names: ColumnNames) -> "Format":
        """Return this format with the columns that the user names; formats that are no tables have none.

        Raises:
            DataError: it is no table.
        """
        if names != ColumnNames():
            raise DataError(f"found names of columns for {self.title}, which has no columns; leave them out")
        return self

    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        """Return where the pictures of a source may lie, best first; an empty list where its rows have them.

        Args:
            file: the source.
            images: the pictures folder that the user gave; None without one.
        """
        return [file.parent / "images" if images is None else images, file.parent]


def is_captions(file: Path) -> bool:
    """Return whether a file of a data folder has more captions for training."""
    return any(fnmatchcase(file.name, f"captions*.{suffix}") for suffix in ("csv", "jsonl"))


def _is_source(each: Format, file: Path) -> bool:
    beside = file.name == "labels.csv" or file.name.startswith(".") or is_captions(file)
    return file.is_file() and not beside and each.recognizes(file)


def clean_row(
    file: Path,
    number: int,
    image_id: str,
    captions: Sequence[str],
    labels: str | tuple[str, ...] | None,
    unknown: tuple[str, ...] = (),
) -> Row | Problem:
    """Return a row with its captions cleaned, or a Problem if its text is not UTF-8."""
    parts = [image_id, *captions, *([labels] if isinstance(labels, str) else labels or ()), *unknown]
    if broken := not_utf8("".join(parts)):
        return Problem(file, number, "bad-row", broken)
    cleaned = [" ".join(caption.split()) for caption in captions]
    kept = tuple(filter(None, cleaned))
    return Row(number, image_id.strip() or None, kept, labels, not all(cleaned), unknown=unknown)


def with_other_names(row: Row | Problem, names: Sequence[str]) -> Row | Problem:
    """Return a row whose picture may also have these names, see `Row.other_names`; a Problem stays as it is."""
    return row if isinstance(row, Problem) else dataclasses.replace(row, other_names=tuple(names))


def with_split(row: Row | Problem, split: str | None) -> Row | Problem:
    """Return a row with the split that it names itself; a Problem stays as it is."""
    return row if isinstance(row, Problem) else dataclasses.replace(row, split=split)


def split_called(name: str) -> str | None:
    """Return "train", "val" or "test" for a name of SPLIT_NAMES in any case; None for another one."""
    word = name.strip().lower()
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)
