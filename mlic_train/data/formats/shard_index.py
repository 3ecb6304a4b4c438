"""An index beside a shard: its rows and where its pictures lie, so that who reads it from far need not fetch it whole.

`train-000000.tar.index` is JSON lines: a first one about the shard, then one for each sample. Only shards that an
address names are read by it: on a disk the shard itself is soon looked through, and cannot differ from what is said
of it. A picture's place is believed only as far as the shard has that member there (see `Member.read_bytes`).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mlic_train.data.problems import PROBLEM_KINDS, Problem
from mlic_train.data.source.addresses import location_of
from mlic_train.data.source.members import Member, fetch, remote
from mlic_train.data.source.tar import BLOCK, TarError, plain_name
from mlic_train.data.source.text import Row, Rows, make_row
from mlic_train.errors import DataError

SCHEMA_VERSION = 1
_SUFFIX = ".index"
_MAX_SHOWN = 80  # characters of a line in a message


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
    samples = [_to_sample(row) for row in rows]
    lines = [_head(shard.stat().st_size, len(samples)), *samples]
    return b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines)


def read_index(shard: Path) -> Rows | None:
    """The rows of a shard that an address names, from its index; None if it has none.

    Raises:
        DataError: the index is damaged, or of another shard.
        OSError: it, or the shard, cannot be read.
    """
    file_system, inside = remote(shard)
    try:
        content = fetch(index_of(shard))
    except (FileNotFoundError, PermissionError):  # as S3 says of what is not there to whoever may not list
        return None
    first, *samples = content.removesuffix(b"\n").split(b"\n")
    size = file_system.size(inside)
    line = first
    try:
        if json.loads(first) != _head(size, len(samples)):
            raise ValueError("of another shard")
        rows = []
        for line in samples:
            rows.append(_to_row(shard, json.loads(line), size))
    except (ValueError, TypeError, KeyError, RecursionError, TarError):
        shown = line[:_MAX_SHOWN].decode("ascii", "backslashreplace")
        raise DataError(
            f"{location_of(index_of(shard))}: found {shown!r}; expected the index of a shard of {size} bytes, and "
            f"{len(samples)} samples; write it anew with mlic-shards --index, or remove it"
        ) from None
    return iter(rows)


def _head(size: int, samples: int) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "bytes": size, "samples": samples}


def _to_sample(row: Row | Problem) -> dict[str, Any]:
    if isinstance(row, Problem):
        return {"number": row.number, "kind": row.kind, "message": row.message}
    picture = row.picture
    return {
        "number": row.number,
        "image": row.image_id or "",
        "captions": [*row.captions, *([""] if row.blank_caption else [])],
        "labels": row.labels,
        "picture": None if picture is None else [picture.name, picture.offset, picture.size],
    }


def _to_row(shard: Path, sample: dict[str, Any], size: int) -> Row | Problem:
    """What `_to_sample` made a sample of; ValueError, TypeError, KeyError or TarError if it is something else."""
    number = sample["number"]
    if "kind" in sample:
        _require(number, int)
        _require(sample["message"], str)
        if sample["kind"] not in PROBLEM_KINDS or not sample["message"].isprintable():  # it will be on a terminal
            raise ValueError("no problem of ours")
        return Problem(shard, number, sample["kind"], sample["message"])
    image, captions, labels, picture = (sample[name] for name in ("image", "captions", "labels", "picture"))
    _require(number, int)
    _require(captions, list)
    if not isinstance(labels, str) and labels is not None:
        _require(labels, list)
        labels = tuple(labels)
    for text in (image, *captions, *([] if isinstance(labels, str) else labels or [])):
        _require(text, str)
    row = make_row(shard, number, image, captions, labels)
    if isinstance(row, Problem) or picture is None:
        return row
    name, offset, length = picture
    _require(name, str)
    _require(offset, int)
    _require(length, int)
    if offset < BLOCK or length < 0 or offset + length > size:
        raise ValueError("outside of the shard")
    return dataclasses.replace(row, picture=Member(location_of(shard), plain_name(name), offset, length))


def _require(value: object, kind: type) -> None:
    if type(value) is not kind:
        raise TypeError
