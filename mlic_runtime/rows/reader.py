"""Rows for batch prediction, streamed from a file, a folder of pictures or standard input."""

import functools
import io
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO

from mlic_runtime.annotations.source.addresses import SHARD_SUFFIX, is_pattern, is_shards, location_of
from mlic_runtime.base.far_files import FarFile, is_uri, without_dots, without_file_scheme
from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.text import one_line
from mlic_runtime.errors import DataError, InputError
from mlic_runtime.limits import MAX_JSON_ARRAY_BYTES
from mlic_runtime.picture.signatures import KNOWN_FORMATS
from mlic_runtime.tables.columns import PICTURE_FOLDERS, PICTURE_SUFFIXES, STDIN
from mlic_runtime.tables.table import JSON_SUFFIXES, TABLE_SUFFIXES, open_table, read_json_lines

from .far_folder import FAR_ANNOTATIONS, FarFolder
from .folder import PassedOver, read_folder
from .formats import parquet_columns, rows_of
from .row import Row, RowError

if TYPE_CHECKING:
    from mlic_runtime.picture.decode import ImageSource

    from .annotated import Annotated

__all__ = ["Row", "RowError", "RowReader", "locate", "open_rows", "picture_finder"]

_KINDS = (
    f"{', '.join(TABLE_SUFFIXES)}, a folder, or {STDIN} for JSON lines on standard input; or annotations: .json, .xml, "
    "a .zip with them, .tar shards"
)

_ANNOTATED_SUFFIXES = (".json", ".xml", ".zip", SHARD_SUFFIX)
_MAYBE_ANNOTATED_SUFFIXES = (".csv", ".jsonl")  # where the user names no column
_ONLY_ANNOTATED_SUFFIXES = (".xml", ".zip")
_START = 1 << 16  # bytes of a far file, which tell whether it is a file of annotations


@dataclass(frozen=True)
class RowReader:
    """The rows of a source, read one at a time and once; made by `open_rows`, closed by `with`.

    Attributes:
        root: the folder of its pictures.
        note: what of the source is not read, in lines; "" when everything is.
        passed_over: returns which files of a folder are no pictures, one line, "" for none; to be called after the last
            row. None where the source is no folder.
        share: returns how much has been read, in [0, 1]; None where the end is not known, as on standard input.
    """

    root: str
    note: str
    passed_over: Callable[[], str] | None
    share: Callable[[], float | None]
    _rows: Iterator[Row]
    _stream: BinaryIO | None

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._stream is not None:
            self._stream.close()


