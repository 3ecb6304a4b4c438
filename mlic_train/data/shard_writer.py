"""Splits of any format as shards: tar files in webdataset's form, the same bytes for the same data."""

import csv
import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from mlic_runtime.annotations.formats.shard_index import index_bytes, index_of
from mlic_runtime.annotations.formats.shards import (
    SCHEMA_VERSION,
    SUMMARY_NAME,
    UNKNOWN_PICTURE,
    read_rows,
    read_summary,
)
from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.source.addresses import is_shards
from mlic_runtime.annotations.source.tar import BLOCK
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.output_files import atomic_folder, write_bytes
from mlic_runtime.errors import OutputError
from mlic_runtime.picture.signatures import PICTURE_SUFFIXES
from mlic_train.errors import DataError

from .records import Record, Split
from .summary import fingerprint

Facts: TypeAlias = dict[str, dict[str, int | str]]
"""{"train-000000.tar": {"records": ..., "bytes": ..., "sha256": ...}, ...}"""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of items that are done, and with their total."""

_END = bytes(2 * BLOCK)
_CHUNK = 1 << 20


def write_shards(
    splits: Mapping[str, Split],
    folder: Path,
    *,
    samples: int = 10_000,
    max_bytes: int = 1_000_000_000,
    progress: Progress = lambda done, total: None,
) -> dict[str, Facts]:
    """Write every split as `NAME-000000.tar` and so on, each with its index, labels.csv and a summary, shards.json.

    Read back, the records are the same in the same order, and so is the data's fingerprint: a run that started without
    shards may be resumed on them. Pictures are copied as they are. Nothing is decoded, and nothing is shuffled, because
    any sample of any shard can be read alone.

    Args:
        splits: by name, all with the same labels.
        folder: where they go, all at once; it is not there yet, or empty.
        samples: the most samples in one shard.
        max_bytes: the most bytes of one shard, unless a single sample needs more.
        progress: called with the records written so far and with their total.

    Returns:
        For each split the shards and what is in them.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
        DataError: a picture cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is there already; shards are not mixed with other files: choose a new folder")
    total = sum(len(split.records) for split in splits.values())
    done = itertools.count(1)
    written: dict[str, Facts] = {}
    with atomic_folder(folder) as new:
        for name, split in splits.items():
            numbered = _number_shards(_samples(split), samples, max_bytes)
            written[name] = {}
            for number, group in itertools.groupby(numbered, key=itemgetter(0)):
                shard = new / f"{name}-{number:06d}.tar"
                written[name][shard.name] = _write_shard(shard, group, lambda: progress(next(done), total))
        index_shards(new)
        labels = next(iter(splits.values())).labels
        (new / "labels.csv").write_text(_labels_csv(labels), encoding="utf-8", newline="")
        # Last, so that where it is, all that it lists is.
        summary = {"schema_version": SCHEMA_VERSION, "data_fingerprint": fingerprint(splits), "splits": written}
        (new / SUMMARY_NAME).write_text(json.dumps(summary, indent=1) + "\n", encoding="ascii")
    return written


def index_shards(folder: Path, progress: Progress = lambda done, total: None) -> int:
    """Write the index of every shard in a folder, also of shards that another program wrote.

    Returns:
        The number of shards.

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


def verify_shards(folder: Path, progress: Progress = lambda done, total: None) -> int:
    """Compare every byte of the shards in a folder with shards.json, and their indices with the shards.

    Returns:
        The number of shards.

    Raises:
        DataError: a shard or an index is missing or differs, or there is no shards.json.
    """
    listed = read_summary(folder / SUMMARY_NAME)
    for done, (name, facts) in enumerate(listed.items(), start=1):
        digest = hashlib.sha256()
        try:
            with (folder / name).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {os_error_reason(error)}; copy it again") from None
        if digest.hexdigest() != facts["sha256"]:
            raise DataError(f"{folder / name}: its sha256 is not the one in {SUMMARY_NAME}; copy it again")
        index = index_of(folder / name)
        if index.exists() and index.read_bytes() != index_bytes(folder / name, read_rows(folder / name)):
            raise DataError(f"{index}: it is of another shard; write it anew with mlic-shards --index")
        progress(done, len(listed))
    return len(listed)


def _samples(split: Split) -> Iterator[bytes]:
    for number, record in enumerate(split.records):
        yield b"".join(_members(f"{number:09d}", record, split.labels))


def _number_shards(samples: Iterable[bytes], most: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield each sample with the number of the shard that it belongs to."""
    shard, records, size = 0, 0, len(_END)
    for sample in samples:
        if records and (records == most or size + len(sample) > max_bytes):
            shard, records, size = shard + 1, 0, len(_END)
        records, size = records + 1, size + len(sample)
        yield shard, sample


def _write_shard(
    path: Path, samples: Iterable[tuple[int, bytes]], progress: Callable[[], None]
) -> dict[str, int | str]:
    """Write one tar file; return what shards.json says of it."""
    records = 0
    digest = hashlib.sha256()
    with path.open("xb") as stream:

        def write(content: bytes) -> None:
            stream.write(content)
            digest.update(content)

        for _, sample in samples:
            write(sample)
            records += 1
            progress()
        write(_END)
        stream.flush()
        os.fsync(stream.fileno())
        return {"records": records, "bytes": stream.tell(), "sha256": digest.hexdigest()}


def _members(key: str, record: Record, labels: LabelSet) -> Iterator[bytes]:
    """Yield the members of one sample: its picture, its JSON, and its caption if there is just one."""
    known: dict[str, Any] = {}
    if record.image is not None:
        suffix = PurePosixPath(record.image.name).suffix.lower()
        try:
            content = record.image.read_bytes()
        except OSError as error:
            where = f"{record.file}:record {record.number}"
            raise DataError(f"{where}: the picture {record.image} cannot be read: {os_error_reason(error)}") from None
        yield _member(key + (suffix if suffix in PICTURE_SUFFIXES else UNKNOWN_PICTURE), content)
        known["image"] = record.image_id
    if len(record.captions) > 1:
        known["captions"] = record.captions
    known["labels"] = None if record.labels is None else [labels.names[index] for index in record.labels]
    if record.unknown:
        known["unknown"] = [labels.names[index] for index in record.unknown]
    yield _member(f"{key}.json", json.dumps(known, ensure_ascii=False).encode())
    if len(record.captions) == 1:
        yield _member(f"{key}.txt", record.captions[0].encode())


def _member(name: str, content: bytes) -> bytes:
    """Return header, content and padding; the time is 0 and the owner root, so that equal data gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def _labels_csv(labels: LabelSet) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("LabelID", "Name"), *zip(labels.ids, labels.names, strict=True)])
    return text.getvalue()
