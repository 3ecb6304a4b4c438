"""The files of a folder with its subfolders: which of them are pictures, and the texts beside them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlic_runtime.base.files import is_folder, is_regular, open_regular, os_error_reason
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_ROW_BYTES
from mlic_runtime.picture.signatures import has_picture_suffix, is_picture_file

from .files import decode

# What is no picture for sure, so that it need not be opened.
_NO_PICTURES = (
    *(".txt", ".caption", ".tags", ".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".toml"),
    *(".md", ".rst", ".html", ".names", ".data", ".cache", ".parquet", ".npy", ".npz", ".pt", ".pth", ".onnx"),
    *(".safetensors", ".py", ".ipynb", ".zip", ".tar", ".gz", ".pdf", ".mp4", ".mp3", ".wav", ".svg", ".db", ".ini"),
)
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_system_file(name: str) -> bool:
    """Return whether a file or folder of that name belongs to the system, or is hidden: nobody means it as data."""
    return name.startswith(".") or name.lower() in _SYSTEM


@dataclass(frozen=True, slots=True)
class Tree:
    """The files under a folder, as names relative to it with `/`, sorted.

    Attributes:
        pictures: the pictures, by their ending, or without a known one by their first bytes.
        others: all other files, without those of the system.
    """

    pictures: tuple[str, ...]
    others: tuple[str, ...]


def walk(folder: Path) -> Tree:
    """Return the files of a folder with its subfolders. Links to folders are followed, once each.

    Raises:
        DataError: a folder cannot be listed.
    """
    pictures: list[str] = []
    others: list[str] = []
    for name in _files(folder):
        (pictures if is_picture(folder, name) else others).append(name)
    return Tree(tuple(sorted(pictures)), tuple(sorted(others)))


def has_picture(folder: Path) -> bool:
    """Return whether there is a picture in a folder or its subfolders."""
    return any(is_picture(folder, name) for name in _files(folder))


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without those of the system.

    Raises:
        DataError: it cannot be listed.
    """
    return sorted(entry.name for entry in _scan(folder) if is_folder(entry))


def files_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, sorted, without those of the system.

    Raises:
        DataError: it cannot be listed.
    """
    return sorted(entry.name for entry in _scan(folder) if is_regular(entry))


def is_picture(folder: Path, name: str) -> bool:
    """Return whether a file is a picture, by its ending, or without a known one by its first bytes."""
    return PurePosixPath(name).suffix.lower() not in _NO_PICTURES and is_picture_file(folder / name)


def beside_pictures(folder: Path) -> frozenset[str]:
    """Return the names of files that belong to one picture beside them, as `a.json` and `a.jpg.json` to `a.jpg`.

    Raises:
        DataError: the folder cannot be listed.
    """
    names = [PurePosixPath(name) for name in files_in(folder)]
    pictures = {name for name in names if has_picture_suffix(name.name)}
    keys = {name.stem for name in pictures} | {name.name for name in pictures}
    return frozenset(name.name for name in names if name not in pictures and name.stem in keys)


def read_beside(folder: Path, name: str, limit: int = MAX_ROW_BYTES) -> str:
    """Return the text of a small file, such as a caption beside a picture; see `files.decode`.

    Raises:
        ValueError: see `bytes_beside`.
    """
    return decode(bytes_beside(folder, name, limit), repr(name))


def bytes_beside(folder: Path, name: str, limit: int = MAX_ROW_BYTES) -> bytes:
    """Return the content of a small file, such as the annotation of one picture.

    Raises:
        ValueError: it cannot be read, or has more bytes than the limit; the message begins with its name.
    """
    try:
        with open_regular(folder / name) as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {os_error_reason(error)}") from None
    if len(content) > limit:
        raise ValueError(f"{name!r} has more than {limit} bytes; expected less")
    return content


def examples(names: tuple[str, ...] | list[str]) -> str:
    """Return the first names, for a message that says how many there are."""
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _files(folder: Path) -> Iterator[str]:
    waiting = [("", folder)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        prefix, here = waiting.pop()
        try:
            status = here.stat()
        except OSError as error:
            raise _cannot_list(here, error) from None
        if (status.st_dev, status.st_ino) in seen:  # a link that leads in a circle; there is no inode 0 on POSIX
            continue
        if status.st_ino:
            seen.add((status.st_dev, status.st_ino))
        for entry in _scan(here):
            if is_folder(entry):
                waiting.append((f"{prefix}{entry.name}/", here / entry.name))
            elif is_regular(entry):
                yield prefix + entry.name


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_system_file(entry.name)]
    except OSError as error:
        raise _cannot_list(folder, error) from None


def _cannot_list(folder: Path, error: OSError) -> DataError:
    return DataError(f"{folder}: cannot be listed: {os_error_reason(error)}; expected a folder with pictures")