def open_rows(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    image_root: str | os.PathLike[str] | None = None,
    pictures: bool = True,
    captions: bool = True,
    image_column: str | None = None,
    caption_column: str | None = None,
) -> RowReader:
    """Open a source of rows.

    Args:
        source: a table (by the ending of its name, see `table.TABLE_SUFFIXES`), a folder of pictures, or a binary
            stream of JSON lines. See `columns` for the names of columns. A folder is searched with its subfolders, in
            the order of names, for pictures, whatever their names (see `folder.find_pictures`); the caption of a.jpg is
            the text of a.txt beside it, if there is one. Annotated data, as training reads it (a file, a zip file, a
            folder with its annotations or table, or shards by name) gives a row a picture, see `annotated`. A zip file
            of pictures is read as their folder. File and folder may be URIs, see `base.far_files`; of annotated data,
            only those of shards.
        image_root: where the pictures of a rows file lie, and what they may not leave, a path or a URI; by default the
            folder of the file, and for a stream the current one. A folder of pictures is its own root.
        pictures: False leaves the pictures out: every row is its caption alone, and no picture has to be there.
        captions: False leaves the captions out.
        image_column: the column of the pictures in a table; by default it is found by its name.
        caption_column: the column of the captions in a table.

    A row that cannot be read is a `Row` with an `error`, in its place.

    Raises:
        InputError: the source is missing or of no known kind, its header has no known column, a folder has no
            picture, or it is a Parquet file or a URI and the extra that reads it is not installed.
    """
    reader = functools.partial(
        _reader,
        image_root=None if image_root is None else without_file_scheme(os.fspath(image_root)),
        pictures=pictures,
        captions=captions,
    )
    notes: list[str] = []
    named = (image_column, caption_column)
    passed_over = PassedOver()
    if not isinstance(source, (str, os.PathLike)):
        return reader(rows_of(read_json_lines(source), notes, *named), os.curdir, notes)
    name = without_file_scheme(os.fspath(source))
    far = FarFile.from_uri(name) if is_uri(name) else None
    name = str(Path(name)) if far is None else name
    far_folder = None if far is None else _far_folder(name, far)
    annotated = _find_annotated(name, far is not None, far_folder, named)
    if annotated is not None and annotated.sources:
        return _open_annotated(annotated, name, image_root, named, pictures=pictures, captions=captions)
    try:
        if annotated is not None or (Path(name).is_dir() if far is None else far_folder):
            if image_root is not None:
                kind = "folder" if annotated is None else "zip file"
                raise InputError(f"{name!r} is a {kind} of pictures and its own image root: leave the image root out")
            if far_folder is None:
                folder = Path(name) if annotated is None else annotated.root
                notes += () if annotated is None else annotated.notes
                rows, share = read_folder(folder, passed_over)
                return reader(rows, str(folder), notes, share, passed_over=passed_over, name=name)
            return reader(far_folder.rows(passed_over), name, passed_over=passed_over, name=name)
        suffix = PurePath(name if far is None else name.partition("?")[0]).suffix.lower()
        if suffix not in TABLE_SUFFIXES:
            problem = "is not there" if far is None and not Path(name).exists() else "has an unknown ending"
            raise InputError(f"the input {name!r} {problem}; expected {_KINDS}")
        size = Path(name).stat().st_size if far is None else far.size()
        stream = open_regular(name) if far is None else far.open() if any(named) else _open_far(far, suffix)
    except OSError as error:
        raise _cannot_read(name, error) from error
    try:
        rows, share = _read_file(stream, size, suffix, name, notes, named)
        return reader(_with_name(rows, name), _parent(name), notes, share, stream)
    except BaseException:
        stream.close()
        raise


def _far_folder(name: str, far: FarFile) -> FarFolder | None:
    """Return the folder that a URI names; None for a file."""
    if is_shards(name):
        return None  # one name may stand for many, none of which has it
    try:
        return FarFolder(name) if far.is_folder() else None
    except OSError as error:
        raise _cannot_read(name, error) from error


