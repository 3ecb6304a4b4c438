"""Shards that are damaged, incomplete, or made to do harm: one line says what is wrong, and nothing is unpacked."""

import contextlib
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlic_runtime.annotations.source.tar import BLOCK, Entry, TarError, entries
from mlic_train.config import DataOptions
from mlic_train.data import LabelSet, find_splits
from mlic_train.data.reader import read_split
from mlic_train.data.shard_writer import write_shards
from mlic_train.data.splits import read_splits
from mlic_train.errors import DataError

LABELS = LabelSet(("dog",), ("1",))


def archive(*members: tarfile.TarInfo | str, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar file; a name stands for a caption of that name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as file:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = 5 if info.isreg() else 0
            file.addfile(info, io.BytesIO(b"A dog"))
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def block(name: str, size: str, kind: bytes = b"0", content: bytes = b"") -> bytes:
    """A header with that size field, and what follows it."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157], header[148:156] = size.encode().ljust(12, b"\0"), kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % BLOCK)


GOOD = archive("a.txt", "b.txt")
PAX = tarfile.PAX_FORMAT
HOSTILE = {
    "empty": (b"", "ends at byte 0 without a tar file's end mark: it is truncated or empty"),
    "text": (b"no tar file".ljust(600), "found no tar header at byte 0: it is no tar file"),
    "short": (b"no tar file", "found no tar header at byte 0: it is truncated"),
    "compressed": (gzip.compress(os.urandom(2000)), "it is compressed; expected a plain tar file"),
    "joined": (GOOD + GOOD, "found more after the end mark at byte 2048; expected one tar file, not several joined"),
    "padded": (GOOD + bytes(2 << 20), "found more after the end mark"),
    "above": (archive("../a.txt"), "the member '../a.txt' has a name that leads out of a folder"),
    "below and above": (archive("x/../../a.txt"), "has a name that leads out"),
    "absolute": (archive("/etc/a.txt"), "has a name that leads out"),
    "drive": (archive("C:/a.txt"), "has a name that leads out"),
    "backslashes": (archive("..\\a.txt"), "has a name that leads out"),
    "above by a long name": (archive("../" + "a" * 200 + ".txt", kind=tarfile.GNU_FORMAT), "has a name that leads out"),
    "above by an extension": (archive("../" + "ä" * 120 + ".txt", kind=PAX), "has a name that leads out"),
    "symbolic link": (archive(special("a.txt", tarfile.SYMTYPE, "/etc/passwd")), "'a.txt' is a symbolic link"),
    "hard link": (archive(special("a.txt", tarfile.LNKTYPE, "b.txt")), "'a.txt' is a hard link; expected only files"),
    "device": (archive(special("a.txt", tarfile.CHRTYPE)), "'a.txt' is a device"),
    "disk": (archive(special("a.txt", tarfile.BLKTYPE)), "'a.txt' is a device"),
    "fifo": (archive(special("a.txt", tarfile.FIFOTYPE)), "'a.txt' is a FIFO"),
    "unknown": (archive(special("a.txt", b"Z")), "'a.txt' is of the type b'Z'"),
    "long link": (archive(special("a.txt", tarfile.SYMTYPE, "x" * 300), kind=tarfile.GNU_FORMAT), "is a link"),
    "sparse": (block("a.txt", "0", b"S") + GOOD, "'a.txt' is a sparse file"),
    "large": (
        block("a.txt", "77777777777") + GOOD,
        "the member 'a.txt' has 8589934591 bytes, but only 10240 follow",
    ),
    "negative": (block("a.txt", "-1") + GOOD, "found no tar header at byte 0"),
    "other number": (block("a.txt", "x") + GOOD, "found no tar header at byte 0"),
    "long extension": (block("a", "1000000", b"x") + bytes(1 << 20), "extends the next by 262144 bytes"),
    "broken extension": (block("a", "10", b"x", b"0 path=a"), "an extended header is damaged"),
    "endless extension": (block("a", "10", b"x", b"99999999 path=a\n"), "an extended header is damaged"),
    "size by extension": (block("a", "17", b"x", b"15 size=999999\n"), "an extended header gives a size"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_shard_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError) as error:
        read_split([tmp_path / "x.tar"], LABELS, skip_bad_rows=True, allow_empty=True)
    assert str(error.value).startswith(f"{tmp_path / 'x.tar'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar"]


def test_a_fifo_and_a_missing_shard_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(DataError, match="cannot be read: it is not a regular file; expected a shard"):
        read_splits(DataOptions(tmp_path / "x.tar"))
    with pytest.raises(DataError, match="cannot be read: there is no such file or folder; expected a shard"):
        read_splits(DataOptions(tmp_path / "y.tar"))


def scan(content: bytes) -> list[Entry]:
    return list(entries(io.BytesIO(content)))


def test_a_shard_cut_off_anywhere_is_refused() -> None:
    end = GOOD.rstrip(b"\0")
    last = len(end) + -len(end) % BLOCK  # the end mark is two blocks; one will do
    assert scan(GOOD[: last + BLOCK]) == scan(GOOD) == [Entry("a.txt", 512, 5), Entry("b.txt", 1536, 5)]
    for length in range(last + BLOCK):
        with pytest.raises(TarError):
            scan(GOOD[:length])


def test_no_flipped_bit_of_a_header_goes_unnoticed() -> None:
    """But for three in the field of the checksum, where a space is as good as a leading 0 or an end."""
    whole, unnoticed = scan(GOOD), 0
    for bit in range(8 * BLOCK):
        content = bytearray(GOOD)
        content[bit // 8] ^= 1 << bit % 8
        try:
            assert scan(bytes(content)) == whole
            unnoticed += 1
        except TarError:
            pass
    assert unnoticed <= 3


@pytest.mark.parametrize("seed", range(4))
def test_damage_of_any_kind_is_a_data_error_or_a_bad_row(seed: int, tmp_path: Path) -> None:
    long = (
        archive("ä" * 150 + ".txt", "b.json", "c.cls", kind=PAX),
        archive("a" * 150 + ".txt", kind=tarfile.GNU_FORMAT),
    )
    rng = np.random.default_rng(seed)
    file = tmp_path / "x.tar"
    for _ in range(150):
        content = bytearray((GOOD, *long)[rng.integers(3)][:4096])
        for _ in range(rng.integers(1, 6)):
            start, size, new = (int(value) for value in rng.integers(0, (len(content), 20, 20)))
            content[start : start + size] = rng.bytes(new)
        fixed = rng.random() < 0.7
        for head in range(0, len(content) - BLOCK, BLOCK) if fixed else ():  # else nothing gets past the checksum
            if content[head + 257 : head + 262] == b"ustar":
                content[head + 148 : head + 156] = b" " * 8
                content[head + 148 : head + 156] = b"%06o\0 " % sum(content[head : head + BLOCK])
        file.write_bytes(content)
        with contextlib.suppress(DataError):
            read_split([file], LABELS, skip_bad_rows=True, allow_empty=True)


@pytest.fixture
def written(colours: Path, tmp_path: Path) -> Path:
    write_shards(read_splits(DataOptions(colours)), tmp_path / "shards", samples=20)
    return tmp_path / "shards"


def cut(folder: Path) -> None:
    content = (folder / "train-000001.tar").read_bytes()
    (folder / "train-000001.tar").write_bytes(content[:-BLOCK])


def foreign(folder: Path) -> None:
    shutil.copy(folder / "train-000001.tar", folder / "train-000003.tar")


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        summary = json.loads((folder / "shards.json").read_text())
        change(summary)
        (folder / "shards.json").write_text(json.dumps(summary))

    return apply


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda folder: (folder / "train-000001.tar").unlink(),
            r"train-000001.tar: there is no such file or folder, but .* lists it",
        ),
        (cut, r"train-000001.tar: found \d+ bytes, .*shards.json says \d+; copy it again"),
        (foreign, r"train-000003.tar: .*shards.json does not list it"),
        (edit(lambda summary: summary.update(schema_version=2)), "found schema_version 2; expected 1"),
        (edit(lambda summary: summary.pop("splits")), r"cannot be read \(KeyError: 'splits'\)"),
        (edit(lambda summary: summary.update(splits=[])), r"cannot be read \(AttributeError"),
        (edit(lambda summary: summary.update(splits={"train": {"x": {}}})), r"cannot be read \(KeyError: 'bytes'\)"),
        (lambda folder: (folder / "shards.json").write_bytes(b"\xff"), r"cannot be read \(UnicodeDecodeError"),
        (lambda folder: (folder / "train.csv").touch(), r"found train.csv, train-000000.tar for the split 'train'"),
    ],
)
def test_a_set_of_shards_that_is_not_whole_is_refused(
    harm: Callable[[Path], object], message: str, written: Path
) -> None:
    assert len(find_splits(written).train) == 3
    harm(written)
    with pytest.raises(DataError, match=message) as error:
        find_splits(written)
    assert "\n" not in str(error.value)


def test_a_part_of_the_shards_may_be_named(written: Path) -> None:
    (written / "train-000002.tar").unlink()
    assert len(find_splits(written / "train-{000000..000001}.tar").train) == 2
    cut(written)
    with pytest.raises(DataError, match=r"train-000001.tar: found \d+ bytes"):
        find_splits(written / "train-{000000..000001}.tar")
