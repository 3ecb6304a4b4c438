"""Soft labels from files: probabilities that any other model gave, matched to the records of a data set."""

import dataclasses
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlic_runtime.annotations.formats.picture_names import names_of
from mlic_runtime.annotations.labels import MISSING, LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_bytes
from mlic_runtime.annotations.source.members import PictureFile
from mlic_runtime.annotations.source.pictures import PictureFinder
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import InputError
from mlic_runtime.tables.table import BrokenRow, open_table
from mlic_train.config import Distillation
from mlic_train.errors import DataError

from .check import find_overlap
from .records import Record, Split

_PICTURE = ("image", "imageid", "picture", "filename", "file", "path", "id")
_CAPTION = ("caption", "text")
_NESTED = "probabilities"  # of mlic-infer's results: an object with a probability for each label
_EXAMPLES = 3
_EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before they become logits


@dataclass(frozen=True)
class SoftRow:
    """What a file says about one picture or caption.

    Attributes:
        file: the file.
        line: its 1-based line (Parquet and JSON arrays: row).
        image: the picture's name; None where the row names none.
        caption: with one space for each run of whitespace; None where there is none.
        probabilities: in 0..1, one per label of the data; NaN where the file does not know.
    """

    file: Path
    line: int
    image: str | None
    caption: str | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class SoftFile:
    """The rows of a file, the SHA-256 of its bytes in hex, its labels, and what is to be said about its columns."""

    file: Path
    sha256: str
    rows: tuple[SoftRow, ...]
    known: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """Rows of files, by the records that they are about.

    Attributes:
        logits: float64 (N, L), means over a record's rows; NaN where no row knows the label.
        joined: records without labels of their own, for pictures that the training split does not have.
        joined_logits: float64 (J, L), as `logits`.
        overlap: joined records whose picture a held-out split has under another name; they must not be taught.
        notes: lines that say what was matched and what was not.
    """

    logits: npt.NDArray[np.float64]
    joined: tuple[Record, ...]
    joined_logits: npt.NDArray[np.float64]
    overlap: tuple[Problem, ...]
    notes: tuple[str, ...]


def read_soft_file(file: Path, labels: LabelSet) -> SoftFile:
    """Read a table (CSV, Parquet) with a column a label, or JSON with `probabilities` in each object; see `tables`.

    Raises:
        DataError: it cannot be read, has neither a picture nor a caption column, has no label of the data, or has a
            value that is no probability; the message names the line and the column.
    """
    content = read_bytes(file)
    rows: list[SoftRow] = []
    other: dict[str, None] = {}
    found: set[int] = set()
    notes: list[str] = []
    for line, keys, cells in _read_table(file, content, notes):
        values = [math.nan] * len(labels)
        given: dict[int, str] = {}
        for name, cell in cells.items():
            if name not in labels:
                other[name] = None
                continue
            index = labels.index(name)
            if index in given:
                raise DataError(f"{file}:{line}: columns {given[index]!r} and {name!r} are the same label; keep one")
            given[index] = name
            found.add(index)
            values[index] = _probability(cell, f"{file}:{line}: column {name!r}")
        image, caption = _text(keys, _PICTURE), _text(keys, _CAPTION)
        if image is None and caption is None:
            raise DataError(f"{file}:{line}: found neither a picture nor a caption; expected a column image or caption")
        if broken := not_utf8(f"{image}{caption}"):
            raise DataError(f"{file}:{line}: {broken}")
        rows.append(SoftRow(file, line, image, caption, tuple(values)))
    if not rows:
        raise DataError(f"{file}: found no row; expected a header and rows, or JSON lines")
    if not found:
        raise DataError(
            f"{file}: found none of the {len(labels)} labels of the data; expected a column a label, such as "
            f"{labels.names[0]!r}, or JSON lines with probabilities"
        )
    if other:
        notes.append(f"{file}: {_some(list(other))} {_are(len(other))} no label of the data; not read")
    if absent := [name for index, name in enumerate(labels.names) if index not in found]:
        notes.append(f"{file}: says nothing about {_some(absent)}: unknown to this teacher")
    known = tuple(name for index, name in enumerate(labels.names) if index in found)
    return SoftFile(file, hashlib.sha256(content).hexdigest(), tuple(rows), known, tuple(notes))