def _find_annotated(
    name: str, far: bool, far_folder: FarFolder | None, named: tuple[str | None, str | None]
) -> "Annotated | None":
    """Return the annotations that a name stands for; None where it is something else.

    Args:
        name: a path or a URI.
        far: whether it is a URI.
        far_folder: the folder that it names.
        named: the columns of the picture and of the caption, if the user names them.

    Raises:
        InputError: they cannot be used.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    shards = [] if far_folder is None else far_folder.shards()
    if far:
        if far_folder is None and suffix in _ONLY_ANNOTATED_SUFFIXES:
            raise _in_file(name, FAR_ANNOTATIONS)
        if not shards and (far_folder is not None or not is_shards(name)):
            return None
    elif not path.is_dir():
        suffixes = _ANNOTATED_SUFFIXES if any(named) else (*_ANNOTATED_SUFFIXES, *_MAYBE_ANNOTATED_SUFFIXES)
        if suffix not in suffixes or not (is_pattern(name) or path.exists()):
            return None
        if suffix in _MAYBE_ANNOTATED_SUFFIXES:
            from mlic_runtime.annotations.formats.named_like_tables import is_only_a_table

            if is_only_a_table(path):
                return None
    # Here, because rows of other kinds do without all the formats.
    from .annotated import find_annotated

    try:
        note = "" if far_folder is None else far_folder.besides(shards)
        return find_annotated(path, [path / each for each in shards], note)
    except DataError as error:
        raise _in_file(name, error) from error


def _open_annotated(
    annotated: "Annotated",
    name: str,
    image_root: str | os.PathLike[str] | None,
    named: tuple[str | None, str | None],
    *,
    pictures: bool,
    captions: bool,
) -> RowReader:
    """Return the rows of annotated data; the arguments are those of `open_rows`."""
    from mlic_runtime.annotations.formats.format import ColumnNames

    from .annotated import read_annotated

    notes: list[str] = []
    given = None if image_root is None else without_file_scheme(os.fspath(image_root))
    if given is not None and is_uri(given):
        raise _in_file(name, f"found the image root {given!r}; expected a folder of this machine for annotated data")
    images = None if given is None else Path(given)
    columns = ColumnNames(*named)
    try:
        rows = read_annotated(annotated, images, notes, pictures=pictures, captions=captions, columns=columns)
    except DataError as error:
        raise _in_file(name, error) from error
    first = annotated.sources[0]
    root = images or annotated.images or (first if first.is_dir() else first.parent)
    return RowReader(location_of(root), "\n".join(map(one_line, notes)), None, lambda: None, rows, None)


def _open_far(far: FarFile, suffix: str) -> BinaryIO:
    """Open a table under a URI.

    Raises:
        InputError: it is a file of annotations.
        OSError: it cannot be opened.
    """
    whole = suffix in JSON_SUFFIXES  # read at once in any case
    if whole or suffix in _MAYBE_ANNOTATED_SUFFIXES:
        from .annotated import refuse_far

        content = far.read_start(MAX_JSON_ARRAY_BYTES + 1 if whole else _START)
        try:
            refuse_far(suffix, content)
        except DataError as error:
            raise _in_file(far.uri, error) from error
        if whole:
            return io.BytesIO(content)
    return far.open()


def picture_finder(root: str) -> Callable[[str], "ImageSource"]:
    """Return what turns the name of a picture in a rows file into the picture under `root`, a path or a URI.

    It raises InputError for a name that leads out of the root; see `locate`. A path that is not there is tried in
    Unicode's other normal forms: macOS writes "é" as two characters (NFD), most other programs as one (NFC). Then, for
    a name that lacks the ending, the picture of that stem is taken if there is just one. Last, all of it is tried in
    the folder of pictures in the root, if it has one (`images`, see PICTURE_FOLDERS).
    """
    return FarFolder(root).picture if is_uri(root) else _LocalPictures(root).find


class _LocalPictures:
    """The pictures under a folder of this machine; folders are listed when they are needed, and once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._listings: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> str:
        path = locate(self._root, name)
        if os.path.lexists(path):
            return path
        for folder in ("", *self._picture_folders()):
            if found := self._find_in(folder, name):
                return found
        return path

    def _find_in(self, folder: str, name: str) -> str | None:
        """Return the picture in a folder of the root; None where it has none or several of that name."""
        inside = f"{folder}/{name}" if folder else name
        forms = dict.fromkeys([inside, unicodedata.normalize("NFC", inside), unicodedata.normalize("NFD", inside)])
        if folder and Path(name).is_absolute():
            return None
        there = [path for path in (locate(self._root, form) for form in forms) if os.path.lexists(path)]
        if not there:
            path = locate(self._root, inside)
            above = Path(path).parent
            named = self._stems(str(above)).get(unicodedata.normalize("NFC", Path(path).name), [])
            there = [str(above / each) for each in named]
        if len(there) > 1 and there[0] != locate(self._root, inside):
            raise InputError(f"picture {name!r} may be {' or '.join(map(repr, there[:3]))}: name one of them")
        return there[0] if there else None

    def _picture_folders(self) -> list[str]:
        names = self._listings.setdefault("", {}).get("")
        if names is None:
            names = self._listings[""][""] = [
                entry.name for entry in _scan(self._root) if entry.name.lower() in PICTURE_FOLDERS and entry.is_dir()
            ]
        return names

    def _stems(self, folder: str) -> dict[str, list[str]]:
        """Return the pictures of a folder by the names without their endings, in the normal form NFC."""
        if folder not in self._listings:
            stems: dict[str, list[str]] = {}
            for entry in sorted(_scan(folder), key=lambda entry: entry.name):
                path = Path(entry.name)
                if path.suffix.lower() in PICTURE_SUFFIXES:
                    stems.setdefault(unicodedata.normalize("NFC", path.stem), []).append(entry.name)
            self._listings[folder] = stems
        return self._listings[folder]


