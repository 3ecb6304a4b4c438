"""Rows and pictures that a URI names, which need the extra `remote` of mlic-runtime; no network: fsspec's memory."""

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFile
from pyarrow import fs, parquet

from mlic_runtime import InputError, Predictor, Row, RowError, open_rows
from mlic_runtime.base.far_files import FarFile, absolute, without_file_scheme
from mlic_runtime.batch.label_studio import PictureAddresses
from mlic_runtime.rows import far_folder as remote_module
from mlic_runtime.rows.far_folder import FarFolder

ROOT = Path(__file__).parents[2]
CAT = (ROOT / "examples" / "cat.png").read_bytes()


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system that only this process has, at memory://; empty afterwards."""
    found = fsspec.filesystem("memory")
    yield found
    found.rm("/", recursive=True)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.load(ROOT / "tests" / "data" / "tiny")


def rows_of(source: str, **options: Any) -> list[Row]:
    with open_rows(source, **options) as reader:
        return list(reader)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_of_rows_may_lie_elsewhere_with_its_pictures(
    memory: Any, predictor: Predictor, tmp_path: Path, suffix: str
) -> None:
    memory.pipe("/bucket/deeper/cat.png", CAT)
    local = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.table({"image": ["deeper/cat.png", "no.png"], "caption": [None, "red"]}), local)
    elif suffix == "csv":
        local.write_text("image,caption\ndeeper/cat.png,\nno.png,red\n")
    else:
        local.write_text('{"image": "deeper/cat.png"}\n{"image": "no.png", "caption": "red"}\n')
    memory.pipe(f"/bucket/{local.name}", local.read_bytes())
    good, bad = predictor.predict_rows(rows_of(f"memory://bucket/{local.name}"))
    assert not isinstance(good, RowError)
    assert good.image == "deeper/cat.png"
    assert good.probabilities == predictor.predict(CAT).probabilities
    assert isinstance(bad, RowError)
    assert str(bad.error) == "cannot read picture 'memory://bucket/no.png': there is no such file or folder"


def test_a_folder_elsewhere_is_read_as_one_here(memory: Any, tmp_path: Path) -> None:
    files = {
        "b.png": CAT,
        "b.txt": b"a  dog\n",
        "a/c.jpg": b"",
        "a.jpg": b"",
        "a/c.txt": b"\xff",
        ".h.png": b"",
        "x": b"",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        memory.pipe(f"/bucket/{name}", content)
    here, there = rows_of(str(tmp_path)), rows_of("memory://bucket")
    assert [(row.name, row.caption) for row in there] == [(row.name, row.caption) for row in here]
    assert [row.name for row in there] == ["a/c.jpg", "a.jpg", "b.png"]
    assert "which is not UTF-8" in str(there[0].error)
    assert there[2].image.read() == CAT  # type: ignore[union-attr] # a stream


def test_rows_here_may_have_pictures_there(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/bucket/a.png", CAT)
    (tmp_path / "rows.csv").write_text("image\na.png\nmemory://bucket/a.png\n")
    first, second = rows_of(str(tmp_path / "rows.csv"), image_root="memory://bucket/")
    assert first.image.read() == second.image.read() == CAT  # type: ignore[union-attr] # streams
    assert (first.name, second.name) == ("a.png", "memory://bucket/a.png")


def test_nothing_is_fetched_before_a_picture_is_read(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image\nlater.png\n")
    (row,) = rows_of(str(tmp_path / "rows.csv"), image_root="memory://bucket")
    memory.pipe("/bucket/later.png", CAT)
    assert row.image.read() == CAT  # type: ignore[union-attr] # a stream


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png", "a/../../secret.png", "/secret.png", "/bucket/pics/a.png", "..", "%2e%2e/secret.png",
        "a/%2E%2E/%2e./secret.png", "%252e%252e/secret.png", "..%2fsecret.png", "%2fsecret.png", "..\\secret.png",
        "..%5csecret.png", "a\0.png", "memory://bucket/secret.png", "memory://bucket/pics/../secret.png",
        "memory://bucket/pics2/a.png", "memory://bucket", "memory://other/pics/a.png", "s3://bucket/pics/a.png",
        "file:///etc/passwd", "memory://bucket/pics/%2e%2e/secret.png", "http://host/a.png",
    ],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_refused(memory: Any, name: str) -> None:
    memory.pipe("/bucket/secret.png", CAT)
    with pytest.raises(InputError, match=r"lies outside of the image root 'memory://bucket/pics': name another root"):
        FarFolder("memory://bucket/pics").picture(name)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("a.png", "a.png"), ("b/../a.png", "a.png"), ("./a.png", "a.png"), ("b//a.png", "b/a.png"),
        ("100%.png", "100%.png"), ("%20.png", "%20.png"), ("a?b#c.png", "a?b#c.png"), ("...png", "...png"),
        ("memory://bucket/pics/a.png", "a.png"), ("memory://bucket/x/../pics/a.png", "a.png"),
    ],
)  # fmt: skip
def test_names_that_stay_are_taken_as_they_are(memory: Any, name: str, where: str) -> None:
    memory.pipe(f"/bucket/pics/{where}", CAT)
    assert FarFolder("memory://bucket/pics").picture(name).read() == CAT


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://bucket/no.csv", "cannot read the input 'memory://bucket/no.csv': there is no such file"),
        ("memory://bucket/rows.xlsx", "the input 'memory://bucket/rows.xlsx' has an unknown ending; expected .csv"),
        ("memory://bucket/empty", "there is no picture in 'memory://bucket/empty'; passed over 1 file that is not a"),
        ("nix://bucket/rows.csv", "cannot use the URI 'nix://bucket/rows.csv': "),
        ("file://host/rows.csv", "expected file:///FOLDER/NAME, a path of this machine"),
    ],
)
def test_what_cannot_be_read_is_said(memory: Any, source: str, message: str) -> None:
    memory.pipe("/bucket/rows.xlsx", b"x")
    memory.pipe("/bucket/empty/x", b"x")
    with pytest.raises(InputError) as error:
        rows_of(source)
    assert message in str(error.value)