def match_soft_files(files: Sequence[SoftFile], splits: Mapping[str, Split], options: Distillation) -> Matched:
    """Match rows to training records by the picture's name, or by the caption where a row names no picture.

    Rows about one record are averaged as logits, first within a file, then over files with equal weights. A picture
    that the training split lacks joins it, if it is found; one of another split is never used.

    Args:
        files: at least one.
        splits: by name; those but "train", of N records, are held out.
        options: `soft_temperature` divides the logits; `images` is the pictures folder of rows that join, None looks
            where the training pictures lie and beside each file.

    Raises:
        DataError: a picture cannot be read.
    """
    records, held_out = splits["train"].records, {name: split for name, split in splits.items() if name != "train"}
    index, kept = _Names(records), {name: _Names(split.records) for name, split in held_out.items()}
    size = len(files[0].rows[0].probabilities)
    total, known = np.zeros((len(records), size)), np.zeros((len(records), size))
    new: dict[PictureFile, tuple[Record, list[npt.NDArray[np.float64]], list[str]]] = {}
    notes: list[str] = []
    seen: set[int] = set()
    for file in files:
        notes += file.notes
        finder = PictureFinder(_folders(file.file, records, options.images))
        sums: dict[int, list[npt.NDArray[np.float64]]] = {}
        lost: list[SoftRow] = []
        apart: dict[str, int] = {}
        by = {"picture": 0, "caption": 0}
        for row in file.rows:
            logits = _logits(row.probabilities, options.soft_temperature)
            places = index.find(row)
            # An exact name counts before the end of one, whichever split has it.
            exact = next((name for name, names in kept.items() if names.has(row)), None)
            if index.has(row) or (places and exact is None):
                other = None
            else:
                other = exact or next((name for name, names in kept.items() if names.find(row)), None)
            if other is not None:
                apart[other] = apart.get(other, 0) + 1
            elif places:
                by["picture" if row.image is not None else "caption"] += 1
                for place in places:
                    sums.setdefault(place, []).append(logits)
            elif (picture := _picture(row, finder)) is not None:
                record = Record(row.image, picture, (), None, file.file, row.line)
                _, parts, captions = new.setdefault(picture, (record, [], []))
                parts.append(logits)
                if row.caption is not None and row.caption not in captions:
                    captions.append(row.caption)
            else:
                lost.append(row)
        for place, parts in sums.items():
            mean = _mean(parts)
            total[place] += np.nan_to_num(mean)
            known[place] += ~np.isnan(mean)
        seen |= {*sums}
        notes.append(
            f"{file.file}: {len(file.rows)} rows, matched by picture {by['picture']}, by caption {by['caption']}, "
            f"to {len(sums)} training records"
        )
        for name, count in apart.items():
            notes.append(f"{file.file}: {count} rows are about {name} and are not used")
        if lost:
            shown = _some([f"line {row.line} ({row.image or row.caption})" for row in lost])
            notes.append(f"{file.file}: {len(lost)} rows match no training record and no picture: {shown}")
    if missed := [record for place, record in enumerate(records) if place not in seen]:
        shown = _some([record.image_id or record.captions[0] for record in missed])
        notes.append(f"{len(missed)} of {len(records)} training records have no row of soft labels: {shown}")
    joined = tuple(_with_captions(record, captions) for record, _, captions in new.values())
    if joined:
        notes.append(f"{len(joined)} pictures without labels of their own join the training with soft labels")
    with np.errstate(invalid="ignore"):
        mean_logits = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    parts_of = [_mean(parts) for _, parts, _ in new.values()]
    joined_logits = np.array(parts_of).reshape(len(joined), size)
    overlap = find_overlap(held_out, dataclasses.replace(splits["train"], records=joined))
    return Matched(mean_logits, joined, joined_logits, tuple(overlap), tuple(notes))


class _Names:
    """Finds the records that a row is about."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._names: dict[str, set[int]] = {}
        self._whole: dict[str, set[int]] = {}
        self._captions: dict[str, set[int]] = {}
        for place, record in enumerate(records):
            if record.image_id is not None:
                self._whole.setdefault(record.image_id, set()).add(place)
                for name in _ends(record.image_id):
                    self._names.setdefault(name, set()).add(place)
            for caption in record.captions:
                self._captions.setdefault(caption, set()).add(place)

    def has(self, row: SoftRow) -> bool:
        return row.image in self._whole

    def find(self, row: SoftRow) -> list[int]:
        """Return the places of the records: by the longest end of the picture's name that only one picture has."""
        if row.image is None:
            return sorted(self._captions.get(row.caption or "", ()))
        if row.image in self._whole:
            return sorted(self._whole[row.image])
        for name in (end for given in names_of(row.image).names for end in _ends(given)):
            if len(places := self._names.get(name, ())) == 1:
                return [*places]
        return []


