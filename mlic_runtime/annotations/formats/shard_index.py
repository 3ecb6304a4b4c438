"""An index beside a shard: its rows and the places of its pictures, so that a shard elsewhere is not fetched whole.

`train-000000.tar.index` is JSON lines: the first is about the shard, then there is one for each sample. Only shards
under an address are read by their index: on a disk the shard itself is scanned fast, and always right. A picture is
read only if the shard has that member where the index says (see `Member.read_bytes`).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.problems import PROBLEM_KINDS, Problem
from mlic_runtime.annotations.source.addresses import location_of
from mlic_runtime.annotations.source.files import far_file
from mlic_runtime.annotations.source.members import Member
from mlic_runtime.annotations.source.tar import BLOCK, TarError, plain_name
from mlic_runtime.errors import DataError

from .format import Row, Rows, clean_row

SCHEMA_VERSION = 1
_SUFFIX = ".index"
_SHOWN_CHARACTERS = 80  # characters of a line in a message


def index_of(shard: Path) -> Path:
    """Return where a shard's index lies."""
    return shard.with_name(shard.name + _SUFFIX)


def index_bytes(shard: Path, rows: Rows) -> bytes:
    """Return the content of a shard's index.

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
    """Return the rows of a shard under an address, from its index; None if there is no index.

    Raises:
        DataError: the index is damaged, or of another shard.
        OSError: it, or the shard, cannot be read.
    """
    file = far_file(shard)
    try:
        content = far_file(index_of(shard)).read_range()
    except (FileNotFoundError, PermissionError):  # S3 forbids what is not there, where listing is forbidden
        return None
    first, *samples = content.removesuffix(b"\n").split(b"\n")
    size = file.size() or 0
    line = first
    try:
        if json.loads(first) != _head(size, len(samples)):
            raise ValueError("of another shard")
        rows = []
        for line in samples:
            rows.append(_to_row(shard, json.loads(line), size))
    except (ValueError, TypeError, KeyError, RecursionError, TarError):
        shown = line[:_SHOWN_CHARACTERS].decode("ascii", "backslashreplace")
        raise DataError(
            f"{location_of(index_of(shard))}: found {shown!r}; expected the index of a shard of {size} bytes, and "
            f"{len(samples)} samples; write it anew with mlic-shards --index, or remove it"
        ) from None
    return iter(rows)


def _head(size: int, samples: int) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "bytes": size, "samples": samples}


def _to_sample(row: Row | Problem) -> dict[str, Any]:
    if isinstance(row, Problem):
        sample = {"number": row.number, "kind": row.kind, "message": row.message}
        return sample if row.severity == "error" else {**sample, "severity": row.severity}
    picture = row.picture
    assert picture is None or isinstance(picture, Member)  # it is a row of a shard
    return {
        "number": row.number,
        "image": row.image_id or "",
        "captions": [*row.captions, *([""] if row.blank_caption else [])],
        "labels": row.labels,
        **({"unknown": row.unknown} if row.unknown else {}),  # left out without: then the index is as it was before
        "picture": None if picture is None else [picture.name, picture.offset, picture.size],
    }


def _to_row(shard: Path, sample: dict[str, Any], size: int) -> Row | Problem:
    """Return the row that `_to_sample` wrote; ValueError, TypeError, KeyError or TarError if it is something else."""
    number = sample["number"]
    if "kind" in sample:
        kind, message, severity = sample["kind"], sample["message"], sample.get("severity", "error")
        if severity not in ("error", "warning"):
            raise ValueError("not a severity")
        if number is not None:
            _require(int, number)
        _require(str, message)
        if kind not in PROBLEM_KINDS or not message.isprintable():  # it will be on a terminal
            raise ValueError("not a problem that mlic-shards writes")
        return Problem(shard, number, kind, message, severity)
    _require(int, number)
    image, captions, labels, picture = (sample[name] for name in ("image", "captions", "labels", "picture"))
    _require(list, captions)
    if not isinstance(labels, str) and labels is not None:
        _require(list, labels)
        _require(str, *labels)
        labels = tuple(labels)
    unknown = sample.get("unknown", [])
    _require(list, unknown)
    _require(str, image, *captions, *unknown)
    row = clean_row(shard, number, image, captions, labels, tuple(unknown))
    if isinstance(row, Problem) or picture is None:
        return row
    name, offset, length = picture
    _require(str, name)
    _require(int, offset, length)
    if offset < BLOCK or length < 0 or offset + length > size:
        raise ValueError("outside of the shard")
    return dataclasses.replace(row, picture=Member(location_of(shard), plain_name(name), offset, length))


def _require(kind: type, *values: object) -> None:
    if any(type(value) is not kind for value in values):
        raise TypeError
