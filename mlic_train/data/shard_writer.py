"""Splits of any format as shards: tar files in webdataset's form, the same bytes for the same data."""

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from csv import writer
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from mlic_runtime.base.files import reason
from mlic_runtime.errors import OutputError
from mlic_runtime.rows.columns import PICTURE_SUFFIXES
from mlic_train.base.files import atomic_folder, write_bytes
from mlic_train.data.formats.shard_index import index_bytes, index_of
from mlic_train.data.formats.shards import SCHEMA_VERSION, SUMMARY_NAME, UNKNOWN_PICTURE, read_rows, read_summary
from mlic_train.data.source.addresses import is_shards
from mlic_train.data.source.tar import BLOCK
from mlic_train.errors import DataError

from .labels import LabelSet
from .records import Record, Split
from .summary import fingerprint

Facts: TypeAlias = dict[str, dict[str, int | str]]
"""{"train-000000.tar": {"records": ..., "bytes": ..., "sha256": ...}, ...}"""

_END = bytes(2 * BLOCK)
_CHUNK = 1 << 20


def write_shards(
    splits: Mapping[str, Split],
    folder: Path,
    *,
    samples: int = 10_000,
    max_bytes: int = 1_000_000_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Facts]:
    """Write every split as `NAME-000000.tar` and so on, each with its index, labels.csv and a summary, shards.json.

    Read back, the records are the same in the same order, and so is the data's fingerprint: a run may be resumed on
    shards that was started without. Pictures are copied as they are; nothing is decoded, and nothing is mixed, for
    whoever reads shards here finds any sample of any shard.

    Args:
        splits: by name, all with the same labels.
        folder: where they go, all at once; it is not there yet, or empty.
        samples: at most so many in one shard.
        max_bytes: at most so many in one shard, unless a single sample needs more.
        progress: called with the records written so far and with their total.

    Returns:
        For each split the shards and what is in them.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
        DataError: a picture cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is there already; shards are not mixed with other files: choose a new folder")
    total, done = sum(len(split.records) for split in splits.values()), 0
    written: dict[str, Facts] = {}
    with atomic_folder(folder) as new, contextlib.ExitStack() as streams:
        for name, split in splits.items():
            shards: Facts = {}
            shard: _Shard | None = None
            for number, record in enumerate(split.records):
                sample = b"".join(_members(f"{number:09d}", record, split.labels))
                if shard is None or shard.records == samples or shard.size + len(sample) > max_bytes:
                    if shard is not None:
                        shards[shard.path.name] = shard.close()
                    shard = _Shard(new / f"{name}-{len(shards):06d}.tar", streams)
                shard.add(sample)
                done += 1
                progress(done, total)
            if shard is not None:
                shards[shard.path.name] = shard.close()
            written[name] = shards
        index_shards(new)
        labels = next(iter(splits.values())).labels
        (new / "labels.csv").write_text(_labels_csv(labels), encoding="utf-8", newline="")
        # Last, so that where it is, all that it lists is.
        summary = {"schema_version": SCHEMA_VERSION, "data_fingerprint": fingerprint(splits), "splits": written}
        (new / SUMMARY_NAME).write_text(json.dumps(summary, indent=1) + "\n", encoding="ascii")
    return written


def index_shards(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write the index of every shard in a folder, whoever wrote the shard.

    Returns:
        How many shards there are.

    Raises:
        DataError: there is none, or one cannot be read.
        OutputError: an index cannot be written.
    """
    shards = sorted(path for path in folder.iterdir() if is_shards(path.name))
    if not shards:
        raise DataError(f"{folder}: found no shard; expected tar files, such as train-000000.tar")
    for done, shard in enumerate(shards, start=1):
        write_bytes(index_of(shard), index_bytes(shard, read_rows(shard)))
        progress(done, len(shards))
    return len(shards)


def verify_shards(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Compare every byte of the shards in a folder with what shards.json says, and their indices with themselves.

    Returns:
        How many shards there are.

    Raises:
        DataError: one is missing or differs, an index does, or there is no shards.json.
    """
    listed = read_summary(folder / SUMMARY_NAME)
    for done, (name, facts) in enumerate(listed.items(), start=1):
        digest = hashlib.sha256()
        try:
            with (folder / name).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {reason(error)}; copy it again") from None
        if digest.hexdigest() != facts["sha256"]:
            raise DataError(f"{folder / name}: its sha256 is not the one in {SUMMARY_NAME}; copy it again")
        index = index_of(folder / name)
        if index.exists() and index.read_bytes() != index_bytes(folder / name, read_rows(folder / name)):
            raise DataError(f"{index}: it is not of its shard; write it anew with mlic-shards --index")
        progress(done, len(listed))
    return len(listed)


class _Shard:
    """A tar file that is being written."""

    def __init__(self, path: Path, streams: contextlib.ExitStack) -> None:
        self.path = path
        self.records = 0
        self.size = len(_END)
        self._stream = streams.enter_context(path.open("xb"))
        self._digest = hashlib.sha256()

    def add(self, sample: bytes) -> None:
        """Append the members of one sample."""
        self._write(sample)
        self.records += 1
        self.size += len(sample)

    def close(self) -> dict[str, int | str]:
        """End the archive; what is to be noted about it."""
        self._write(_END)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return {"records": self.records, "bytes": self.size, "sha256": self._digest.hexdigest()}

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._digest.update(content)


def _members(key: str, record: Record, labels: LabelSet) -> Iterator[bytes]:
    """The members of one sample: its picture, what is known about it, and its caption if there is just one."""
    known: dict[str, Any] = {}
    if record.image is not None:
        suffix = PurePosixPath(record.image.name).suffix.lower()
        try:
            content = record.image.read_bytes()
        except OSError as error:
            where = f"{record.file}:record {record.number}"
            raise DataError(f"{where}: the picture {record.image} cannot be read: {reason(error)}") from None
        yield _member(key + (suffix if suffix in PICTURE_SUFFIXES else UNKNOWN_PICTURE), content)
        known["image"] = record.image_id
    if len(record.captions) > 1:
        known["captions"] = record.captions
    known["labels"] = None if record.labels is None else [labels.names[index] for index in record.labels]
    yield _member(f"{key}.json", json.dumps(known, ensure_ascii=False).encode())
    if len(record.captions) == 1:
        yield _member(f"{key}.txt", record.captions[0].encode())


def _member(name: str, content: bytes) -> bytes:
    """Header, content and padding; the time is 0 and the owner root, so that equal data gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def _labels_csv(labels: LabelSet) -> str:
    text = StringIO(newline="")
    writer(text, lineterminator="\n").writerows([("LabelID", "Name"), *zip(labels.ids, labels.names, strict=True)])
    return text.getvalue()