def _ends(name: str) -> Iterator[str]:
    """Yield the name, then without its leading folders, each also without the ending: ids often have none."""
    parts = [part for part in name.replace("\\", "/").split("/") if part and part != "."]
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        yield end
        stem, dot, _ = end.rpartition(".")
        if dot and stem and "/" not in end[len(stem) :]:
            yield stem


def _folders(file: Path, records: Sequence[Record], images: Path | None) -> tuple[Path, ...]:
    if images is not None:
        return (images,)
    found = dict.fromkeys((file.parent / "images", file.parent))
    for record in records:
        if (
            isinstance(record.image, Path)
            and record.image_id
            and record.image.as_posix().endswith(f"/{record.image_id}")
        ):
            found.setdefault(Path(record.image.as_posix()[: -len(record.image_id)]))
    return tuple(folder for folder in found if folder.is_dir())


def _picture(row: SoftRow, finder: PictureFinder) -> PictureFile | None:
    if row.image is None:
        return None
    names = names_of(row.image).names
    try:
        return finder.find(names[0], names[1:]) if names else None
    except (ValueError, LookupError, FileNotFoundError):
        return None


def _with_captions(record: Record, captions: Sequence[str]) -> Record:
    return Record(record.image_id, record.image, tuple(captions), None, record.file, record.number)


def _logits(probabilities: Sequence[float], temperature: float) -> npt.NDArray[np.float64]:
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1 - _EDGE)
    scaled: npt.NDArray[np.float64] = np.log(clipped / (1 - clipped)) / temperature
    return scaled


def _mean(parts: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return the mean of each label over the rows that know it; NaN where none does."""
    stacked = np.stack(parts)
    count = (~np.isnan(stacked)).sum(axis=0)
    return np.where(count > 0, np.nansum(stacked, axis=0) / np.maximum(count, 1), np.nan)


def _probability(cell: Any, where: str) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().casefold() in {"", *MISSING}):
        return math.nan
    try:
        value = math.inf if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        value = math.inf
    if isinstance(cell, float) and math.isnan(cell):
        return math.nan
    if not 0.0 <= value <= 1.0:
        raise DataError(f"{where}: found {cell!r}; expected a probability in 0..1, or nothing if it is unknown")
    return value


def _text(keys: Mapping[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        text = " ".join(str(keys.get(name) if keys.get(name) is not None else "").split())
        if text:
            return text
    return None


def _divided(entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a row into the cells that name a picture or caption, and the others."""
    keys, cells = {}, {}
    for name, cell in entry.items():
        plain = name.strip().casefold().replace("_", "").replace(" ", "")
        if plain in (*_PICTURE, *_CAPTION):
            keys[plain] = cell
        else:
            cells[name.strip()] = cell
    return keys, cells


def _read_table(
    file: Path, content: bytes, notes: list[str]
) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the line of each row of a table, its cells that name a picture or caption, and those of its labels.

    Args:
        file: the table.
        content: of the file.
        notes: a list that gets what the reader says about it.

    Raises:
        DataError: a column is there twice, or a row cannot be read.
    """
    try:
        table = open_table(io.BytesIO(content), file.suffix.lower())
        is_json = table.title.startswith("JSON")
        if not is_json and len(set(table.header)) != len(table.header):
            raise DataError(f"{file}: found a column twice in the header; expected each once")
        notes += (f"{file}: {note}" for note in table.notes)
        for row in table.rows:
            if isinstance(row, BrokenRow):
                raise DataError(f"{file}:{row.line}: {row.message}")
            nested = row.cells.get(_NESTED)
            if isinstance(nested, dict):
                yield row.line, _divided({name: row.cells[name] for name in row.cells if name != _NESTED})[0], nested
            elif is_json:
                raise DataError(f"{file}:{row.line}: expected an object with {_NESTED}, as mlic-infer writes it")
            else:
                yield row.line, *_divided(row.cells)
    except InputError as error:
        raise DataError(f"{file}: {error}") from None


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return ", ".join(map(repr, names[:_EXAMPLES])) + rest


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
