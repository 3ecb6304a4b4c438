import os
import random
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.source import archive
from mlic_runtime.annotations.source.archive import Archive, unpack
from mlic_runtime.errors import OutputError
from mlic_train.cli.train import train
from mlic_train.config import DataOptions
from mlic_train.data import find_splits, read_labels, read_split
from mlic_train.data.splits import check_data, load_splits
from mlic_train.errors import DataError

Draw = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mlic" / "data"


@pytest.fixture
def pets(tmp_path: Path, draw: Draw) -> Path:
    """A zip file with class folders, as macOS makes it: one folder around them, and its own files."""
    file = tmp_path / "my pets.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for seed, name in enumerate(("train/dog/1.jpg", "train/cat/1.jpg", "val/dog/2.jpg")):
            packed.write(draw(tmp_path / "pictures" / name, seed), f"pets/{name}")
            packed.writestr(f"__MACOSX/pets/{name.replace('/1', '/._1')}", b"x")
        packed.writestr("pets/.DS_Store", b"x")
        packed.writestr("pets/empty/", b"")
    return file


def make(file: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return file


def test_a_zip_file_is_a_data_set(pets: Path, cache: Path) -> None:
    found = find_splits(pets)
    (folder,) = [each for each in cache.iterdir() if each.is_dir()]
    assert folder.name.startswith("my_pets-")
    assert found.train == (folder / "pets" / "train",)
    assert found.val == (folder / "pets" / "val",)
    assert found.notes[0].startswith(f"{pets}: unpacked to {folder} (3 files, 0.0 MB)")
    assert found.notes[1:] == (f"{pets}: found the data in its folder pets",)
    assert found.archive == Archive(pets, folder)
    records = read_split(found.train, read_labels(found.train)).records
    assert [(r.image_id, r.labels) for r in records] == [("cat/1.jpg", (0,)), ("dog/1.jpg", (1,))]


def test_it_is_unpacked_once_and_again_where_files_are_gone(pets: Path, cache: Path) -> None:
    folder, _ = unpack(pets)
    picture = folder / "pets" / "train" / "dog" / "1.jpg"
    first = picture.stat()
    again, note = unpack(pets)
    assert (again, os.path.samestat(picture.stat(), first)) == (folder, True)
    assert "where it was unpacked before (3 files" in note
    content = picture.read_bytes()
    picture.write_bytes(b"")
    assert unpack(pets)[0] == folder
    assert picture.read_bytes() == content
    make(pets, ("a.txt", b"other"))
    assert unpack(pets)[0] != folder


def test_the_check_says_where_it_went(pets: Path) -> None:
    result = CliRunner().invoke(train, ["--data", str(pets), "--check"])
    assert result.exit_code == 0, result.output
    assert "unpacking 3 files" in result.output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../a.jpg", "leads out of a folder"),
        ("/etc/passwd", "leads out of a folder"),
        ("a/../../b.jpg", "leads out of a folder"),
        ("..\\a.jpg", "leads out of a folder"),
        ("C:\\a.jpg", "leads out of a folder"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, cache: Path, name: str, expected: str) -> None:
    file = make(tmp_path / "a.zip", ("fine.jpg", b"x"), (name, b"x"))
    with pytest.raises(DataError, match=expected):
        unpack(file)
    assert not cache.exists() or not list(cache.iterdir())


def test_links_and_other_kinds_are_refused(tmp_path: Path) -> None:
    for kind, expected in ((stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "no regular file")):
        info = zipfile.ZipInfo("a.jpg")
        info.create_system, info.external_attr = 3, (kind | 0o644) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            packed.writestr(info, "/etc/passwd")
        with pytest.raises(DataError, match=expected):
            unpack(tmp_path / "a.zip")


def test_an_encrypted_file_is_one_line(pets: Path) -> None:
    content = bytearray(pets.read_bytes())
    start = 0
    while (start := content.find(b"PK\1\2", start)) >= 0:
        content[start + 8] |= 1
        start += 1
    pets.write_bytes(content)
    with pytest.raises(DataError, match=r"is encrypted; unpack it yourself, and give the folder"):
        find_splits(pets)


def test_a_bomb_is_refused_before_anything_is_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    file = make(tmp_path / "a.zip", ("a.jpg", bytes(10_000_000)))
    with pytest.raises(DataError, match=r"would become 10\.0 MB; expected at most 100 times as much"):
        unpack(file)
    monkeypatch.setattr(archive, "MAX_UNPACKED_MEMBERS", 1)
    with pytest.raises(DataError, match="found 2 members; expected at most 1"):
        unpack(make(tmp_path / "b.zip", ("a", b""), ("b", b"")))
    assert not cache.exists()


def test_a_size_that_lies_is_found(tmp_path: Path, cache: Path) -> None:
    file = make(tmp_path / "a.zip", ("a.jpg", b"x" * 100_000))
    content = bytearray(file.read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = content.index(signature) + offset
        content[start : start + 4] = (50).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a zip file that can be read"):
        unpack(file)
    assert not [each for each in cache.iterdir() if each.is_dir()]


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found the member 'a/b\.jpg' twice"):
        unpack(make(tmp_path / "a.zip", ("a/b.jpg", b"1"), ("a\\b.jpg", b"2")))


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        unpack(make(tmp_path / "a.zip", ("a", b"1"), ("a/b.jpg", b"2")))
    with pytest.raises(OutputError, match="cannot write"):
        unpack(make(tmp_path / "b.zip", ("n" * 300, b"1")))
    assert not [each for each in cache.iterdir() if each.is_dir()]


def test_names_in_utf8_without_the_flag_are_read(tmp_path: Path) -> None:
    file = make(tmp_path / "a.zip", ("XXXXXXXX/1.jpg", b"1"), ("YYYY.jpg", b"2"))
    content = file.read_bytes().replace(b"XXXXXXXX", "Hündin!".encode()).replace(b"YYYY", b"\x81\x82\xff\xfe")
    file.write_bytes(content)
    folder, note = unpack(file)
    assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*.jpg")) == ["Hündin!/1.jpg", "üé\xa0■.jpg"]
    assert "the encoding of 1 names is not known, they were taken for CP437" in note


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip file", bytes(1000)])
def test_other_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    result = CliRunner().invoke(train, ["--data", str(tmp_path / "a.zip"), "--check"])
    assert result.exit_code == 1
    assert "not a zip file that can be read" in result.output
    assert len(result.output.splitlines()) == 1


def test_an_empty_zip_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no file in it"):
        unpack(make(tmp_path / "a.zip", ("__MACOSX/a.jpg", b"x")))


def test_random_damage_is_found_or_harmless(pets: Path) -> None:
    original, rng = pets.read_bytes(), random.Random(0)
    folder, _ = unpack(pets)
    good = {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    for _ in range(60):
        content = bytearray(original)
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        pets.write_bytes(content)
        try:
            other, _ = unpack(pets)
        except (DataError, OutputError):
            continue
        for each in other.rglob("*"):  # names have no checksum, contents have
            assert each.is_dir() or each.read_bytes() in good.values()


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, cache: Path, room: Callable[[int], AbstractContextManager[None]]
) -> None:
    file = make(tmp_path / "a.zip", ("a.jpg", os.urandom(300_000)))
    with room(100_000), pytest.raises(OutputError, match="cannot write"):
        unpack(file)
    assert not [each for each in cache.iterdir() if each.is_dir()]
    assert (unpack(file)[0] / "a.jpg").stat().st_size == 300_000


def test_too_little_room_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(tmp_path / "a.zip", ("a.jpg", b"x" * 1000))
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: archive.shutil._ntuple_diskusage(10, 5, 5))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match=r"make room, set XDG_CACHE_HOME to another place, or unpack it yourself"):
        unpack(file)


