"""Shards: tar files in webdataset's form, whose pictures are read where they lie.

The members `KEY.jpg`, `KEY.txt`, `KEY.json`, `KEY.cls` that follow each other are one sample. Scanning a shard gives
its captions and labels, and the place of every picture; a picture is read when it is needed, by one read. So shards are
data files like others: what is random, which process gets which rows and how a run resumes are the same.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.addresses import SHARD_SUFFIX, is_remote, is_shards, location_of
from mlic_runtime.annotations.source.files import decode, far_file, open_file
from mlic_runtime.annotations.source.members import Member
from mlic_runtime.annotations.source.tar import Entry, TarError, entries
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.override import override
from mlic_runtime.base.text import counted
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_ROW_BYTES
from mlic_runtime.picture.signatures import HEAD_BYTES, PICTURE_SUFFIXES, is_picture

from .format import Format, Row, Rows, clean_row
from .sample_json import parse_row
from .shard_index import read_index

SUMMARY_NAME = "shards.json"
SCHEMA_VERSION = 1
UNKNOWN_PICTURE = ".img"  # the suffix of a picture whose own name has no known one
_PICTURES = (*PICTURE_SUFFIXES, UNKNOWN_PICTURE)
_TEXTS = _TEXT, _JSON, _LABELS = ".txt", ".json", ".cls"
# As in webdataset: the key ends at the first dot; a file without one belongs to no sample, nor does __meta__.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)(\.[^/]*)")
_KEY_RULE = "the key of a sample ends at the first dot of a name"
_UNSEEN = re.compile(r"^__[^/]*__(/|$)|(^|/)\.[^/]*$")  # __meta__, and hidden files such as ._1.jpg of a Mac
_OTHER_RULE = "they are no picture, .txt, .json or .cls of a sample"
_META = re.compile(r"__[^/]*__(/|$)")


class Shards(Format):
    """Tar files in webdataset's form, see `scan_rows`."""

    name = "shards"
    title = "shards"
    file_names = (f"*{SHARD_SUFFIX}",)
    split_files = (f"{{split}}-*{SHARD_SUFFIX}",)

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        return read_rows(file)

    @override
    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        shards = find_shards(folder, split)
        return [tuple(shards)] if shards else []

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        shards = tuple(sorted(file for file in folder.iterdir() if self.recognizes(file)))
        return [shards] if shards else []

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        return []


def read_rows(file: Path) -> Rows:
    """Yield a row for each sample of a shard, numbered by its place; under an address from the shard's index, if any.

    Raises:
        DataError: see `scan_rows` and `shard_index.read_index`.
    """
    try:
        yield from (read_index(file) if is_remote(file) else None) or scan_rows(file)
    except OSError as error:
        where = location_of(file)
        raise DataError(f"{where}: cannot be read: {os_error_reason(error)}; expected a shard, a tar file") from None


