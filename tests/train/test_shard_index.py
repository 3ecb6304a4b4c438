import contextlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner, Result

from mlic_runtime.annotations.formats.format import Row
from mlic_runtime.annotations.formats.shard_index import index_bytes
from mlic_runtime.annotations.formats.shards import find_shards, read_rows, scan_rows
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.members import image_source
from mlic_runtime.errors import ImageError
from mlic_train.cli.shards import shards
from mlic_train.config import DataOptions
from mlic_train.data import fingerprint
from mlic_train.data.shard_writer import write_shards
from mlic_train.data.splits import load_splits
from mlic_train.errors import DataError

FAR = Path("memory://far")
LAST = '\'{"number": 10, '  # the last line of an index, whatever follows
OTHERS = {
    "a.jpg": b"no picture, but read as it is",
    "a.json": b'{"captions": ["One.", " "], "labels": ["dog", 3]}',
    "n/b.png": b"",
    "n/b.cls": b"dog cat",
    "c.txt": "Ein Hund, größer.".encode(),
    "d.txt": b"\xe9t\xe9",
    "e.json": b"[",
    f"{'long' * 60}.png": b"x",
    "a.txt": b"again",
}


@pytest.fixture(scope="module")
def written(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed") / "shards"
    write_shards(load_splits(DataOptions(colours)).named(), folder, samples=10)
    return folder


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A folder with a shard that we did not write, some of it bad."""
    (tmp_path / "others").mkdir()
    with tarfile.open(tmp_path / "others" / "train-0.tar", "w") as archive:
        for name, content in OTHERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return tmp_path / "others"


@pytest.fixture
def upload() -> Iterator[Callable[[Path], None]]:
    """Copies a folder to where only an address leads."""
    files = fsspec.filesystem("memory")

    def copy(folder: Path) -> None:
        for file in folder.iterdir():
            files.pipe(f"/far/{file.name}", file.read_bytes())

    yield copy
    files.rm("/far", recursive=True)


@pytest.fixture
def no_looking_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path) -> None:
        raise AssertionError(f"{file} was looked through")

    monkeypatch.setattr("mlic_runtime.annotations.formats.shards.open_file", refuse)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(shards, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("no_looking_through")
def test_shards_from_far_are_read_by_their_indices(
    written: Path, colours: Path, upload: Callable[[Path], None]
) -> None:
    upload(written)
    here = load_splits(DataOptions(colours))
    for data in (FAR, FAR / "train-{000000..000005}.tar"):
        far = load_splits(DataOptions(data))
        assert fingerprint(far.named()) == fingerprint(here.named())
        assert far.labels == here.labels


def test_an_index_gives_what_looking_through_gives(others: Path, upload: Callable[[Path], None]) -> None:
    assert run("--index", others).stdout == "ok 1 shards\n"
    upload(others)
    rows, far = list(scan_rows(others / "train-0.tar")), list(read_rows(FAR / "train-0.tar"))
    assert sum(isinstance(row, Problem) for row in rows) == 3
    assert len(rows) == 7
    for ours, theirs in zip(far, rows, strict=True):
        assert isinstance(ours, Row) == isinstance(theirs, Row)
        if isinstance(ours, Problem) and isinstance(theirs, Problem):
            assert (ours.number, ours.kind, ours.message) == (theirs.number, theirs.kind, theirs.message)
        if isinstance(ours, Row) and isinstance(theirs, Row):
            told = [(row.number, row.image_id, row.captions, row.labels, row.blank_caption) for row in (ours, theirs)]
            assert told[0] == told[1]
            assert (ours.picture is None) == (theirs.picture is None)
            if ours.picture is not None and theirs.picture is not None:
                assert ours.picture.read_bytes() == theirs.picture.read_bytes()


def test_who_may_not_ask_for_an_index_looks_the_shard_through(
    written: Path, upload: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> bytes:
        raise PermissionError("403")

    upload(written)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refuse)
    assert len(list(read_rows(FAR / "train-000000.tar"))) == 10


def test_an_address_is_taken_by_the_commands(upload: Callable[[Path], None], written: Path, tmp_path: Path) -> None:
    upload(written)
    result = run("--data", "memory://far", "--output", tmp_path / "again", "--samples-per-shard", 10)
    assert result.exit_code == 0, result.output
    assert {file.name: file.read_bytes() for file in written.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()
    }
    nothing = run("--data", "memory://far/deeper", "--output", tmp_path / "nothing")
    assert nothing.stderr == (
        "Error: memory://far/deeper: no training split; expected shards such as train-000000.tar\n"
    )


class EndpointConnectionError(Exception):
    """What libraries below fsspec raise is of their own kinds."""


def test_what_libraries_below_fsspec_raise_is_one_line(
    written: Path, upload: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> bytes:
        raise EndpointConnectionError("no answer\nfrom there")

    upload(written)
    picture = (
        load_splits(DataOptions(FAR / "train-000000.tar", labels_file=written / "labels.csv")).train.records[0].image
    )
    assert picture is not None
    files = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(files, "cat_file", fail)
    said = "EndpointConnectionError: no answer from there"
    with pytest.raises(DataError, match=f"^memory://far/train-000000.tar: cannot be read: {said}; expected a shard"):
        list(read_rows(FAR / "train-000000.tar"))
    with pytest.raises(
        ImageError, match=f"^cannot read picture 'memory://far/train-000000.tar/000000000.png': {said}$"
    ):
        image_source(picture)
    monkeypatch.setattr(files, "find", fail)
    with pytest.raises(DataError, match=f"^memory://far: cannot be listed: {said}$"):
        find_shards(FAR, "train")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda lines: [], "''"),
        (lambda lines: lines[:-1], '\'{"schema_version": 1, '),
        (lambda lines: [{**lines[0], "bytes": 5}, *lines[1:]], '\'{"schema_version": 1, "bytes": 5, '),
        (lambda lines: [{**lines[0], "schema_version": 2}, *lines[1:]], '\'{"schema_version": 2, '),
        (lambda lines: [*lines[:-1], ["x"]], "'[\"x\"]'"),
        (lambda lines: [*lines[:-1], {"number": 1}], "'{\"number\": 1}'"),
        (lambda lines: [*lines[:-1], {"number": 1, "kind": "x", "message": ""}], '\'{"number": 1, "kind": "x", '),
        (lambda lines: [*lines[:-1], {"number": 1, "kind": "bad-row", "message": "a\x1b[31m"}], '\'{"number": 1, '),
        (lambda lines: [*lines[:-1], {**lines[-1], "number": True}], '\'{"number": true, '),
        (lambda lines: [*lines[:-1], {**lines[-1], "captions": "x"}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "captions": [1]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "labels": [1]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "labels": {}}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": ["a.png", 512]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": ["a.png", 0, 1]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": ["a.png", 512, -1]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": ["a.png", 512, 10**15]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": ["a.png", 512.0, 1]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": ["../a.png", 512, 1]}], LAST),
        (lambda lines: [*lines[:-1], {**lines[-1], "picture": [1, 512, 1]}], LAST),
    ],
)
def test_a_damaged_index_is_refused(
    written: Path,
    tmp_path: Path,
    upload: Callable[[Path], None],
    change: Callable[[list[object]], list[object]],
    shown: str,
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    file = folder / "train-000000.tar.index"
    lines = change([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    upload(folder)
    with pytest.raises(DataError) as caught:
        list(read_rows(FAR / "train-000000.tar"))
    assert str(caught.value).startswith(f"memory://far/train-000000.tar.index: found {shown}")
    assert str(caught.value).endswith("; write it anew with mlic-shards --index, or remove it")


def test_bytes_that_are_no_json_are_no_index(written: Path, tmp_path: Path, upload: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    (folder / "train-000000.tar.index").write_bytes(b"\xff\x1b[31m\n" + b"[" * 100_000)
    upload(folder)
    with pytest.raises(
        DataError, match=r"^memory://far/train-000000.tar.index: found '\\\\xff\\x1b\[31m'; expected the index of"
    ):
        list(read_rows(FAR / "train-000000.tar"))


def test_whatever_an_index_holds_is_read_or_refused_in_one_line(written: Path, upload: Callable[[Path], None]) -> None:
    upload(written)
    files, dice = fsspec.filesystem("memory"), random.Random(0)
    whole = (written / "train-000000.tar.index").read_bytes()
    pieces = [
        b"null",
        b"-1",
        b"1e999",
        b"NaN",
        b"{}",
        b"[]",
        b"9" * 30,
        b'"\\ud800"',
        b"\0",
        b"\xff",
        b"\n",
        b'"kind":"bad-row",',
    ]
    refused = 0
    for _ in range(2000):
        changed = bytearray(whole)
        for _ in range(dice.choice((1, 2, 4))):
            start = dice.randrange(len(changed))
            changed[start : start + dice.randrange(8)] = dice.choice(pieces)
        files.pipe("/far/train-000000.tar.index", bytes(changed))
        try:
            rows = list(read_rows(FAR / "train-000000.tar"))
        except DataError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017 # not all are refused
            continue
        for row in rows:
            if isinstance(row, Row) and row.picture is not None:
                with contextlib.suppress(ImageError):
                    image_source(row.picture)
    assert 1000 < refused < 2000


def test_a_place_where_something_else_lies_is_no_picture(
    written: Path, tmp_path: Path, upload: Callable[[Path], None]
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    file = folder / "train-000000.tar.index"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    name, offset, size = lines[1]["picture"]
    lines[1]["picture"], lines[2]["picture"] = lines[2]["picture"], [name, offset + 512, size]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    upload(folder)
    first, second = list(read_rows(FAR / "train-000000.tar"))[:2]
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert first.picture is not None
    assert second.picture is not None
    assert first.picture.read_bytes()
    with pytest.raises(OSError, match="the shard has changed"):
        second.picture.read_bytes()


def test_an_index_is_always_the_same_and_verified(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    indices = {file.name: file.read_bytes() for file in folder.glob("*.index")}
    assert len(indices) == 9
    for name in indices:
        (folder / name).unlink()
    assert run("--verify", folder).stdout == "ok 9 shards\n"
    assert run("--index", folder).stdout == "ok 9 shards\n"
    assert {file.name: file.read_bytes() for file in folder.glob("*.index")} == indices
    shutil.copy(folder / "train-000001.tar.index", folder / "train-000000.tar.index")
    result = run("--verify", folder)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {folder / 'train-000000.tar.index'}: it is of another shard; write it anew with mlic-shards --index\n"
    )


def test_there_must_be_something_to_index(tmp_path: Path) -> None:
    result = run("--index", tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "found no shard; expected tar files" in result.stderr


def test_bytes_that_are_no_text_stay_out_of_an_index(others: Path) -> None:
    assert index_bytes(others / "train-0.tar", read_rows(others / "train-0.tar")).isascii()


def test_an_index_keeps_the_warning_about_members_that_are_not_read(
    tmp_path: Path, upload: Callable[[Path], None], no_looking_through: None
) -> None:
    warning = Problem(tmp_path / "x.tar", None, "ignored", "found 1 members such as 'a.seg.png'", "warning")
    (tmp_path / "x.tar").write_bytes(b"x")
    (tmp_path / "x.tar.index").write_bytes(index_bytes(tmp_path / "x.tar", iter([warning])))
    upload(tmp_path)
    (read,) = read_rows(FAR / "x.tar")
    assert isinstance(read, Problem)
    assert (read.number, read.kind, read.message, read.severity) == (None, "ignored", warning.message, "warning")
