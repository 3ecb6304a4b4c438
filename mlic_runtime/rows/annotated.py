"""Rows of prediction from annotated data, read by what reads it for training; its labels are not used."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from mlic_runtime.annotations.folder import find_splits
from mlic_runtime.annotations.formats.format import Row as AnnotatedRow
from mlic_runtime.annotations.formats.registry import FORMATS, find_format
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.archive import is_archive
from mlic_runtime.annotations.source.pictures import PictureFinder
from mlic_runtime.base.text import one_line
from mlic_runtime.errors import DataError, InputError

from .row import Row

# A folder of these is a folder of pictures, with captions beside them or not, and tables have a reader of their own.
_PLAIN = frozenset({"csv", "competition", "jsonl", "json", "parquet", "tags", "imagefolder", "captions"})


def annotated_sources(path: Path) -> tuple[tuple[Path, ...], Path | None]:
    """Return the annotations that a path names, train first, and the folder `images` beside them; () for none.

    Args:
        path: a file, which may be a zip file, or a folder.

    Raises:
        DataError: a zip file cannot be unpacked, or holds no data set.
        OutputError: there is no room to unpack it.
    """
    if path.is_file() and not is_archive(path):
        known = next((each for each in FORMATS if each.recognizes(path)), None)
        return ((), None) if known is None or known.name in _PLAIN else ((path,), None)
    try:
        found = find_splits(path)
    except DataError:
        if path.is_dir():
            return (), None  # a folder of pictures
        raise
    sources = tuple(file for files in found.by_split().values() for file in files)
    if path.is_dir() and any(find_format(source).name in _PLAIN for source in sources):
        return (), None
    return sources, found.images


def read_annotated(
    sources: tuple[Path, ...], images: Path | None, notes: list[str], *, pictures: bool, captions: bool
) -> Iterator[Row]:
    """Return a row for each picture of some sources, with its first caption, in the order of training's records.

    A row that cannot be read has an `error`, in its place.

    Args:
        sources: from `annotated_sources`.
        images: the folder of the pictures; None looks where the format has them.
        notes: a list that gets which formats were read.
        pictures: False leaves the pictures out.
        captions: False leaves the captions out.

    Raises:
        DataError: a source cannot be used at all.
    """
    found: dict[object, Row | tuple[Callable[[], bytes], Row]] = {}
    finders: dict[tuple[Path, ...], PictureFinder] = {}
    titles: dict[str, None] = {}
    for source in sources:
        format_ = find_format(source)
        titles[format_.title] = None
        folders = tuple(each for each in format_.picture_folders(source, images) if each.is_dir())
        finder = finders.setdefault(folders, PictureFinder(folders))
        for each in format_.read_rows(source, None):
            if isinstance(each, Problem):
                if each.severity == "error":
                    found[(source, each.number, len(found))] = Row(error=InputError(one_line(str(each))))
                continue
            key, row = _row(source, each, finder, pictures)
            before = found.get(key)
            if before is None:
                found[key] = row
            elif isinstance(row, tuple) and isinstance(before, tuple) and before[1].caption is None:
                found[key] = (before[0], dataclasses.replace(before[1], caption=row[1].caption))
            elif isinstance(row, Row) and isinstance(before, Row) and before.caption is None:
                found[key] = dataclasses.replace(before, caption=row.caption)
    notes.append(f"read as {', '.join(titles)}; labels are not used")

    def rows() -> Iterator[Row]:
        for each in found.values():
            row = each if isinstance(each, Row) else dataclasses.replace(each[1], image=each[0]())
            yield row if captions else dataclasses.replace(row, caption=None)

    return rows()


def _row(
    source: Path, row: AnnotatedRow, finder: PictureFinder, pictures: bool
) -> tuple[object, Row | tuple[Callable[[], bytes], Row]]:
    """Return what tells the picture of a row from others, and the row; with what reads its bytes, if it is no file."""
    caption = row.captions[0] if row.captions else None
    if not pictures or row.image_id is None:
        return row.image_id or (source, row.number), Row(None, caption, row.image_id)
    if row.picture is not None:
        return row.picture, (row.picture.read_bytes, Row(None, caption, row.image_id))
    try:
        path = finder.find(row.image_id, row.other_names)
    except (ValueError, LookupError) as error:
        message = str(error.args[0]).replace("--images", "--image-root")
        return (source, row.number), Row(None, None, row.image_id, InputError(one_line(message)))
    return path, Row(str(path), caption, row.image_id)