def test_without_a_home_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match="set XDG_CACHE_HOME"):
        unpack(make(tmp_path / "a.zip", ("a.jpg", b"x")))


def test_a_killed_process_leaves_no_folder_that_is_used(tmp_path: Path, cache: Path) -> None:
    file = make(tmp_path / "a.zip", *((f"{number}.jpg", os.urandom(1000)) for number in range(50)))
    code = (
        "import os, sys; from pathlib import Path; from mlic_runtime.annotations.source import archive\n"
        "extract = archive._extract\n"
        "def stop(opened, each, folder):\n"
        "    extract(opened, each, folder)\n"
        "    if each.path.name == '30.jpg': os.kill(os.getpid(), 9)\n"
        "archive._extract = stop; archive.unpack(Path(sys.argv[1]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    folder, note = unpack(file)
    assert "unpacked to" in note
    assert len(list(folder.iterdir())) == 50
    assert [each.name for each in cache.iterdir() if each.is_dir()] == [folder.name]


def test_several_processes_unpack_it_once(pets: Path, cache: Path) -> None:
    code = "import sys; from pathlib import Path; from mlic_runtime.annotations.source.archive import unpack\n"
    code += "print(unpack(Path(sys.argv[1]))[1])"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(pets)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    notes = [each.communicate()[0] for each in started]
    assert sum("unpacked to" in note for note in notes) == 1, notes
    assert sum("unpacked before" in note for note in notes) == 2, notes


def test_what_is_said_names_the_zip_file_and_not_where_it_was_unpacked(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "data.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows.csv", "Caption,Labels\n" + "a dog,dog\na cat,cat\n" * 20 + ",cat\n")
    check = check_data(DataOptions(folder=file, pictures=False))
    assert list(check.read_as) == [str(file / "rows.csv")]
    examples = [example for problem in check.problems for example in problem.examples]
    assert examples
    assert all(example.startswith(f"{Path('data.zip', 'rows.csv')}:") for example in examples)


def test_problems_and_errors_name_the_zip_file_too(tmp_path: Path, draw: Draw) -> None:
    file = tmp_path / "data.zip"
    with zipfile.ZipFile(file, "w") as packed:
        for seed in range(8):
            packed.write(draw(tmp_path / f"{seed}.jpg", seed), f"images/{seed}.jpg")
        rows = "".join(f"{seed}.jpg,{'dog' if seed % 2 else 'cat'}\n" for seed in range(8))
        packed.writestr("rows.csv", f"image,labels\n{rows}gone.jpg,cat\n0.jpg,\n")
    gone = f"{file}/rows.csv:record 9: missing-picture: no picture at {file}/images/gone.jpg"
    with pytest.raises(DataError, match=re.escape(gone)):
        load_splits(DataOptions(file))
    lines = load_splits(DataOptions(file, skip_bad_rows=True)).lines()
    assert any(f"skipped: 1 x missing-picture: {file}/rows.csv:record 9:" in line for line in lines)
    (problem,) = [each for each in check_data(DataOptions(file)).problems if each.kind == "missing-picture"]
    assert "data.zip/rows.csv:record 9: no picture at data.zip/images/gone.jpg" in problem.examples[0]
    assert str(tmp_path / "cache") not in "\n".join((*lines, *problem.examples))