def test_a_folder_elsewhere_is_its_own_root(memory: Any) -> None:
    memory.pipe("/bucket/a.png", CAT)
    with pytest.raises(InputError, match="its own image root: leave the image root out"):
        rows_of("memory://bucket", image_root="memory://bucket")


def test_a_picture_that_is_too_large_costs_one_row(
    memory: Any, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "MAX_PICTURE_BYTES", 100)
    memory.pipe("/bucket/a.png", CAT)
    memory.pipe("/bucket/rows.csv", b"image,caption\na.png,\n,red\n")
    bad, good = predictor.predict_rows(rows_of("memory://bucket/rows.csv"))
    assert str(bad.error) == "cannot read picture 'memory://bucket/a.png': it has more than 100 bytes"  # type: ignore[union-attr]
    assert not isinstance(good, RowError)


def test_a_connection_that_breaks_is_an_error_of_the_input(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/rows.csv", b"caption\n" + b"red\n" * 100_000)
    rows = iter(open_rows("memory://bucket/rows.csv"))
    next(rows)

    def break_off(self: MemoryFile, length: int = -1) -> bytes:
        raise OSError("connection reset")

    monkeypatch.setattr(MemoryFile, "read", break_off)
    with pytest.raises(InputError, match=r"cannot read the input 'memory://bucket/rows\.csv': connection reset"):
        list(rows)


def test_what_libraries_below_fsspec_raise_is_one_line(
    memory: Any, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCredentialsError(Exception):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("none\nfound")

    memory.pipe("/bucket/a.png", CAT)
    memory.pipe("/bucket/rows.csv", b"image\na.png\n")
    rows = rows_of("memory://bucket/rows.csv")
    monkeypatch.setattr(type(memory), "_open", refuse)
    (bad,) = predictor.predict_rows(rows)
    said = "NoCredentialsError: none found"
    assert isinstance(bad, RowError)
    assert str(bad.error) == f"cannot read picture 'memory://bucket/a.png': {said}"
    with pytest.raises(InputError, match=f"^cannot read the input 'memory://bucket/rows.csv': {said}$"):
        rows_of("memory://bucket/rows.csv")
    monkeypatch.setattr(type(memory), "find", refuse)
    with pytest.raises(InputError, match=f"^cannot list the folder 'memory://bucket': {said}$"):
        rows_of("memory://bucket")


@pytest.fixture
def no_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package that fsspec needs for s3:// is not installed."""

    def refuse(uri: str) -> None:
        raise ImportError("Install s3fs\nto access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)


@pytest.mark.usefixtures("no_s3fs")
def test_pyarrow_stands_in_where_fsspec_lacks_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "cat?.png").write_bytes(CAT)
    (tmp_path / "dog.png").write_bytes(b"")
    arrow = SimpleNamespace(from_uri=lambda uri: (fs.LocalFileSystem(), uri.replace("s3:/", str(tmp_path))))
    monkeypatch.setattr(fs, "FileSystem", arrow)
    cat, dog = rows_of("s3://")
    assert (cat.name, dog.name) == ("deeper/cat?.png", "dog.png")
    assert cat.image.read() == CAT  # type: ignore[union-attr] # a stream
    folder = FarFile.from_uri("s3://deeper")
    assert folder.names(recursive=False) == ["cat?.png"]
    assert (folder.is_folder(), folder.exists(), folder.below("no.png").exists()) == (True, True, False)
    file = folder.below("cat?.png")
    assert (file.size(), file.read_range(2, 9), file.is_folder()) == (len(CAT), CAT[2:9], False)
    with file.open() as stream:
        stream.seek(100)
        assert stream.read() == CAT[100:]


@pytest.mark.usefixtures("no_s3fs")
def test_without_pyarrow_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"^cannot read 's3://other/a.csv': Install s3fs to access S3$"):
        rows_of("s3://other/a.csv")


def test_file_uris_are_paths(tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_text("image\nx.png\n")
    assert without_file_scheme("file:///a%20b") == without_file_scheme("file://localhost/a%20b") == "/a b"
    assert without_file_scheme("/a%20b") == "/a%20b"
    (row,) = rows_of(f"file://{tmp_path}/a%20b.csv")
    assert row.image == str(tmp_path / "x.png")


def test_paths_become_absolute_and_uris_stay() -> None:
    assert absolute("memory://bucket/x") == "memory://bucket/x"
    assert absolute("x") == str(Path("x").absolute())


def test_label_studio_gets_the_uri_of_a_picture(memory: Any) -> None:
    for root in ("memory://bucket/pics", "memory://bucket/pics/"):
        addresses = PictureAddresses(root)
        assert addresses.address("sub/a.png") == "memory://bucket/pics/sub/a.png"
        assert addresses.advice() == ""
        with pytest.raises(InputError, match="outside of the image root"):
            addresses.address("../a.png")


def test_in_a_folder_elsewhere_the_content_decides_where_the_ending_does_not(memory: Any, tmp_path: Path) -> None:
    names = ["IMG_1", "a/b.dat", "a/c.png", "a.png", "notes.md", "a/lonely.txt"]
    for name in names:
        memory.pipe(f"/bucket/{name}", b"text" if name.endswith(("md", "txt")) else CAT)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text" if name.endswith(("md", "txt")) else CAT)
    memory.pipe("/bucket/IMG_1.txt", b"a cat")
    (tmp_path / "IMG_1.txt").write_bytes(b"a cat")
    found = []
    for source in ("memory://bucket", str(tmp_path)):
        with open_rows(source) as reader:
            rows = [(row.name, row.caption) for row in reader]
            assert reader.passed_over is not None
            found.append((rows, reader.passed_over()))
    assert found[0] == found[1]
    assert found[0][0] == [("IMG_1", "a cat"), ("a/b.dat", None), ("a/c.png", None), ("a.png", None)]
    assert found[0][1].endswith("TIFF or HEIC pictures: a/lonely.txt, notes.md")


def tar_of(**samples: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for key, content in samples.items():
            info = tarfile.TarInfo(f"{key}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_shards_are_read_from_far_by_name_and_as_a_folder(memory: Any) -> None:
    memory.pipe("/bucket/train-0.tar", tar_of(a=CAT))
    memory.pipe("/bucket/train-1.tar", tar_of(b=CAT))
    memory.pipe("/bucket/test-0.tar", tar_of(c=CAT))
    for source, names in (
        ("memory://bucket/train-1.tar", "b"),
        ("memory://bucket/train-{0..1}.tar", "ab"),
        ("memory://bucket", "abc"),
    ):
        rows = rows_of(source)
        assert [row.name for row in rows] == [f"{name}.png" for name in names]
        assert {row.image for row in rows} == {CAT}
    memory.pipe("/bucket/more/rows.csv", b"image")
    memory.pipe("/bucket/shards.json", b"{}")
    with open_rows("memory://bucket") as reader:
        assert reader.note.splitlines()[1:] == ["1 file beside the shards not read, such as more/rows.csv"]
    with open_rows("memory://bucket/train-{0..1}.tar") as reader:
        assert reader.root == "memory://bucket"
    with pytest.raises(InputError, match=r"the input 'memory://bucket/train-9.tar': .*there is no such file"):
        rows_of("memory://bucket/train-9.tar")


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("labels.csv", b"ImageID,Source,LabelName,Confidence\na,verification,/m/1,1\n", "Open Images"),
        ("import.jsonl", b'{"imageGcsUri": "gs://bucket/a.jpg"}\n', "Vertex AI import file"),
        ("coco.json", b'{"images": [], "annotations": [], "categories": []}', "COCO annotations"),
    ],
)
def test_other_annotations_from_far_are_refused_in_one_line(memory: Any, name: str, content: bytes, title: str) -> None:
    memory.pipe(f"/bucket/{name}", content)
    said = (
        f"^the input 'memory://bucket/{name}': found {title}; under a URI, annotations are read from shards only: copy"
    )
    with pytest.raises(InputError, match=said):
        rows_of(f"memory://bucket/{name}")
    memory.pipe("/bucket/a.png", CAT)
    with open_rows("memory://bucket") as reader:
        assert [row.name for row in reader] == ["a.png"]
        assert reader.passed_over is not None
        assert f"{name}; 1 file such as {name} not read: under a URI, annotations" in reader.passed_over()


@pytest.mark.parametrize("name", ["data.zip", "annotations.xml"])
def test_what_can_only_be_annotations_is_refused_unread(memory: Any, name: str) -> None:
    memory.pipe(f"/bucket/{name}", b"")
    with pytest.raises(InputError, match=f"^the input 'memory://bucket/{name}': under a URI, annotations are read"):
        rows_of(f"memory://bucket/{name}")


def test_a_far_table_of_json_is_read(memory: Any) -> None:
    memory.pipe("/bucket/rows.json", b'[{"caption": "red"}, {"caption": "blue"}]')
    assert [row.caption for row in rows_of("memory://bucket/rows.json")] == ["red", "blue"]
