"""Rows of prediction from annotated data, read by what reads it for training; its labels are not used."""

import dataclasses
import os
import tempfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.annotations.folder import NoAnnotationsError, find_splits
from mlic_runtime.annotations.formats.format import ColumnNames, Format
from mlic_runtime.annotations.formats.registry import FORMATS, find_format
from mlic_runtime.annotations.formats.shards import check_listed
from mlic_runtime.annotations.formats.sidecars import find_sidecars
from mlic_runtime.annotations.problems import Problem, count_problems
from mlic_runtime.annotations.rows import AnnotatedRows, LocatedRow, join_captions
from mlic_runtime.annotations.source.addresses import expand, is_shards
from mlic_runtime.annotations.source.archive import is_archive, unpack
from mlic_runtime.annotations.source.pictures import pictures_below
from mlic_runtime.annotations.source.tree import beside_pictures, walk
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.text import counted, one_line
from mlic_runtime.errors import DataError, InputError

from .far_folder import FAR_ANNOTATIONS
from .row import Row

# A file of these has a reader of its own; a folder of those is a folder of pictures, with captions beside them or not.
_TABLES = frozenset({"csv", "competition", "jsonl", "json", "parquet"})
_FEWEST_TAGGED = 3  # pictures whose texts may be tags
_PICTURES = frozenset({"imagefolder", "captions"})
_SHOWN = 3  # names of sources


@dataclass(frozen=True, slots=True)
class Annotated:
    """The annotations that a path names.

    Attributes:
        path: the path.
        sources: what rows are read from, train first; empty for a zip file with nothing but pictures.
        root: the folder that they are in; that of a zip file is where it was unpacked.
        whole: whether all of `root` was looked through, as for a folder and a zip file.
        images: the folder `images` beside them; None where there is none.
        notes: where they were found, a line each.
    """

    path: Path
    sources: tuple[Path, ...]
    root: Path
    whole: bool = False
    images: Path | None = None
    notes: tuple[str, ...] = ()


def find_annotated(path: Path, shards: Sequence[Path] = (), note: str = "") -> Annotated | None:
    """Return the annotations that a path names; None for a table, or a folder of pictures.

    Args:
        path: a file, which may be a zip file, or a folder; or shards, as one name or address, see
            `annotations.source.addresses`.
        shards: those in a folder under an address.
        note: what is to be said about that folder.

    Raises:
        DataError: a zip file cannot be unpacked; a folder has annotations that cannot be used; a shard is not there.
        OutputError: there is no room to unpack it.
    """
    if shards:
        return Annotated(path, tuple(shards), path, notes=(note,) if note else ())
    if is_shards(path.name) and not path.is_dir():
        named = expand(path)
        check_listed(named, whole=False)
        return Annotated(path, named, path.parent)
    if path.is_file() and not is_archive(path):
        known = _annotations_in(path)
        return None if known is None else Annotated(path, (path,), path.parent)
    if path.is_dir():
        return _find_in(path, path)
    folder, note = unpack(path)
    found = _find_in(path, folder) or Annotated(path, (), folder, whole=True)
    return dataclasses.replace(found, notes=(note, *found.notes))


def refuse_far(suffix: str, start: bytes) -> None:
    """Refuse a table under a URI that is a file of annotations: of these, only shards are read from far.

    Args:
        suffix: of the file's name.
        start: its content, or the beginning of it.

    Raises:
        DataError: so it is.
    """
    with tempfile.TemporaryDirectory() as folder:  # formats look at files
        file = Path(folder, f"rows{suffix}")
        file.write_bytes(start)
        known = _annotations_in(file)
    if known is not None:
        raise DataError(f"found {known.title}; {FAR_ANNOTATIONS}")


def _annotations_in(file: Path) -> Format | None:
    """Return the format of a file of annotations; None for a table, and for what is no data."""
    known = next((each for each in FORMATS if each.recognizes(file)), None)
    return None if known is None or known.name in _TABLES else known


def _find_in(path: Path, folder: Path) -> Annotated | None:
    """Return the annotations in a folder, which messages call `path`; None for a folder of pictures."""
    try:
        found = find_splits(folder, needs_train=False)
    except NoAnnotationsError:
        return None
    except DataError as error:
        if not _has_annotations(folder):
            return None  # its folders are only named like splits
        raise DataError(str(error).replace(str(folder), str(path))) from None
    sources = tuple(file for files in found.by_split().values() for file in files)
    if all(_is_folder_of_pictures(source) for source in sources):
        return None
    notes = tuple(line.replace(str(folder), str(path)) for line in found.notes)
    return Annotated(path, sources, folder, whole=True, images=found.images, notes=notes)


