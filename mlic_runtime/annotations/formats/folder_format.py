"""What the formats share whose source is a folder: the folders and the names in it say what a picture shows."""

from pathlib import Path
from typing import ClassVar

from mlic_runtime.annotations.problems import Problem
from mlic_runtime.base.override import override

from .format import SPLIT_NAMES, Format

SPLIT_WORDS = frozenset(word for words in SPLIT_NAMES.values() for word in words)


class FolderFormat(Format):
    """A format whose source is a folder.

    A row's picture is named by its path in that folder, which is where all pictures of the source are.

    Attributes:
        of_folders: True; `--data-format` with the format's name reads any folder as such a source.
    """

    of_folders: ClassVar[bool] = True

    @override
    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        return []

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        return [(folder,)] if self.recognizes(folder) else []

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        return [file]


def whole_set(source: Path) -> Path:
    """Return the folder of the whole data set, for what is decided once for all of its splits.

    It is the folder above, for one that is named like a split.
    """
    return source.parent if source.name.lower() in SPLIT_WORDS else source


def note(source: Path, message: str, kind: str = "ignored") -> Problem:
    """Return a warning about a source as a whole, such as what of it is not read."""
    return Problem(source, None, kind, message, "warning")
