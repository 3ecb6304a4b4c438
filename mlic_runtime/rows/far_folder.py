"""A folder of pictures that a URI names."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import unquote

from mlic_runtime.annotations.source.addresses import is_shards
from mlic_runtime.base.far_files import FarFile, is_uri, without_dots
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.text import counted, one_line
from mlic_runtime.errors import CaptionError, InputError
from mlic_runtime.limits import MAX_PICTURE_BYTES, MAX_ROW_BYTES
from mlic_runtime.picture.signatures import HEAD_BYTES, is_picture
from mlic_runtime.tables.table import TABLE_SUFFIXES

from .folder import PassedOver, find_pictures
from .row import Row
from .sidecar import SIDECAR_SUFFIX, decode_caption

FAR_ANNOTATIONS = (
    "under a URI, annotations are read from shards only: copy the data to this machine, or write it with mlic-shards"
)
_ANNOTATION_SUFFIXES = (*TABLE_SUFFIXES, ".xml", ".yaml", ".yml", ".zip")


class FarFolder:
    """A folder that a URI names, with the pictures in it; nothing else can be reached through it.

    Args:
        uri: such as s3://bucket/pictures. Options of the file system may follow a `?`, where it takes any (see its own
            documentation); credentials are best left to the environment.

    Raises:
        InputError: the URI cannot be used, or fsspec or what it needs besides is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._folder = FarFile.from_uri(uri)
        self._listed: set[PurePosixPath] | None = None

    def locate(self, name: str) -> str:
        """Return the path below the folder of a picture by its name in a rows file.

        A name is a path below the folder, or a whole URI that begins with the folder's. It is taken as it is: `%20` is
        three characters. But it is refused if its decoded form leads out of the folder, for a server may decode it.

        Raises:
            InputError: the name leads out of the folder.
        """
        try:
            return "/".join(_parts_inside(self._remove_folder(name) if is_uri(name) else name))
        except ValueError:
            raise InputError(
                f"picture {name!r} lies outside of the image root {self.uri!r}: name another root"
            ) from None

    def picture(self, name: str) -> BinaryIO:
        """Return a stream that fetches a picture when it is read.

        Raises:
            InputError: see `locate`.
        """
        return cast(BinaryIO, _FarPicture(self._folder.below(self.locate(name))))

    def rows(self, passed_over: PassedOver) -> Iterator[Row]:
        """Yield the pictures in the folder and its subfolders with their captions, as of a local folder.

        Args:
            passed_over: takes the other files.

        Raises:
            InputError: the folder cannot be listed.
        """
        names = self._names()
        entries: dict[PurePath, set[tuple[str, bool]]] = defaultdict(set)
        for name in names:
            entries[name.parent].add((name.name, False))
            for folder in name.parents[:-1]:
                entries[folder.parent].add((folder.name, True))
        tables = sorted(str(name) for name in names if _may_annotate(name))
        if tables:
            passed_over.advice = f"{counted(len(tables), 'file')} such as {tables[0]} not read: {FAR_ANNOTATIONS}"
        found = find_pictures(PurePosixPath(), entries.__getitem__, self._is_picture, passed_over)
        for picture in found:
            text = PurePosixPath(picture).with_suffix(SIDECAR_SUFFIX)
            try:
                yield Row(name=str(picture), caption=self._caption(str(text)) if text in names else None)
            except CaptionError as error:
                yield Row(name=str(picture), error=InputError(str(error)))

    def shards(self) -> list[str]:
        """Return the names of the shards in the folder itself, in the order of training: train, val, test.

        Raises:
            InputError: the folder cannot be listed.
        """
        if "?" in self.uri:
            return []  # addresses of shards have no options
        names = sorted(str(name) for name in self._names() if len(name.parts) == 1 and is_shards(name.name))
        return [name for split in ("train", "val", "test") for name in names if name.startswith(f"{split}-")]

    def besides(self, shards: Collection[str]) -> str:
        """Return a line about the files in the folder that are neither these shards nor belong to them; "" for none."""
        own = {*shards, *(f"{shard}.index" for shard in shards), "shards.json", "labels.csv"}
        others = sorted(name for name in map(str, self._names()) if name not in own and not name.startswith("."))
        return f"{counted(len(others), 'file')} beside the shards not read, such as {others[0]}" if others else ""

    def _names(self) -> set[PurePosixPath]:
        """Return the files in the folder and its subfolders, which are listed once."""
        if self._listed is None:
            try:
                self._listed = {PurePosixPath(name) for name in self._folder.names(recursive=True)}
            except OSError as error:
                raise InputError(f"cannot list the folder {self.uri!r}: {one_line(os_error_reason(error))}") from error
        return self._listed

    def _is_picture(self, name: PurePath) -> bool:
        try:
            return is_picture(self._folder.below(str(name)).read_start(HEAD_BYTES))
        except OSError:
            return False

    def _caption(self, name: str) -> str | None:
        try:
            content = self._folder.below(name).read_start(MAX_ROW_BYTES + 1)
        except OSError as error:
            raise CaptionError(f"cannot read the caption {name!r}: {one_line(os_error_reason(error))}") from error
        return decode_caption(content, repr(name))

    def _remove_folder(self, uri: str) -> str:
        """Return the path of a URI below the folder; ValueError if it is elsewhere."""
        scheme, _, start = self.uri.partition("?")[0].partition("://")
        other, _, path = uri.partition("://")
        parts, above = without_dots(PurePosixPath(path).parts), without_dots(PurePosixPath(start).parts)
        if scheme != other or parts[: len(above)] != above:
            raise ValueError("it is elsewhere")
        return "/".join(parts[len(above) :])


def _may_annotate(name: PurePosixPath) -> bool:
    suffix = name.suffix.lower()
    return suffix in _ANNOTATION_SUFFIXES and suffix != SIDECAR_SUFFIX and not name.name.startswith(".")


class _FarPicture:
    """A stream for `decode.load_image`; the file is opened when it is read, in the thread that decodes it."""

    def __init__(self, file: FarFile) -> None:
        self.name = file.uri  # errors call it this
        self._file = file

    def read(self) -> bytes:
        content = self._file.read_start(MAX_PICTURE_BYTES + 1)
        if len(content) > MAX_PICTURE_BYTES:
            raise ValueError(f"it has more than {MAX_PICTURE_BYTES} bytes")
        return content


def _parts_inside(name: str) -> list[str]:
    """Return the parts of a relative path without `.` and `..`.

    Raises:
        ValueError: it, or its decoded form, leads out of the folder.
    """
    decoded = name
    while decoded != (decoded := unquote(decoded)):
        _parts(decoded)
    return _parts(name)


def _parts(name: str) -> list[str]:
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or "\0" in name:  # a backslash is a separator for some file systems
        raise ValueError
    return without_dots(path.parts)
