"""The rows of some sources, each with its picture: what training and inference read, so that they read the same.

Rows of one `LocatedRow.key` are about one thing, and their captions are joined. What their labels say together is for
who uses them: inference does not, and training needs the labels of the whole data set to tell a contradiction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mlic_runtime.errors import DataError

from .formats.format import ColumnNames, Format, Row
from .formats.registry import find_format
from .labels import LabelSet
from .problems import Problem
from .source.members import PictureFile
from .source.pictures import PictureFinder

RowKey: TypeAlias = PictureFile | str | tuple[Path, int]
"""What rows are about: a picture, else the name of one, else the row of a file itself."""


@dataclass(frozen=True, slots=True)
class LocatedRow:
    """A row, and its picture.

    Attributes:
        file: the source.
        row: the row.
        picture: where its picture lies; None where it names none, or pictures are not wanted.
        problem: why its picture was not found; None where it was.
    """

    file: Path
    row: Row
    picture: PictureFile | None
    problem: Problem | None = None

    @property
    def key(self) -> RowKey:
        """What the row is about."""
        return self.picture or self.row.image_id or (self.file, self.row.number)


class AnnotatedRows:
    """Reads the rows of sources, and looks up their pictures; folders are listed once, whatever the sources.

    Args:
        sources: read in this order.
        images: the folder of the pictures that the user names; None looks where the format has them, see
            `Format.picture_folders`.
        pictures: False does not look for pictures.
        data_format: one of DATA_FORMATS; with "auto" the name of a source decides.
        columns: the columns that the user names.
        images_option: what names another folder of pictures, for the message about one that is not there.

    Attributes:
        formats: what each source was read as, as far as it was read.

    Raises:
        DataError: `images` is no folder.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        images: Path | None = None,
        *,
        pictures: bool = True,
        data_format: str = "auto",
        columns: ColumnNames | None = None,
        images_option: str = "",
    ) -> None:
        if images is not None and not images.is_dir():
            raise DataError(f"{images}: not a folder; expected the pictures folder")
        self._sources = tuple(sources)
        self._images = images
        self._pictures = pictures
        self._data_format = data_format
        self._columns = columns
        self._hint = f", or another folder with {images_option}" if images_option else ""
        self._finders: dict[tuple[Path, ...], PictureFinder] = {}
        self.formats: dict[Path, Format] = {}

    def read(self, labels: LabelSet | None = None) -> Iterator[LocatedRow | Problem]:
        """Yield the rows in order, and what the formats say about them; `labels` as for `Format.read_rows`.

        Raises:
            DataError: a source cannot be used at all, or columns are named for what is no table.
        """
        for file in self._sources:
            found = self.formats[file] = find_format(file, self._data_format, self._columns)
            folders = tuple(each for each in found.picture_folders(file, self._images) if each.is_dir())
            finder = self._finders.setdefault(folders, PictureFinder(folders))
            for row in found.read_rows(file, labels):
                yield row if isinstance(row, Problem) else self._locate(file, row, finder)

    def notes(self) -> Iterator[str]:
        """Yield what is to be said about pictures that have not the exact name, after all rows were read."""
        for finder in self._finders.values():
            yield from finder.notes()

    def _locate(self, file: Path, row: Row, finder: PictureFinder) -> LocatedRow:
        if not self._pictures or row.image_id is None or row.picture is not None:
            return LocatedRow(file, row, row.picture if self._pictures else None)
        try:
            return LocatedRow(file, row, finder.find(row.image_id, row.other_names))
        except ValueError as error:
            problem = Problem(file, row.number, "bad-row", str(error))
        except FileNotFoundError as error:
            problem = Problem(file, row.number, "missing-picture", f"{error}{self._hint}")
        except LookupError as error:
            problem = Problem(file, row.number, "missing-picture", str(error.args[0]))
        return LocatedRow(file, row, None, problem)


def join_captions(captions: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """Return the captions of one picture with those of another of its rows, each once, in order."""
    return tuple(dict.fromkeys((*captions, *more)))
