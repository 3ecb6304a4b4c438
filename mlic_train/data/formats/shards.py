"""Shards: tar files in webdataset's form, whose pictures are read where they lie.

The members `KEY.jpg`, `KEY.txt`, `KEY.json`, `KEY.cls` that follow each other are one sample. Looking a shard through
gives its captions and labels, and of every picture the place; a picture is read when its turn comes, by one read. So
shards are one more kind of data file: what is random, who gets which rows and how a run resumes stays as it is.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mlic_runtime.base.far_files import reaching
from mlic_runtime.base.files import reason
from mlic_runtime.rows.columns import PICTURE_SUFFIXES
from mlic_train.data.problems import Problem
from mlic_train.data.source.addresses import is_remote, is_shards, location_of
from mlic_train.data.source.members import Member, open_shard, remote
from mlic_train.data.source.tar import Entry, TarError, entries
from mlic_train.data.source.text import Row, Rows, decode, make_row
from mlic_train.errors import DataError

from . import jsonl
from .shard_index import read_index

SUMMARY_NAME = "shards.json"
SCHEMA_VERSION = 1
UNKNOWN_PICTURE = ".img"  # the suffix of a picture whose own name has none that is known
_PICTURES = (*PICTURE_SUFFIXES, UNKNOWN_PICTURE)
_TEXT, _JSON, _LABELS = ".txt", ".json", ".cls"
_MAX_TEXT = 1 << 20  # bytes of a caption, or of the JSON of a sample
# As webdataset has it: the key ends at the first dot, a file without one is no part of a sample, nor is __meta__.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)(\.[^/]*)")
_META = re.compile(r"__[^/]*__(/|$)")


def read_rows(file: Path) -> Rows:
    """Read one shard: a row per sample, numbered by its place; one with an address from its index, if it has one.

    Raises:
        DataError: see `scan_rows` and `shard_index.read_index`.
    """
    try:
        if is_remote(file):
            with reaching():
                yield from read_index(file) or scan_rows(file)
        else:
            yield from scan_rows(file)
    except OSError as error:
        where = location_of(file)
        raise DataError(f"{where}: cannot be read: {reason(error)}; expected a shard, a tar file") from None


def scan_rows(file: Path) -> Rows:
    """Look through one shard.

    Of a sample, `KEY.json` is an object as in a JSON lines file (`image` is the picture's name, `captions`, `labels`),
    `KEY.txt` a caption, `KEY.cls` a cell of labels, and a picture is known by its suffix; members with other suffixes
    are passed over. Each of them may be missing.

    Raises:
        DataError: the shard is no tar file, is damaged or truncated, or has a member that is no file or
            that has a name such as `../a`.
        OSError: it cannot be read.
    """
    seen: dict[str, int] = {}
    number = 0
    try:
        with open_shard(file) as stream:
            for key, found in itertools.groupby(entries(stream), _key):
                if key is None:
                    continue
                number += 1
                if key in seen:
                    message = f"found the key {key!r} again; the members of record {seen[key]} must follow each other"
                    yield Problem(file, number, "duplicate-id", message)
                    continue
                seen[key] = number
                try:
                    yield _row(stream, file, number, found)
                except (ValueError, RecursionError) as error:
                    yield Problem(file, number, "bad-row", str(error))
    except TarError as error:
        raise DataError(f"{file}: {error}") from None


def find_shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split in a folder, or under an address: `train-000000.tar` and what follows it.

    Raises:
        DataError: what lies under the address cannot be listed.
    """
    if not is_remote(folder):
        return sorted(path for path in folder.glob(f"{split}-*") if is_shards(path.name))
    file_system, inside = remote(folder)
    try:
        with reaching():
            names = sorted(str(name).rpartition("/")[2] for name in file_system.glob(f"{inside}/{split}-*"))
    except OSError as error:
        raise DataError(f"{location_of(folder)}: cannot be listed: {reason(error)}") from None
    return [folder / name for name in names if is_shards(name)]


def check_listed(files: Iterable[Path], whole: bool) -> None:
    """Compare shards with the summary that `mlic-shards` left beside them, where it did.

    Args:
        files: some shards.
        whole: they are all that lie in their folders: each that is listed must be among them.

    Raises:
        DataError: one is missing, is not listed, or has another size than is listed.
    """
    folders: dict[Path, set[str]] = {}
    for file in files:
        folders.setdefault(file.parent, set()).add(file.name)
    for folder, names in folders.items():
        path = folder / SUMMARY_NAME
        if is_remote(folder) or not path.is_file():
            continue
        listed = read_summary(path)
        for name in sorted(names | listed.keys() if whole else names):
            if name not in listed:
                raise DataError(f"{folder / name}: {path} does not list it; expected the shards of one writing")
            try:
                size = (folder / name).stat().st_size
            except OSError as error:
                raise DataError(f"{folder / name}: {reason(error)}, but {path} lists it; copy it again") from None
            if size != listed[name]["bytes"]:
                raise DataError(
                    f"{folder / name}: found {size} bytes, {SUMMARY_NAME} says {listed[name]['bytes']}; copy it again"
                )


def read_summary(path: Path) -> dict[str, dict[str, Any]]:
    """What shards.json says of each shard: {"train-000000.tar": {"records": ..., "bytes": ..., "sha256": ...}, ...}.

    Raises:
        DataError: it cannot be read, or is not what `mlic-shards` writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise DataError(f"{path}: found schema_version {content['schema_version']!r}; expected {SCHEMA_VERSION}")
        shards = {str(name): dict(facts) for split in content["splits"].values() for name, facts in split.items()}
        for facts in shards.values():
            if not isinstance(facts["bytes"], int) or not isinstance(facts["sha256"], str):
                raise TypeError(f"expected bytes and sha256, found {facts}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); write the shards again, or remove it"
        ) from None
    return shards


def _key(entry: Entry) -> str | None:
    name = None if _META.match(entry.name) else _NAME.fullmatch(entry.name)
    return None if name is None else name[1]


def _row(stream: BinaryIO, file: Path, number: int, found: Iterable[Entry]) -> Row | Problem:
    parts: dict[str, Entry] = {}
    pictures: list[Entry] = []
    for entry in found:
        name = _NAME.fullmatch(entry.name)
        suffix = "" if name is None else name[2].lower()
        if suffix in parts:
            raise ValueError(f"found {entry.name!r} twice; expected each member once")
        parts[suffix] = entry
        pictures += [entry] if suffix in _PICTURES else []
    if len(pictures) > 1:
        raise ValueError(f"found the pictures {', '.join(repr(entry.name) for entry in pictures)}; expected one")
    texts = {suffix: _text(stream, parts[suffix]) for suffix in (_TEXT, _JSON, _LABELS) if suffix in parts}
    row = _told(file, number, texts, pictures)
    if isinstance(row, Problem) or not pictures:
        return row
    picture = Member(location_of(file), pictures[0].name, pictures[0].offset, pictures[0].size)
    return dataclasses.replace(row, image_id=row.image_id or picture.name, picture=picture)


def _told(file: Path, number: int, texts: dict[str, str], pictures: Sequence[Entry]) -> Row | Problem:
    """What the text members say."""
    row: Row | Problem = Row(number, None, (), None)
    if _JSON in texts:
        row = jsonl.parse_row(file, number, texts[_JSON])
    if isinstance(row, Problem):
        return row
    if row.image_id is not None and not pictures:
        return Problem(file, number, "missing-picture", f"the JSON names {row.image_id!r}; expected it beside the JSON")
    if _LABELS in texts and row.labels is not None:
        raise ValueError("found labels in the JSON and in .cls; expected one of them")
    if _TEXT in texts and row.captions:
        raise ValueError("found captions in the JSON and in .txt; expected one of them")
    if not texts.keys() & {_TEXT, _LABELS}:
        return row
    captions = [texts[_TEXT]] if _TEXT in texts else row.captions
    return make_row(file, number, row.image_id or "", captions, texts.get(_LABELS, row.labels))


def _text(stream: BinaryIO, entry: Entry) -> str:
    if entry.size > _MAX_TEXT:
        raise ValueError(f"found {entry.name!r} of {entry.size} bytes; expected at most {_MAX_TEXT}")
    stream.seek(entry.offset)
    return decode(stream.read(entry.size), repr(entry.name))