def _is_folder_of_pictures(source: Path) -> bool:
    """Return whether a source is pictures in folders, with captions beside them or not.

    So are pictures with tags beside some of them: as annotations, only those would be read. So are one or two pictures,
    whose texts say too little to be no captions. An empty table says nothing.
    """
    format_ = find_format(source)
    if format_.name in _TABLES:
        return source.stat().st_size == 0
    if format_.name == "tags":
        tree = walk(source)
        return len(tree.pictures) < _FEWEST_TAGGED or len(find_sidecars(tree)) < len(tree.pictures)
    return format_.name in _PICTURES


def _has_annotations(folder: Path) -> bool:
    """Return whether a file in a folder or its subfolders is a source of annotations."""
    formats = [each for each in FORMATS if not each.fallback]
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        beside = beside_pictures(Path(root))
        files = [Path(root, name) for name in names if not name.startswith(".") and name not in beside]
        if any(each.recognizes(file) for file in files for each in formats):
            return True
    return False


def read_annotated(
    annotated: Annotated,
    images: Path | None,
    notes: list[str],
    *,
    pictures: bool,
    captions: bool,
    columns: ColumnNames,
) -> Iterator[Row]:
    """Return a row for each picture of some sources, with its first caption, in the order of training's records.

    A row that cannot be read has an `error`, in its place.

    Args:
        annotated: from `find_annotated`.
        images: the folder of the pictures that the user names; None looks where the format has them.
        notes: a list that gets what was read, and what of it was left out or found elsewhere, a line each kind.
        pictures: False leaves the pictures out.
        captions: False leaves the captions out.
        columns: the columns that the user names.

    Raises:
        DataError: a source cannot be used at all, columns are named for what is no table, or `images` is no folder.
    """
    warnings: list[Problem] = []
    blank = 0
    found: dict[object, Row | tuple[LocatedRow, tuple[str, ...]]] = {}
    sources = AnnotatedRows(
        annotated.sources,
        images or annotated.images,
        pictures=pictures,
        columns=columns,
        images_option="--image-root",
    )
    for each in sources.read():
        if isinstance(each, Problem):
            if each.severity == "error":
                shown = dataclasses.replace(each, file=Path(_shown(annotated.root, each.file)))
                found[(each.file, each.number, len(found))] = Row(error=InputError(one_line(str(shown))))
            else:
                warnings.append(each)
        elif each.problem is not None:
            error = InputError(one_line(each.problem.message))
            found[(each.file, each.row.number)] = Row(name=each.row.image_id, error=error)
        else:
            blank += each.row.blank_caption
            before = found.get(each.key)
            if isinstance(before, tuple):
                found[each.key] = before[0], join_captions(before[1], each.row.captions)
            else:
                found[each.key] = each, each.row.captions
    more = sum(max(0, len(each[1]) - 1) for each in found.values() if isinstance(each, tuple))
    notes += _notes(annotated, list(dict.fromkeys(each.title for each in sources.formats.values())), warnings)
    if captions and blank:
        notes.append(f"{counted(blank, 'caption')} blank: the picture counts as having none")
    if captions and more:
        notes.append(f"{counted(more, 'more caption')} not used: the first caption of a picture counts")
    if pictures:
        notes += sources.notes()
        notes += _unnamed(annotated, found)
    return (
        each if isinstance(each, Row) else _row(each[0], each[1][0] if captions and each[1] else None)
        for each in found.values()
    )


def _notes(annotated: Annotated, titles: Sequence[str], warnings: Sequence[Problem]) -> Iterator[str]:
    """Yield what was read, and the warnings of the formats, a line for each kind."""
    names = [_shown(annotated.root, source) for source in annotated.sources]
    listed = ", ".join([*names[:_SHOWN], *([f"... ({len(names)} in all)"] if len(names) > _SHOWN else [])])
    several = annotated.whole or len(names) > 1
    of_folder = f" from {listed}" if several and listed != os.curdir else ""
    yield f"read as {', '.join(titles)}{of_folder}; labels are not used"
    yield from annotated.notes
    relative = (dataclasses.replace(each, file=Path(_shown(annotated.root, each.file))) for each in warnings)
    for count in count_problems(relative, examples=1):
        yield count.line("warning")


def _shown(root: Path, source: Path) -> str:
    return str(source.relative_to(root)) if source.is_relative_to(root) else str(source)


def _unnamed(annotated: Annotated, found: Container[object]) -> Iterator[str]:
    """Yield a line about the pictures of a folder that no row names."""
    if annotated.whole and (left := [path for path in pictures_below(annotated.root) if path not in found]):
        yield f"{counted(len(left), 'picture')} left out, which no row names, such as {_shown(annotated.root, left[0])}"


def _row(located: LocatedRow, caption: str | None) -> Row:
    """Return the row of a picture, with its bytes where it is no file."""
    name, picture = located.row.image_id, located.picture
    if picture is None or isinstance(picture, Path):
        return Row(None if picture is None else str(picture), caption, name)
    try:
        return Row(picture.read_bytes(), caption, name)
    except OSError as error:
        message = f"cannot read picture {str(picture)!r}: {os_error_reason(error)}"
        return Row(name=name, error=InputError(one_line(message)))
