"""Pictures by their names, with one listing per folder instead of one file-system call per row."""

import errno
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from mlic_runtime.base.files import is_regular, os_error_reason
from mlic_runtime.base.text import counted
from mlic_runtime.errors import DataError
from mlic_runtime.tables.columns import PICTURE_SUFFIXES

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def leads_outside(name: str) -> bool:
    """Return whether a file's name could lead out of the folder that it is looked for in, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).drive)


class PictureFinder:
    """The pictures under some folders, which are listed when they are first needed.

    Args:
        folders: where pictures may lie, the best first.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._listings: dict[Path, frozenset[str]] = {}
        self._forms: dict[Path, dict[str, list[str]]] = {}
        self._below: dict[str, list[Path]] | None = None
        self._found: Counter[str] = Counter()
        self._examples: dict[str, tuple[str, Path]] = {}

    def find(self, name: str, others: Sequence[str] = ()) -> Path:
        """Return the picture of a name.

        In each folder, the exact name counts, then that of one of `others`. Else one file has to fit in all folders
        together: in another Unicode normal form; with an ending, where the name has none; or in a subfolder. In a name,
        a backslash stands for a slash. Upper and lower case differ on every system.

        Args:
            name: a path relative to one of the folders.
            others: what the picture may be called instead, best first.

        Raises:
            ValueError: the name is absolute, or leaves the folder.
            FileNotFoundError: there is no such picture.
            LookupError: there are several.
            DataError: a folder cannot be listed.
        """
        names = [self._check(each) for each in (name, *others)]
        for each in names:
            for folder in self.folders:
                if self._has(path := folder.joinpath(*each.parts)):
                    return path
        for how, search in (
            ("in another Unicode normal form", self._in_other_form),
            ("by the name without its ending", self._by_stem),
            ("in a subfolder", self._in_subfolder),
        ):
            found = list(dict.fromkeys(path for each in names for path in search(each)))
            if len(found) > 1:
                shown = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
                raise LookupError(f"found {len(found)} pictures for {name!r}: {shown}; expected one: name it in full")
            if found:
                self._found[how] += 1
                self._examples.setdefault(how, (name, found[0]))
                return found[0]
        where = f"at {self.folders[0].joinpath(*names[0].parts)}" if self.folders else f"named {name!r}"
        more = f", in {', '.join(map(str, self.folders[1:4]))}" if len(self.folders) > 1 else ""
        raise FileNotFoundError(f"no picture {where}{more}, or below; expected it there")

    def notes(self) -> Iterator[str]:
        """Yield what is to be said about pictures that have not the exact name, a line for each way they were found."""
        for how, count in self._found.items():
            name, path = self._examples[how]
            yield f"found {counted(count, 'picture')} {how}, such as {path} for {name!r}"

    def _check(self, image_id: str) -> PurePosixPath:
        name = PurePosixPath(image_id.replace("\\", "/"))
        if leads_outside(image_id) or "\0" in image_id or not name.name:
            folder = self.folders[0] if self.folders else ""
            raise ValueError(f"found the picture {image_id!r}; expected a name inside the pictures folder {folder}")
        return name

    def _has(self, path: Path) -> bool:
        return path.name in self._names(path.parent)

    def _names(self, folder: Path) -> frozenset[str]:
        if folder not in self._listings:
            self._listings[folder] = _files_in(folder)
        return self._listings[folder]

    def _in_other_form(self, name: PurePosixPath) -> Iterator[Path]:
        if str(name).isascii():
            return
        for folder in self.folders:
            for form in ("NFC", "NFD"):
                path = folder.joinpath(*PurePosixPath(unicodedata.normalize(form, str(name))).parts)
                if self._has(path):
                    yield path

    def _by_stem(self, name: PurePosixPath) -> Iterator[Path]:
        if name.suffix.lower() in PICTURE_SUFFIXES:
            return
        for folder in self.folders:
            parent = folder.joinpath(*name.parts).parent
            if parent not in self._forms:
                stems: dict[str, list[str]] = {}
                for each in sorted(self._names(parent)):
                    if PurePosixPath(each).suffix.lower() in PICTURE_SUFFIXES:
                        stems.setdefault(_nfc(PurePosixPath(each).stem), []).append(each)
                self._forms[parent] = stems
            yield from (parent / each for each in self._forms[parent].get(_nfc(name.name), ()))

    def _in_subfolder(self, name: PurePosixPath) -> Iterator[Path]:
        if self._below is None:
            self._below = {}
            for path in dict.fromkeys(path for folder in self.folders for path in pictures_below(folder)):
                self._below.setdefault(_nfc(path.name), []).append(path)
                self._below.setdefault(_nfc(path.stem), []).append(path)
        whole = name.suffix.lower() in PICTURE_SUFFIXES
        wanted = tuple(map(_nfc, name.parts))
        for path in self._below.get(wanted[-1], ()):
            last = path.name if whole else path.stem
            if tuple(map(_nfc, (*path.parts[:-1], last)))[-len(wanted) :] == wanted and self._has(path):
                yield path


def _nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yield the pictures in a folder and its subfolders by their endings, without hidden ones and links to folders."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(root, name)
            for name in sorted(files)
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES
        )


def _files_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if is_regular(entry))
    except OSError as error:
        if error.errno in _NOT_THERE:
            return frozenset()
        raise DataError(
            f"{folder}: cannot be listed: {os_error_reason(error)}; expected a folder of pictures"
        ) from None
