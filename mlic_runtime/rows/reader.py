"""Rows for batch prediction: one picture or one caption or both, streamed from a file, a folder or standard input."""

import functools
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from mlic_runtime.base.far_files import is_uri, plain, without_dots
from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import CaptionError, InputError

from .columns import STDIN
from .far_folder import RemoteFolder, open_remote
from .formats import Cells, Problem, Values, open_parquet, read_csv, read_jsonl, text_of
from .sidecar import read_sidecar

if TYPE_CHECKING:
    from mlic_runtime.picture.decode import ImageSource

# What a folder is searched for: the usual endings of `formats.FORMATS`, and those of HEIC, which is an error where its
# plug-in is missing: to pass over such pictures would be to lose them silently.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")

_PARQUET_SUFFIXES = (".parquet", ".pq")
_SUFFIXES = (".csv", ".jsonl", ".ndjson", *_PARQUET_SUFFIXES)
_KINDS = f".csv, .jsonl, .parquet, a folder, or {STDIN} for JSON lines on standard input"


@dataclass(frozen=True, slots=True)
class Row:
    """What one prediction is made of.

    Attributes:
        image: see `decode.load_image`; None for a caption alone.
        caption: None for a picture alone.
        name: what the result calls the picture; None means its path, if `image` is one.
        error: why the row could not be read; its result is then a `RowError`.
    """

    image: "ImageSource | None" = None
    caption: str | None = None
    name: str | None = None
    error: InputError | None = None

    @property
    def title(self) -> str | None:
        """The name, else the path, else None."""
        if self.name is None and isinstance(self.image, (str, os.PathLike)):
            return os.fspath(self.image)
        return self.name

    def checksum(self, start: int = 0) -> int:
        """CRC-32 of what the row says, continuing from `start`; a file is known by its name, not by its content."""
        fields = [self.title, self.caption, None if self.error is None else str(self.error)]
        text = "\x1e".join("\x1f" if field is None else field for field in fields)
        checksum = zlib.crc32(f"{text}\x1d".encode("utf-8", "surrogatepass"), start)
        return zlib.crc32(self.image, checksum) if isinstance(self.image, bytes) else checksum


@dataclass(frozen=True, slots=True)
class RowError:
    """The result of a row that cannot be predicted.

    Attributes:
        image: the picture's name as the row gives it, or None.
        error: why.
    """

    image: str | None
    error: InputError

    def to_dict(self) -> dict[str, Any]:
        """The error record, ready for `json.dumps`."""
        return {"image": self.image, "error": {"type": type(self.error).__name__, "message": str(self.error)}}


class RowReader:
    """The rows of a source, read one at a time and once; made by `open_rows`, closed by `with`.

    Attributes:
        root: where its pictures lie.
        note: what of the source is not read, one line; "" when everything is.
    """

    def __init__(
        self, rows: Iterator[Row], share: Callable[[], float | None], stream: BinaryIO | None, root: str, note: str
    ) -> None:
        self.root = root
        self.note = note
        self._rows = rows
        self._share = share
        self._stream = stream

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def share(self) -> float | None:
        """How much has been read, in [0, 1]; None where the end is not known, as on standard input."""
        return self._share()


def open_rows(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    image_root: str | os.PathLike[str] | None = None,
    pictures: bool = True,
    captions: bool = True,
) -> RowReader:
    """Open a source of rows.

    Args:
        source: a CSV, JSON lines or Parquet file (by the ending of its name), a folder of pictures, or a binary
            stream of JSON lines. See `row_files` for the columns. A folder is searched with its subfolders, in the
            order of names; the caption of a.jpg is the text of a.txt beside it, if there is one. File and folder may
            be URIs, see `remote`.
        image_root: where the pictures of a rows file lie, and what they may not leave, a path or a URI; by default the
            folder of the file, and for a stream the current one. A folder of pictures is its own root.
        pictures: False leaves the pictures out: every row is its caption alone, and no picture has to be there.
        captions: False leaves the captions out.

    A row that cannot be read is a `Row` with an `error`, in its place.

    Raises:
        InputError: the source is missing or of no known kind, its header has no known column, a folder has no
            picture, or it is a Parquet file or a URI and pyarrow is not installed.
    """
    image_root = None if image_root is None else plain(os.fspath(image_root))
    if not isinstance(source, (str, os.PathLike)):
        notes: list[str] = []
        root = os.curdir if image_root is None else image_root
        return _reader(read_jsonl(source, notes), notes, _Maker(root, pictures, captions), lambda: None, None)
    source = plain(os.fspath(source))
    if is_uri(source):
        return _open_remote(source, image_root, pictures, captions)
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_dir():
        if image_root is not None:
            raise InputError(f"{str(path)!r} is a folder of pictures and its own image root: leave the image root out")
        return _folder_reader(path, _Maker(str(path), pictures, captions))
    if suffix not in _SUFFIXES:
        what = "cannot be told by its name" if path.exists() else "is not there"
        raise InputError(f"the input {str(path)!r} {what}; expected {_KINDS}")
    make = _Maker(str(path.parent) if image_root is None else image_root, pictures, captions)
    stream = _open(path)
    return _file_reader(stream, os.fstat(stream.fileno()).st_size, suffix, str(path), make)


