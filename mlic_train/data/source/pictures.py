"""Looking pictures up by name, with one listing per folder instead of one file-system call per row."""

import errno
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from mlic_runtime.base.files import os_error_reason
from mlic_train.errors import DataError

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class PictureFolder:
    """The pictures under one folder, listed when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, frozenset[str]] = {}

    def path(self, image_id: str) -> Path:
        """Where the picture of that name belongs.

        Raises:
            ValueError: the name is absolute, or leaves the folder.
        """
        name = PurePosixPath(image_id.replace("\\", "/"))
        if (
            "\0" in image_id
            or name.is_absolute()
            or PureWindowsPath(image_id).drive
            or ".." in name.parts
            or not name.name
        ):
            raise ValueError(f"found the picture {image_id!r}; expected a name inside the pictures folder {self.root}")
        return self.root.joinpath(*name.parts)

    def has(self, path: Path) -> bool:
        """Whether that file is there; upper and lower case count on every system.

        Raises:
            DataError: its folder cannot be listed.
        """
        names = self._listings.get(path.parent)
        if names is None:
            names = self._listings[path.parent] = _list(path.parent)
        return path.name in names


def _list(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        if error.errno in _NOT_THERE:
            return frozenset()
        raise DataError(
            f"{folder}: cannot be listed: {os_error_reason(error)}; expected a folder of pictures"
        ) from None