def scan_rows(file: Path) -> Rows:
    """Yield a row for each sample of a shard, from the shard itself.

    In a sample, `KEY.json` is an object as in a JSON lines file (`image` is the picture's name, `captions`, `labels`,
    `unknown`), `KEY.txt` is a caption, `KEY.cls` a cell of labels, and a picture is known by its suffix; where no
    suffix is a picture's, by its content. Other members are ignored, with one warning for the shard. Each of them may
    be missing.

    The key ends at the first dot of the file's name, as in webdataset: `dog.seg.png` is the member `.seg.png` of `dog`.
    Where `dog` has no picture but such a member, or no text but such a member, the sample is a bad row, because its
    name was probably meant otherwise. Else the member is ignored, with one warning for the shard. Where all members of
    a key are such, the key has dots itself, see `_samples`, with one warning for the shard.

    Raises:
        DataError: the shard is no tar file, is damaged or truncated, or has a member that is not a file or has a name
            such as `../a`.
        OSError: it cannot be read.
    """
    seen: dict[str, int] = {}
    number = 0
    ignored: list[Entry] = []
    others: list[Entry] = []
    long_keys: list[str] = []
    try:
        with open_file(file) as stream:
            for key, members in _samples(entries(stream)):
                if key is None:
                    others += (entry for entry in members if not _UNSEEN.search(entry.name))
                    continue
                number += 1
                if key in seen:
                    message = f"found the key {key!r} again; the members of record {seen[key]} must follow each other"
                    yield Problem(file, number, "duplicate-id", message)
                    continue
                seen[key] = number
                try:
                    long_keys += [key] if "." in PurePosixPath(key).name else []
                    parts = _parts(key, members)
                    pictures = _pictures(stream, parts)
                    yield _row(stream, file, number, key, parts, pictures)
                    dotted = _dotted(parts, *_PICTURES, *_TEXTS)
                    ignored += dotted
                    others += (
                        entry
                        for suffix, entry in parts.items()
                        if suffix not in _TEXTS and entry not in pictures and entry not in dotted
                    )
                except (ValueError, RecursionError) as error:
                    yield Problem(file, number, "bad-row", str(error))
    except TarError as error:
        raise DataError(f"{file}: {error}") from None
    if long_keys:
        message = (
            f"found {counted(len(long_keys), 'key')} with dots, such as {long_keys[0]!r}: they end at the last dot"
        )
        yield Problem(file, None, "interpreted", message, "warning")
    if ignored:
        message = f"found {len(ignored)} members such as {ignored[0].name!r}, which are not read: {_KEY_RULE}"
        yield Problem(file, None, "ignored", message, "warning")
    if others:
        message = f"found {len(others)} members such as {others[0].name!r}, which are not read: {_OTHER_RULE}"
        yield Problem(file, None, "ignored", message, "warning")


def find_shards(folder: Path, split: str) -> list[Path]:
    """Return the shards of a split in a folder, or under an address: `train-000000.tar` and those that follow it.

    Raises:
        DataError: the address cannot be listed.
    """
    try:
        names = (
            far_file(folder).names(recursive=False) if is_remote(folder) else [each.name for each in folder.iterdir()]
        )
    except OSError as error:
        raise DataError(f"{location_of(folder)}: cannot be listed: {os_error_reason(error)}") from None
    return [folder / name for name in sorted(names) if name.startswith(f"{split}-") and is_shards(name)]


def check_listed(files: Iterable[Path], whole: bool) -> None:
    """Compare shards with the summary that `mlic-shards` wrote beside them, where there is one.

    Args:
        files: some shards.
        whole: they should be all that the summary lists.

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
                raise DataError(
                    f"{folder / name}: {os_error_reason(error)}, but {path} lists it; copy it again"
                ) from None
            if size != listed[name]["bytes"]:
                raise DataError(
                    f"{folder / name}: found {size} bytes, {SUMMARY_NAME} says {listed[name]['bytes']}; copy it again"
                )


def read_summary(path: Path) -> dict[str, dict[str, Any]]:
    """Return what shards.json lists: {"train-000000.tar": {"records": ..., "bytes": ..., "sha256": ...}, ...}.

    Raises:
        DataError: it cannot be read, or `mlic-shards` did not write it.
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


def _samples(found: Iterable[Entry]) -> Iterator[tuple[str | None, Iterable[Entry]]]:
    """Yield the members that follow each other with one key, and the key; None for those that belong to no sample.

    Where no member of a key is a picture or a text by its whole suffix, but some would be by the end of it, as of
    `a.v1.0.jpg`, the keys have dots themselves and end at the last one.
    """
    known = (*_PICTURES, *_TEXTS)
    for key, group in itertools.groupby(found, _key):
        members = list(group)
        if key is not None:
            suffixes = [entry.name[len(key) :].lower() for entry in members]
            if any(suffix.endswith(known) for suffix in suffixes) and not any(each in known for each in suffixes):
                yield from itertools.groupby(members, lambda entry: entry.name.rpartition(".")[0])
                continue
        yield key, members


