import contextlib
import os
import random
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlic_runtime.errors import IntegrityError, ManifestError, ModelNotFoundError, PackageError
from mlic_runtime.limits import MAX_ARCHIVE_MEMBERS
from mlic_runtime.package.model_package import find_package, load_package
from mlic_runtime.predict.predictor import Predictor

LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"

Edit = Callable[[dict[str, Any]], object]


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def pack(
    folder: Path, additional: Iterable[tuple[zipfile.ZipInfo, bytes]] = (), method: int = zipfile.ZIP_STORED
) -> Path:
    """A `.mlic` file of the folder, and then what is to be in it as well."""
    file = folder.parent / "packed.mlic"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(member(path.name), path.read_bytes(), method)
        for info, content in additional:
            archive.writestr(info, content)
    return file


def patch(file: Path, signature: bytes, offset: int, format_: str, value: int, number: int = 0) -> None:
    """Set a field `offset` bytes behind the given signature (the one with that number)."""
    data = bytearray(file.read_bytes())
    position = -1
    for _ in range(number + 1):
        position = data.index(signature, position + 1)
    struct.pack_into(format_, data, position + offset, value)
    file.write_bytes(data)


# --- what it is for


def test_one_file_is_as_good_as_the_folder(tiny: Path, tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    package = load_package(file)
    package.verify()
    assert package.path == file
    assert package.manifest == load_package(tiny).manifest
    assert package.read_manifest() == (tiny / "manifest.json").read_bytes()
    for name in package.manifest.files:
        assert package.read(name) == (tiny / name).read_bytes()
    picture = np.full((6, 8, 3), 200, dtype=np.uint8)
    assert Predictor.load(file).predict(picture, "no blue") == Predictor.load(tiny).predict(picture, "no blue")


def test_nothing_is_unpacked(tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    before = sorted(tiny_copy.parent.rglob("*"))
    Predictor.load(file)
    load_package(file).verify()
    assert sorted(tiny_copy.parent.rglob("*")) == before


def test_what_zipfile_writes_without_being_told_anything_can_be_read(tiny: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "text.mlic", "w") as archive:
        for path in tiny.iterdir():
            archive.writestr(path.name, path.read_bytes())
    load_package(tmp_path / "text.mlic").verify()


def test_a_file_is_found_by_path_by_name_in_this_folder_and_by_the_variable(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pack(tiny_copy)
    assert find_package(file) == file
    assert find_package(str(file)) == file
    monkeypatch.setenv("MLIC_MODEL", str(file))
    assert find_package() == file
    monkeypatch.chdir(file.parent)
    assert find_package("packed.mlic") == Path("packed.mlic")
    assert load_package(file.rename(file.with_name("packed.MLIC"))).manifest.name == "tiny"


def test_a_link_to_a_file_is_that_file(tiny_copy: Path) -> None:
    link = tiny_copy.parent / "current.mlic"
    link.symlink_to(pack(tiny_copy))
    load_package(link).verify()


def test_a_folder_may_be_called_so_too(tiny_copy: Path) -> None:
    load_package(tiny_copy.rename(tiny_copy.with_name("folder.mlic"))).verify()


def test_a_file_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no folder or \.mlic file '.*missing\.mlic'"):
        find_package(tmp_path / "missing.mlic")


def test_a_file_that_vanished_is_named(tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    package = load_package(file)
    file.unlink()
    with pytest.raises(PackageError, match=r"cannot read .*packed\.mlic: there is no such file"):
        package.read("README.md")


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mlic")
    with pytest.raises(PackageError, match=r"pipe\.mlic: it is not a regular file"):
        load_package(tmp_path / "pipe.mlic")


# --- damage


def test_every_flipped_byte_is_noticed(tiny_picture_copy: Path) -> None:
    file = pack(tiny_picture_copy)
    data = bytearray(file.read_bytes())
    for position in range(len(data)):
        data[position] ^= 1 << position % 8
        file.write_bytes(data)
        with pytest.raises(PackageError):
            load_package(file).verify()
        data[position] ^= 1 << position % 8


def test_whatever_is_damaged_nothing_but_an_error_of_ours_is_raised(tiny_picture_copy: Path) -> None:
    file = pack(tiny_picture_copy)
    good = file.read_bytes()
    randomness = random.Random(0)
    for _ in range(1000):
        data = bytearray(good)
        for _ in range(randomness.randint(1, 4)):
            # Half of them into the headers behind the data, which are a fourth of the file.
            start = randomness.choice((0, good.index(CENTRAL)))
            data[randomness.randrange(start, len(data))] = randomness.choice((0, 1, 0x7F, 0x80, 0xFF))
        file.write_bytes(data)
        # Two bytes can be wrong and nothing amiss, such as the same time in both headers.
        with contextlib.suppress(PackageError):
            load_package(file).verify()


def test_a_part_of_a_file_is_refused(tiny_picture_copy: Path) -> None:
    file = pack(tiny_picture_copy)
    data = file.read_bytes()
    for length in range(0, len(data), 5):
        file.write_bytes(data[:length])
        with pytest.raises(PackageError, match="does not end as a zip archive"):
            load_package(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"not a zip archive, and long enough to be one", "does not end as a zip archive"),
        (lambda data: data + b"\0", "does not end as a zip archive"),
        (lambda data: b"#!/bin/sh\n" + data, "its end record does not fit the file"),
    ],
)
def test_what_is_not_a_zip_archive_and_nothing_else_is_refused(
    tiny_copy: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    file = pack(tiny_copy)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(PackageError, match=message):
        load_package(file)


def test_another_content_than_the_manifest_records_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "README.md").write_bytes(b"x" * 58)
    with pytest.raises(IntegrityError, match=r"packed\.mlic/README\.md has sha256 \w+, expected"):
        load_package(pack(tiny_copy)).verify()
    (tiny_copy / "README.md").write_bytes(b"x" * 59)
    with pytest.raises(IntegrityError, match=r"packed\.mlic/README\.md has 59 bytes, expected 58"):
        load_package(pack(tiny_copy)).verify()


def test_a_missing_file_is_named(tiny_copy: Path) -> None:
    (tiny_copy / "tokenizer.json").unlink()
    with pytest.raises(IntegrityError, match=r"packed\.mlic/tokenizer\.json: there is no such file"):
        load_package(pack(tiny_copy)).verify()
    (tiny_copy / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"packed\.mlic/manifest\.json: there is no such file"):
        load_package(pack(tiny_copy))


def test_a_manifest_error_names_the_file(tiny_copy: Path, edit_manifest: Callable[[Path, Edit], None]) -> None:
    edit_manifest(tiny_copy, lambda data: data.update(schema_version=2))
    with pytest.raises(ManifestError, match=r"packed\.mlic: manifest.json has schema_version 2"):
        load_package(pack(tiny_copy))


# --- hostile archives, all refused before manifest.json is parsed


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(text: bytes) -> None:
        raise AssertionError("manifest.json was parsed")

    monkeypatch.setattr("mlic_runtime.package.model_package.parse_manifest", parse)


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "..",
        "sub/evil",
        "/etc/evil",
        "C:evil",
        "C:\\evil",
        "a\\evil",
        "folder/",
        ".hidden",
        "ünder",
        "a b",
        "-x",
    ],
)
def test_a_member_that_is_not_a_plain_file_is_refused(tiny_copy: Path, name: str) -> None:
    file = pack(tiny_copy, [(member(name), b"")])
    with pytest.raises(PackageError, match=r"holds '.*', which is not a plain file name: a package has no folders"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
def test_a_symbolic_link_is_refused(tiny_copy: Path) -> None:
    file = pack(tiny_copy, [(member("link", stat.S_IFLNK | 0o777), b"/etc/passwd")])
    with pytest.raises(PackageError, match="'link' is compressed, encrypted, no regular file of mode 0644, or"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize("mode", [stat.S_IFIFO | 0o644, stat.S_IFDIR | 0o755, stat.S_IFREG | 0o4755])
def test_a_member_of_another_kind_is_refused(tiny_copy: Path, mode: int) -> None:
    with pytest.raises(PackageError, match="'odd' is compressed, encrypted, no regular file of mode 0644, or"):
        load_package(pack(tiny_copy, [(member("odd", mode), b"")]))


@pytest.mark.usefixtures("unparsed")
def test_two_members_of_one_name_are_refused(tiny_copy: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = pack(tiny_copy, [(member("manifest.json"), b"{}")])
    with pytest.raises(PackageError, match=r"holds 'manifest\.json' twice"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize("flag", [0x0001, 0x0041, 0x2000])
def test_an_encrypted_member_is_refused(tiny_copy: Path, flag: int) -> None:
    file = pack(tiny_copy)
    patch(file, LOCAL, 6, "<H", flag)
    patch(file, CENTRAL, 8, "<H", flag)
    with pytest.raises(PackageError, match=r"'README\.md' is compressed, encrypted, no regular file"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_is_refused(tiny_copy: Path, method: int) -> None:
    with pytest.raises(PackageError, match=r"'README\.md' is compressed, encrypted, no regular file"):
        load_package(pack(tiny_copy, method=method))


@pytest.mark.usefixtures("unparsed")
def test_too_many_members_are_refused(tiny_copy: Path) -> None:
    file = pack(tiny_copy, [(member(f"m{number}"), b"") for number in range(MAX_ARCHIVE_MEMBERS)])
    with pytest.raises(
        PackageError, match=f"holds {MAX_ARCHIVE_MEMBERS + 5} members, expected at most {MAX_ARCHIVE_MEMBERS}"
    ):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
def test_a_directory_without_end_is_not_read(tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    with file.open("r+b") as stream:
        stream.truncate(2**32)  # a hole: it takes no room on the disk
        stream.seek(0, os.SEEK_END)
        stream.write(struct.pack("<4s4H2LH", END, 0, 0, 5, 5, 2**32 - 1, 1, 0))
    tracemalloc.start()
    with pytest.raises(PackageError, match="holds 4294967295 bytes of directory, expected at most"):
        load_package(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize(
    ("signature", "offset", "format_", "value", "message"),
    [
        (END, 4, "<H", 1, "its end record does not fit the file"),
        (END, 8, "<H", 4, "its end record does not fit the file"),
        (CENTRAL, 4, "<H", 20, "'README.md' is .* or has a damaged header"),
        (CENTRAL, 30, "<H", 4, ""),  # an extra field: it begins where the next header does
        (CENTRAL, 34, "<H", 1, "'README.md' is .* or has a damaged header"),
        (CENTRAL, 36, "<H", 1, "'README.md' is .* or has a damaged header"),
        (CENTRAL, 42, "<L", 30, "'README.md' is .* or has a damaged header"),
        (CENTRAL, 20, "<L", 57, "'README.md' is .* or has a damaged header"),
        (CENTRAL, 24, "<L", 57, "'README.md' is .* or has a damaged header"),
        (CENTRAL, 24, "<L", 2**32 - 1, "'README.md' has 4294967295 bytes, more than the file"),
        (CENTRAL, 16, "<L", 0, "'README.md' is .* or has a damaged header"),
        (LOCAL, 28, "<H", 4, "'README.md' is .* or has a damaged header"),
        (LOCAL, 30, "<B", 0x41, "'README.md' is .* or has a damaged header"),
    ],
)
def test_headers_that_contradict_are_refused(
    tiny_copy: Path, signature: bytes, offset: int, format_: str, value: int, message: str
) -> None:
    file = pack(tiny_copy)
    patch(file, signature, offset, format_, value)
    with pytest.raises(PackageError, match=f"is damaged, or not written by mlic-export --single-file: .*{message}"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
def test_fewer_members_than_the_directory_has_are_refused(tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    patch(file, END, 8, "<L", 4 << 16 | 4)
    with pytest.raises(PackageError, match="do not fill the file as its end record says"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
def test_more_members_than_the_directory_has_are_refused(tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    patch(file, END, 8, "<L", 6 << 16 | 6)
    with pytest.raises(PackageError, match="do not fill the file as its end record says"):
        load_package(file)


@pytest.mark.usefixtures("unparsed")
def test_a_manifest_over_the_limit_is_not_read(tiny_copy: Path) -> None:
    (tiny_copy / "manifest.json").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(ManifestError, match=r"packed\.mlic/manifest\.json is larger than 4194304 bytes"):
        load_package(pack(tiny_copy))


@pytest.mark.usefixtures("unparsed")
def test_a_bomb_is_not_inflated(tiny_copy: Path) -> None:
    (tiny_copy / "README.md").write_bytes(bytes(20_000_000))
    file = pack(tiny_copy, method=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(PackageError, match=r"'README\.md' has 20000000 bytes, more than the file"):
        load_package(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.usefixtures("unparsed")
def test_more_bytes_than_zip_can_count_without_its_64_bit_fields_are_refused(tiny_copy: Path) -> None:
    file = pack(tiny_copy)
    with file.open("r+b") as stream:
        stream.truncate(2**31)  # a hole: it takes no room on the disk
        stream.seek(0, os.SEEK_END)
        stream.write(struct.pack("<4s4H2LH", END, 0, 0, 5, 5, 0, 2**31, 0))
    with pytest.raises(PackageError, match="holds 2147483670 bytes, expected at most 2147483647"):
        load_package(file)


def test_a_member_that_the_manifest_does_not_list_is_refused_at_once(tiny_copy: Path) -> None:
    file = pack(tiny_copy, [(member("notes.txt"), b"")])
    with pytest.raises(IntegrityError, match=r"holds 'notes\.txt', which manifest.json does not list"):
        load_package(file)
