"""Archives of the kinds that have fooled readers of zip files; test_archive.py has the fields one by one."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_runtime.errors import PackageError
from mlic_runtime.package import model_package as package
from mlic_runtime.package.model_package import load_package

END = struct.Struct("<4s4H2LH")
REGULAR = 0o100644 << 16


@pytest.fixture(autouse=True)
def _unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(text: bytes) -> None:
        raise AssertionError("manifest.json was parsed")

    monkeypatch.setattr(package, "parse_manifest", parse)


def local(name: bytes, data: bytes, size: int, method: int = 0, flags: int = 0, extra: bytes = b"") -> bytes:
    crc = zlib.crc32(data)
    header = struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 33, crc, len(data), size, len(name), len(extra))
    return header + name + extra


def central(
    name: bytes, data: bytes, size: int, offset: int, method: int = 0, flags: int = 0, extra: bytes = b""
) -> bytes:
    fields = (3 << 8 | 20, 20, flags, method, 0, 33, zlib.crc32(data), len(data), size)
    rest = (len(name), len(extra), 0, 0, 0, REGULAR, offset)
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields, *rest) + name + extra


def end(directory: bytes, start: int, count: int) -> bytes:
    return END.pack(b"PK\5\6", 0, 0, count, count, len(directory), start, 0)


def archive(*members: "tuple[bytes, bytes]") -> bytes:
    """One right behind the other, as it should be."""
    body = directory = b""
    for name, data in members:
        directory += central(name, data, len(data), len(body))
        body += local(name, data, len(data)) + data
    return body + directory + end(directory, len(body), len(members))


def overlapping() -> bytes:
    """Two members share their data: with many of them a small file holds petabytes (Fifield, 2019)."""
    data = b"{}"
    first, second = local(b"a", data, 2), local(b"b", data, 2)
    body = first + second + data
    directory = central(b"a", second + data, len(second) + 2, 0) + central(b"b", data, 2, len(first))
    return body + directory + end(directory, len(body), 2)


def one_header_for_two() -> bytes:
    body = local(b"a", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 0) * 2
    return body + directory + end(directory, len(body), 2)


def gap() -> bytes:
    """Bytes between two members, where something else can lie that another reader finds."""
    first = local(b"a", b"{}", 2) + b"{}" + b"hidden"
    body = first + local(b"b", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 0) + central(b"b", b"{}", 2, len(first))
    return body + directory + end(directory, len(body), 2)


def backwards() -> bytes:
    first, second = local(b"a", b"{}", 2) + b"{}", local(b"b", b"{}", 2) + b"{}"
    directory = central(b"b", b"{}", 2, len(first)) + central(b"a", b"{}", 2, 0)
    return first + second + directory + end(directory, len(first + second), 2)


def two_archives() -> bytes:
    """Readers that search for the first end record, or the last, would not agree what is in it."""
    return archive((b"manifest.json", b"{}")) + archive((b"manifest.json", b"[]"))


def directory_before_the_members() -> bytes:
    body = local(b"a", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 46 + 1)
    return directory + body + end(directory, 0, 1)


def zip64() -> bytes:
    """As `zipfile` writes a member whose size it does not know before."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target, target.open("manifest.json", "w", force_zip64=True) as member:
        member.write(b"{}")
    return stream.getvalue()


def zip64_sizes() -> bytes:
    """Sizes of 2**32 - 1, for "see the extra field", which says otherwise."""
    extra = struct.pack("<2H2Q", 1, 16, 2, 2)
    body = local(b"a", b"{}", 0xFFFFFFFF, extra=extra) + b"{}"
    directory = central(b"a", b"{}", 0xFFFFFFFF, 0, extra=extra)
    return body + directory + end(directory, len(body), 1)


def zip64_end() -> bytes:
    """A second end record with 64 bits, which counts for those who look for it."""
    body = local(b"a", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 0)
    start = len(body) + len(directory)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**40, 2**40, 2**50, 2**50)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start, 1)
    return body + directory + record + locator + end(directory, len(body), 1)


def counts_that_mean_zip64() -> bytes:
    body = local(b"a", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 0)
    return body + directory + END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def sizes_behind_the_data() -> bytes:
    """Flag 3: the local header has zeros, and a descriptor follows the data."""
    name, data = b"a", b"{}"
    body = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 8, 0, 0, 33, 0, 0, 0, 1, 0) + name + data
    body += struct.pack("<4s3L", b"PK\7\10", zlib.crc32(data), 2, 2)
    directory = central(name, data, 2, 0, flags=8)
    return body + directory + end(directory, len(body), 1)


def another_name_in_the_local_header() -> bytes:
    body = local(b"b", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 0)
    return body + directory + end(directory, len(body), 1)


def unicode_path() -> bytes:
    """An extra field that gives the member another name, for those who read it (0x7075)."""
    extra = struct.pack("<2HBL", 0x7075, 5 + 7, 1, zlib.crc32(b"a")) + b"../evil"
    body = local(b"a", b"{}", 2, extra=extra) + b"{}"
    directory = central(b"a", b"{}", 2, 0, extra=extra)
    return body + directory + end(directory, len(body), 1)


def nul_in_a_name() -> bytes:
    return archive((b"manifest.json\0.txt", b"{}"))


def negative_like_lengths() -> bytes:
    """Lengths whose sum comes out right again where a reader counts in 32 bits."""
    body = local(b"a", b"{}", 2) + b"{}"
    directory = central(b"a", b"{}", 2, 0)
    return body + directory + END.pack(b"PK\5\6", 0, 0, 1, 1, 2**32 - len(body), 2 * len(body) + len(directory), 0)


def nothing_in_it() -> bytes:
    return end(b"", 0, 0)


KINDS = [
    value
    for value in list(globals().values())
    if callable(value) and getattr(value, "__annotations__", {}) == {"return": bytes}
]


def test_an_archive_of_this_making_is_read(tmp_path: Path) -> None:
    """So that those below are refused for what is wrong with them."""
    file = tmp_path / "good.mlic"
    file.write_bytes(archive((b"manifest.json", b"{}"), (b"README.md", b"text")))
    with pytest.raises(AssertionError, match=r"manifest\.json was parsed"):
        load_package(file)


def test_no_kind_is_forgotten() -> None:
    assert len(KINDS) == 16


@pytest.mark.parametrize("make", KINDS)
def test_an_archive_that_readers_may_read_in_two_ways_is_refused(tmp_path: Path, make: Callable[[], bytes]) -> None:
    file = tmp_path / "hostile.mlic"
    file.write_bytes(make())
    with pytest.raises(PackageError, match=r"hostile\.mlic") as caught:
        load_package(file)
    assert str(caught.value).isprintable()
