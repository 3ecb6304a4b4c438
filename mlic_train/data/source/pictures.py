"""Pictures by their names, with one listing per folder instead of one file-system call per row."""

import errno
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from mlic_runtime.base.files import os_error_reason
from mlic_train.errors import DataError

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def leads_outside(name: str) -> bool:
    """Return whether a file's name could lead out of the folder that it is looked for in, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).drive)


class PictureFolder:
    """The pictures under one folder, which is listed when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, frozenset[str]] = {}

    def path(self, image_id: str) -> Path:
        """Return where a picture of that name belongs.

        Raises:
            ValueError: the name is absolute, or leaves the folder.
        """
        name = PurePosixPath(image_id.replace("\\", "/"))
        if leads_outside(image_id) or "\0" in image_id or not name.name:
            raise ValueError(f"found the picture {image_id!r}; expected a name inside the pictures folder {self.root}")
        return self.root.joinpath(*name.parts)

    def has(self, path: Path) -> bool:
        """Return whether that file is there; upper and lower case differ on every system.

        Raises:
            DataError: its folder cannot be listed.
        """
        names = self._listings.get(path.parent)
        if names is None:
            names = self._listings[path.parent] = _files_in(path.parent)
        return path.name in names


def _files_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        if error.errno in _NOT_THERE:
            return frozenset()
        raise DataError(
            f"{folder}: cannot be listed: {os_error_reason(error)}; expected a folder of pictures"
        ) from None
