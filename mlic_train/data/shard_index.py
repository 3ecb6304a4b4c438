"""An index beside a shard: its rows and where its pictures lie, so that who reads it from far need not fetch it whole.

`train-000000.tar.index` is JSON lines: a first one about the shard, then one for each sample. Only shards that an
address names are read by it: on a disk the shard itself is soon looked through, and cannot differ from what is said
of it. A picture's place is believed only as far as the shard has that member there (see `Member.read_bytes`).
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.typed_json import TypedJsonError, build, expect, parse_object
from mlic_train.errors import DataError

from .members import Member, remote
from .records import PROBLEM_KINDS, Problem
from .shard_names import location_of
from .source import Row, Rows, make_row
from .tar import BLOCK, TarError, plain_name

SCHEMA_VERSION = 1
_SUFFIX = ".index"


@dataclass(frozen=True, slots=True)
class _Shard:
    """The first line: the shard's size, and how many lines follow."""

    schema_version: int
    bytes: int
    samples: int


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """A row, but with the labels that a .cls has as `cell`, and one blank caption more where there was one."""

    number: int
    image_id: str | None
    captions: tuple[str, ...]
    cell: str | None
    labels: tuple[str, ...] | None
    picture: _Place | None


@dataclass(frozen=True, slots=True)
class _Bad:
    """A sample that cannot be read."""

    number: int | None
    kind: str
    message: str


def index_of(shard: Path) -> Path:
    """Where a shard's index lies."""
    return shard.with_name(shard.name + _SUFFIX)


def index_bytes(shard: Path, rows: Rows) -> bytes:
    """What the index of a shard holds.

    Args:
        shard: a file.
        rows: all of its rows, read from itself.

    Raises:
        OSError: the shard is gone.
        DataError: the shard cannot be read.
    """
    lines = [_to_line(row) for row in rows]
    head = _Shard(SCHEMA_VERSION, shard.stat().st_size, len(lines))
    return b"".join(json.dumps(dataclasses.asdict(line)).encode("ascii") + b"\n" for line in (head, *lines))


def read_index(shard: Path) -> Rows | None:
    """The rows of a shard that an address names, from its index; None if it has none.

    Raises:
        DataError: the index is damaged, or of another shard.
        OSError: it, or the shard, cannot be read.
    """
    file_system, inside = remote(shard)
    try:
        content: bytes = file_system.cat_file(inside + _SUFFIX)
    except (FileNotFoundError, PermissionError):  # as S3 says of what is not there to whoever may not list
        return None
    try:
        lines = content.decode("ascii").splitlines()
        head: _Shard = build(_Shard, parse_object(lines[0] if lines else ""), "the first line")
        expected = _Shard(SCHEMA_VERSION, file_system.size(inside), len(lines) - 1)
        if head != expected:
            raise TypedJsonError(f"it begins with {_said(head)}; expected {_said(expected)}")
        rows = [_to_row(shard, line, head.bytes) for line in lines[1:]]
    except (TypedJsonError, TarError, UnicodeDecodeError) as error:
        raise DataError(
            f"{location_of(index_of(shard))}: {error}; write it anew with mlic-shards --index, or remove it"
        ) from None
    return iter(rows)


def _said(shard: _Shard) -> str:
    return f"version {shard.schema_version}, {shard.bytes} bytes, {shard.samples} samples"


def _to_line(row: Row | Problem) -> _Sample | _Bad:
    if isinstance(row, Problem):
        return _Bad(row.number, row.kind, row.message)
    picture = row.picture
    place = None if picture is None else _Place(picture.name, picture.offset, picture.size)
    cell, names = (row.labels, None) if isinstance(row.labels, str) else (None, row.labels)
    blank = ("",) if row.blank_caption else ()
    return _Sample(row.number, row.image_id, row.captions + blank, cell, names, place)


def _to_row(shard: Path, line: str, size: int) -> Row | Problem:
    entry = parse_object(line)
    if "kind" in entry:
        bad: _Bad = build(_Bad, entry, "a sample")
        expect(bad.kind in PROBLEM_KINDS, "a sample.kind", "a known one", bad.kind)
        return Problem(shard, bad.number, bad.kind, bad.message)
    sample: _Sample = build(_Sample, entry, "a sample")
    labels = sample.labels if sample.cell is None else sample.cell
    row = make_row(shard, sample.number, sample.image_id or "", sample.captions, labels)
    if isinstance(row, Problem) or sample.picture is None:
        return row
    place = sample.picture
    if place.offset < BLOCK or place.size < 0 or place.offset + place.size > size:
        raise TypedJsonError(f"found {place.name!r} outside of the shard")
    return dataclasses.replace(
        row, picture=Member(location_of(shard), plain_name(place.name), place.offset, place.size)
    )