def _parts(key: str, members: Iterable[Entry]) -> dict[str, Entry]:
    """Return the members of a sample by their suffix; ValueError if it has one twice."""
    parts: dict[str, Entry] = {}
    for entry in members:
        suffix = entry.name[len(key) :].lower()
        if suffix in parts:
            raise ValueError(f"found {entry.name!r} twice; expected each member once")
        parts[suffix] = entry
    return parts


def _dotted(parts: dict[str, Entry], *suffixes: str) -> list[Entry]:
    """Return the members that would be read if their key ended at the last dot."""
    return [entry for suffix, entry in parts.items() if suffix not in suffixes and suffix.endswith(suffixes)]


def _pictures(stream: BinaryIO, parts: dict[str, Entry]) -> list[Entry]:
    """Return the members that are pictures: by their suffix, else by their content."""
    pictures = [entry for suffix, entry in parts.items() if suffix in _PICTURES]
    unclear = (entry for suffix, entry in parts.items() if not suffix.endswith((*_PICTURES, *_TEXTS)))
    return pictures or [entry for entry in unclear if is_picture(_start(stream, entry))]


def _start(stream: BinaryIO, entry: Entry) -> bytes:
    stream.seek(entry.offset)
    return stream.read(min(HEAD_BYTES, entry.size))


def _row(
    stream: BinaryIO, file: Path, number: int, key: str, parts: dict[str, Entry], pictures: list[Entry]
) -> Row | Problem:
    """Return the row of a sample; ValueError or RecursionError where it is no sample."""
    for what, suffixes in (("picture", _PICTURES), ("caption or labels", _TEXTS)):
        found = pictures if suffixes is _PICTURES else parts.keys() & set(suffixes)
        if not found and (dotted := _dotted(parts, *suffixes)):
            raise ValueError(
                f"found {dotted[0].name!r} but no {what} of the key {key!r}; {_KEY_RULE}: expected no other dot "
                "than that of the suffix"
            )
    if len(pictures) > 1:
        raise ValueError(f"found the pictures {', '.join(repr(entry.name) for entry in pictures)}; expected one")
    texts = {suffix: _text(stream, parts[suffix]) for suffix in (_TEXT, _JSON, _LABELS) if suffix in parts}
    row = _merge_texts(file, number, texts)
    if isinstance(row, Problem):
        return row
    if not pictures:
        if row.image_id is None:
            return row
        message = f"the JSON names {row.image_id!r}; expected it beside the JSON"
        return Problem(file, number, "missing-picture", message)
    picture = Member(location_of(file), pictures[0].name, pictures[0].offset, pictures[0].size)
    return dataclasses.replace(row, image_id=row.image_id or picture.name, picture=picture)


def _merge_texts(file: Path, number: int, texts: dict[str, str]) -> Row | Problem:
    """Return the row without its picture, from the texts of a sample by their suffix."""
    row = parse_row(file, number, texts[_JSON]) if _JSON in texts else Row(number, None, (), None)
    if isinstance(row, Problem) or not texts.keys() & {_TEXT, _LABELS}:
        return row
    if _LABELS in texts and row.labels is not None:
        raise ValueError("found labels in the JSON and in .cls; expected one of them")
    if _TEXT in texts and row.captions:
        raise ValueError("found captions in the JSON and in .txt; expected one of them")
    captions = [texts[_TEXT]] if _TEXT in texts else row.captions
    return clean_row(file, number, row.image_id or "", captions, texts.get(_LABELS, row.labels), row.unknown)


def _text(stream: BinaryIO, entry: Entry) -> str:
    if entry.size > MAX_ROW_BYTES:
        raise ValueError(f"found {entry.name!r} of {entry.size} bytes; expected at most {MAX_ROW_BYTES}")
    stream.seek(entry.offset)
    return decode(stream.read(entry.size), repr(entry.name))