def picture_finder(root: str) -> Callable[[str], "ImageSource"]:
    """What turns the name of a picture in a rows file into the picture under `root`, a path or a URI.

    It raises InputError for a name that leads out of the root; see `locate`.
    """
    return RemoteFolder(root).picture if is_uri(root) else functools.partial(locate, root)


def locate(root: str, name: str) -> str:
    """The path of a picture by its name in a rows file.

    `..` is taken back by the name alone, before the file system is asked; symbolic links inside the root are followed.

    Raises:
        InputError: the name leads out of the root.
    """
    path = Path(name)
    try:
        if path.is_absolute():
            base = Path("/", *without_dots(Path(root).absolute().parts))
            path = Path("/", *without_dots(path.parts)).relative_to(base)
        elif path.anchor:  # on Windows, a drive without a folder, or a folder without a drive
            raise ValueError
        return str(Path(root, *without_dots(path.parts)))
    except ValueError:
        raise InputError(f"picture {name!r} lies outside of the image root {root!r}: name another root") from None


class _Maker:
    """Makes a row of what a file says."""

    def __init__(self, root: str, pictures: bool, captions: bool) -> None:
        self.root = root
        self._find = picture_finder(root) if pictures else None
        self._captions = captions

    def __call__(self, cells: Cells) -> Row:
        if isinstance(cells, Problem):
            return Row(name=cells.image, error=InputError(cells.message))
        image: ImageSource | None = cells.image
        name = None
        if isinstance(image, str):
            name = image
            try:
                image = None if self._find is None else self._find(image)
            except InputError as error:
                return Row(name=name, error=error)
        return Row(None if self._find is None else image, cells.caption if self._captions else None, name)


def _reader(
    cells: Iterator[Cells],
    notes: list[str],
    make: _Maker,
    share: Callable[[], float | None],
    stream: BinaryIO | None,
) -> RowReader:
    """A reader that has read its first row already: a header that cannot be used shows at once, and fills `notes`."""
    first = [make(item) for item in itertools.islice(cells, 1)]
    return RowReader(itertools.chain(first, map(make, cells)), share, stream, make.root, "; ".join(notes))


def _file_reader(stream: BinaryIO, size: int, suffix: str, name: str, make: _Maker) -> RowReader:
    try:
        notes: list[str] = []
        if suffix in _PARQUET_SUFFIXES:
            cells, share = open_parquet(stream, name, notes)
        else:
            cells = read_csv(stream, notes) if suffix == ".csv" else read_jsonl(stream, notes)
            share = lambda: stream.tell() / size if size else 1.0  # noqa: E731 # one of two
        return _reader(cells, notes, make, share, stream)
    except BaseException:
        stream.close()
        raise


def _open_remote(uri: str, image_root: str | None, pictures: bool, captions: bool) -> RowReader:
    address = uri.partition("?")
    parent, _, name = address[0].rstrip("/").rpartition("/")
    suffix = Path(name).suffix.lower()
    opened = open_remote(uri)
    if opened is None:
        if image_root is not None:
            raise InputError(f"{uri!r} is a folder of pictures and its own image root: leave the image root out")
        cells = RemoteFolder(uri).cells(PICTURE_SUFFIXES)
        first = list(itertools.islice(cells, 1))
        if not first:
            raise _no_picture(uri)
        return _reader(itertools.chain(first, cells), [], _Maker(uri, pictures, captions), lambda: None, None)
    if suffix not in _SUFFIXES:
        opened[0].close()
        raise InputError(f"the input {uri!r} cannot be told by its name; expected {_KINDS}")
    make = _Maker(f"{parent}{address[1]}{address[2]}" if image_root is None else image_root, pictures, captions)
    return _file_reader(*opened, suffix, uri, make)


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise InputError(f"cannot read the input {str(path)!r}: {os_error_reason(error)}") from error


def _folder_reader(folder: Path, make: _Maker) -> RowReader:
    done = 0
    total: list[int] = []

    def cells() -> Iterator[Cells]:
        nonlocal done
        for path in _pictures(folder):
            yield _with_sidecar(str(path.relative_to(folder)), path)
            done += 1

    def share() -> float:
        if not total:  # counted only for who asks: the progress on a terminal
            total.append(sum(1 for _ in _pictures(folder)))
        return min(1.0, done / max(1, total[0]))

    reader = _reader(cells(), [], make, share, None)
    if next(_pictures(folder), None) is None:
        raise _no_picture(str(folder))
    return reader


def _no_picture(folder: str) -> InputError:
    return InputError(f"there is no picture in {folder!r}; expected files in {', '.join(PICTURE_SUFFIXES)}")


def _with_sidecar(name: str, path: Path) -> Cells:
    try:
        return Values(name, read_sidecar(path))
    except FileNotFoundError:
        return Values(name, None)
    except CaptionError as error:
        return Problem(name, str(error))


def _pictures(folder: Path) -> Iterator[Path]:
    """The pictures of a folder and its subfolders, in the order of names; hidden ones are left out.

    Only the names of one folder and those above it are held at a time. Links to folders are not followed: they may
    lead in a circle.
    """
    try:
        with os.scandir(folder) as scan:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan)
    except OSError as error:
        raise InputError(f"cannot list the folder {text_of(str(folder))}: {os_error_reason(error)}") from error
    for name, is_folder in entries:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _pictures(folder / name)
        elif name.lower().endswith(PICTURE_SUFFIXES):
            yield folder / name
