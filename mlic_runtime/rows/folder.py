"""A folder of pictures: which of its files are pictures, and their captions."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.text import one_line
from mlic_runtime.errors import CaptionError, InputError
from mlic_runtime.picture.signatures import KNOWN_FORMATS, has_picture_suffix, is_picture_file

from .row import Row
from .sidecar import SIDECAR_SUFFIX, read_sidecar

_SHOWN = 3  # names of files that are passed over


class PassedOver:
    """The files of a folder that are neither pictures nor captions of pictures; hidden ones are not counted.

    Attributes:
        count: how many there are.
        advice: what else is to be said about them; "" for nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.advice = ""
        self._names: list[str] = []

    def add(self, name: str) -> None:
        """Take note of a file, by its name in the folder."""
        self.count += 1
        if len(self._names) < _SHOWN:
            self._names.append(one_line(name))

    def note(self) -> str:
        """Return what was passed over, in a line; "" for nothing."""
        if not self.count:
            return ""
        files = "1 file that is not a" if self.count == 1 else f"{self.count} files that are not"
        names = ", ".join([*self._names, *(["..."] if self.count > _SHOWN else [])])
        pictures = "picture" if self.count == 1 else "pictures"
        advice = f"; {self.advice}" if self.advice else ""
        return f"passed over {files} {KNOWN_FORMATS} {pictures}: {names}{advice}"


def find_pictures(
    folder: PurePath,
    list_folder: Callable[[PurePath], Iterable[tuple[str, bool]]],
    is_picture: Callable[[PurePath], bool],
    passed_over: PassedOver,
) -> Iterator[PurePath]:
    """Yield the pictures of a folder and its subfolders, in the order of names, without hidden ones.

    An ending of a picture decides; without one the content does. A text file whose name is a picture's but for the
    ending is its caption. Only the names of one folder and those above it are held at a time.

    Args:
        folder: below the root, as all paths here.
        list_folder: returns the entries of a folder, (name, whether it is a folder).
        is_picture: reads the first bytes of a file; called for those whose ending does not tell.
        passed_over: takes what is neither picture nor caption.
    """
    entries = sorted(entry for entry in list_folder(folder) if not entry[0].startswith("."))
    stems = {PurePath(name).stem for name, is_folder in entries if not is_folder and has_picture_suffix(name)}
    texts = []
    for name, is_folder in entries:
        path = folder / name
        is_text = path.suffix == SIDECAR_SUFFIX
        if is_folder:
            yield from find_pictures(path, list_folder, is_picture, passed_over)
        elif is_text and path.stem in stems:
            continue
        elif has_picture_suffix(name) or is_picture(path):
            stems.add(path.stem)
            yield path
        elif is_text:
            texts.append(path)  # a picture without an ending may follow
        else:
            passed_over.add(str(path))
    for path in texts:
        if path.stem not in stems:
            passed_over.add(str(path))


def read_folder(folder: Path, passed_over: PassedOver) -> tuple[Iterator[Row], Callable[[], float | None]]:
    """Return the pictures of a folder with their captions, and how many of them have been read.

    Args:
        folder: is searched with its subfolders, in the order of names, without hidden ones.
        passed_over: takes the other files.
    """
    done = 0
    total: list[int] = []

    def pictures(passed_over: PassedOver) -> Iterator[PurePath]:
        return find_pictures(
            PurePath(),
            lambda inside: entries_of(folder / inside),
            lambda inside: is_picture_file(folder / inside),
            passed_over,
        )

    def rows() -> Iterator[Row]:
        nonlocal done
        for inside in pictures(passed_over):
            yield with_sidecar(str(inside), folder / inside)
            done += 1

    def share() -> float:
        if not total:  # counted only when it is needed: for the progress on a terminal
            total.append(sum(1 for _ in pictures(PassedOver())))
        return min(1.0, done / max(1, total[0]))

    return rows(), share


def with_sidecar(name: str, path: Path) -> Row:
    """Return the row of a picture with the caption beside it, if any; with an `error` if that cannot be read."""
    try:
        return Row(name=name, caption=read_sidecar(path))
    except FileNotFoundError:
        return Row(name=name)
    except CaptionError as error:
        return Row(name=name, error=InputError(str(error)))


def entries_of(folder: Path) -> list[tuple[str, bool]]:
    """Return (name, whether it is a folder) of all that is in a folder.

    Links to folders do not count as folders: they may lead in a circle.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as scan:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]
    except OSError as error:
        raise InputError(f"cannot list the folder {one_line(str(folder))}: {os_error_reason(error)}") from error