def _scan(folder: str) -> "list[os.DirEntry[str]]":
    """Return what is in a folder; nothing where it cannot be listed: then the picture is not there."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def locate(root: str, name: str) -> str:
    """Return the path of a picture by its name in a rows file.

    A backslash stands for a slash, as Windows writes it. `..` removes the part before it in the name alone, before the
    file system is asked; symbolic links inside the root are followed.

    Raises:
        InputError: the name leads out of the root.
    """
    path = Path(name if os.name == "nt" else name.replace("\\", "/"))
    try:
        if path.is_absolute():
            base = Path("/", *without_dots(Path(root).absolute().parts))
            path = Path("/", *without_dots(path.parts)).relative_to(base)
        elif path.anchor:  # on Windows, a drive without a folder, or a folder without a drive
            raise ValueError
        return str(Path(root, *without_dots(path.parts)))
    except ValueError:
        raise InputError(f"picture {name!r} lies outside of the image root {root!r}: name another root") from None


def _reader(
    rows: Iterator[Row],
    default_root: str,
    notes: Sequence[str] = (),
    share: Callable[[], float | None] = lambda: None,
    stream: BinaryIO | None = None,
    passed_over: PassedOver | None = None,
    name: str = "",
    *,
    image_root: str | None,
    pictures: bool,
    captions: bool,
) -> RowReader:
    """Return a reader that has read its first row already: a bad header shows at once, and `notes` are complete.

    Raises:
        InputError: it is a folder (`passed_over` is given) without a picture.
    """
    root = default_root if image_root is None else image_root
    find = picture_finder(root) if pictures else None
    complete = (_complete(row, find, captions) for row in rows)
    first = list(itertools.islice(complete, 1))
    if passed_over is not None and not first:
        raise InputError(f"there is no picture in {name!r}; {passed_over.note() or f'expected {KNOWN_FORMATS} files'}")
    return RowReader(
        root,
        "; ".join(notes),
        None if passed_over is None else passed_over.note,
        share,
        itertools.chain(first, complete),
        stream,
    )


def _complete(row: Row, find: "Callable[[str], ImageSource] | None", captions: bool) -> Row:
    """Return a row of a file with its picture, which the file names; without what was not wanted."""
    if row.error is not None:
        return row
    image = row.image if find is not None else None
    if find is not None and row.name is not None and not isinstance(image, bytes):
        try:
            image = find(row.name)
        except InputError as error:
            return Row(name=row.name, error=error)
    return Row(image, row.caption if captions else None, row.name)


def _read_file(
    stream: BinaryIO, size: int | None, suffix: str, name: str, notes: list[str], named: tuple[str | None, str | None]
) -> tuple[Iterator[Row], Callable[[], float | None]]:
    """Return the rows of a table, and how much of it has been read; `named` are the columns that the user names."""
    try:
        table = open_table(stream, suffix, size, lambda names: parquet_columns(names, *named))
        return _with_file(rows_of(table, notes, *named), name), table.share
    except InputError as error:
        raise _in_file(name, error) from error


def _with_file(rows: Iterator[Row], name: str) -> Iterator[Row]:
    try:
        yield from rows
    except InputError as error:
        raise _in_file(name, error) from error


def _in_file(name: str, error: object) -> InputError:
    return InputError(f"the input {name!r}: {one_line(str(error))}")


def _with_name(rows: Iterator[Row], name: str) -> Iterator[Row]:
    try:
        yield from rows
    except OSError as error:
        raise _cannot_read(name, error) from error


def _cannot_read(name: str, error: OSError) -> InputError:
    return InputError(f"cannot read the input {name!r}: {one_line(os_error_reason(error))}")


def _parent(name: str) -> str:
    if not is_uri(name):
        return str(Path(name).parent)
    address, mark, options = name.partition("?")
    return f"{address.rpartition('/')[0]}{mark}{options}"
