import ast
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlic_runtime.errors import InputError
from mlic_runtime.rows.reader import open_rows


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def coco(folder: Path, *names: str) -> Path:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"id": each["id"], "image_id": each["id"], "category_id": 1, "bbox": [0, 0, 1, 1]} for each in images]
    content = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": boxes}
    return write(folder / "_annotations.coco.json", json.dumps(content))


def read(path: Path, image_root: Path | None = None) -> tuple[list[tuple[str | None, str | None]], list[str]]:
    with open_rows(path, image_root=image_root) as reader:
        rows = list(reader)
    assert not [row.error for row in rows if row.error]
    return [(row.name, row.caption) for row in rows], reader.note.splitlines()


def test_how_pictures_were_found_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "images/deep/a.jpg")
    picture(tmp_path / "images/b.jpg")
    picture(tmp_path / "images/other.jpg")
    coco(tmp_path, "a.jpg", "b.jpg")
    rows, notes = read(tmp_path)
    assert rows == [("a.jpg", None), ("b.jpg", None)]
    assert notes == [
        "read as COCO annotations from _annotations.coco.json; labels are not used",
        "warning: 1 x interpreted: _annotations.coco.json: the categories of 2 boxes or masks count as labels of the "
        "whole picture",
        f"found 1 picture in a subfolder, such as {tmp_path / 'images/deep/a.jpg'} for 'a.jpg'",
        f"1 picture left out, which no row names, such as {Path('images/other.jpg')}",
    ]


def test_the_table_of_a_folder_is_read_with_its_captions(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "images/b.jpg")
    write(tmp_path / "train.csv", "image,text,labels,extra\na.jpg,one,dog,1\na.jpg,two,dog,1\nb.jpg,,cat,1\n")
    rows, notes = read(tmp_path)
    assert rows == [("a.jpg", "one"), ("b.jpg", None)]
    assert notes[0] == "read as CSV table from train.csv; labels are not used"
    assert "warning: 1 x ignored: train.csv: columns that are not read: 'extra'" in notes
    assert "1 caption blank: the picture counts as having none" in notes
    assert "1 more caption not used: the first caption of a picture counts" in notes


@pytest.mark.parametrize("split", ["train", "test"])
def test_metadata_in_the_folder_of_a_split_is_read(tmp_path: Path, split: str) -> None:
    picture(tmp_path / split / "a.jpg")
    write(tmp_path / split / "metadata.jsonl", '{"file_name": "a.jpg", "text": "one"}\n')
    rows, notes = read(tmp_path)
    assert rows == [("a.jpg", "one")]
    assert notes == [f"read as JSON lines from {Path(split, 'metadata.jsonl')}; labels are not used"]


def test_more_captions_come_along(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    write(tmp_path / "train.csv", "image,labels\na.jpg,dog\n")
    write(tmp_path / "captions.csv", "image,caption\na.jpg,one\n")
    assert read(tmp_path)[0] == [("a.jpg", "one")]


def test_tags_beside_pictures_are_no_captions(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "dog, red, outdoors")
    rows, notes = read(tmp_path)
    assert rows == [("a.jpg", None), ("b.jpg", None), ("c.jpg", None)]
    assert notes[0] == "read as tags beside pictures; labels are not used"
    assert "3 of 3 texts look like tags" in notes[1]
    picture(tmp_path / "d.jpg")  # as annotations it would be left out
    assert [name for name, _ in read(tmp_path)[0]] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_a_folder_of_pictures_stays_one(tmp_path: Path) -> None:
    for name in ("val/a.jpg", "dev/b.jpg", "dev/c.jpg"):  # two folders for one split
        picture(tmp_path / name)
    write(tmp_path / "val/a.txt", "A dog sleeps on the sofa.")
    rows, notes = read(tmp_path)
    assert rows == [
        (str(Path("dev/b.jpg")), None),
        (str(Path("dev/c.jpg")), None),
        (str(Path("val/a.jpg")), "A dog sleeps on the sofa."),
    ]
    assert notes == []


def test_annotations_that_cannot_be_used_are_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "one.csv", "image\na.jpg\n")
    write(tmp_path / "two.csv", "image\na.jpg\n")
    with pytest.raises(InputError, match=r"found one.csv, two.csv for the training data; expected one") as raised:
        open_rows(tmp_path)
    assert "\n" not in str(raised.value)


def test_columns_are_named_for_tables_only(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    file = coco(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="columns for COCO annotations, which has no columns; leave them out"):
        open_rows(file, caption_column="text")
    file.unlink()
    write(tmp_path / "train.csv", "image,words\na.jpg,one\n")
    with open_rows(tmp_path, caption_column="words") as reader:
        assert [(row.name, row.caption) for row in reader] == [("a.jpg", "one")]


@pytest.mark.parametrize("zipped", [False, True])
def test_the_image_root_is_the_folder_of_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, root = tmp_path / "data", tmp_path / "elsewhere"
    file = coco(source, "a.jpg")
    expected = picture(root / "a.jpg")
    if zipped:
        source = tmp_path / "data.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(file, file.name)
    with open_rows(source, image_root=root) as reader:
        assert [row.image for row in reader] == [str(expected)]
    with pytest.raises(InputError, match="nowhere: not a folder; expected the pictures folder"):
        open_rows(source, image_root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="image root 's3://bucket'; expected a folder of this machine"):
        open_rows(source, image_root="s3://bucket")


def test_short_texts_beside_two_pictures_are_captions(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "cat")
    assert read(tmp_path) == ([("a.jpg", "cat"), ("b.jpg", "cat")], [])


def pack(file: Path, *names: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"A dog." if name.endswith(".txt") else b"")
    return file


def shard(file: Path, **samples: str) -> Path:
    """A shard with a picture and a caption for each key."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for key, caption in samples.items():
            for name, content in ((f"{key}.png", f"picture {key}".encode()), (f"{key}.txt", caption.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file


OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence\na,verification,/m/1,1\na,verification,/m/2,0\nb,verification,/m/1,1\n"
)
VERTEX = (
    '{"imageGcsUri": "gs://bucket/pets/a.jpg", "classificationAnnotation": {"displayName": "dog"}}\n'
    '{"imageGcsUri": "gs://bucket/pets/b.jpg", "classificationAnnotation": {"displayName": "cat"}}\n'
)


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("labels.csv", OPEN_IMAGES, "Open Images"),
        ("import.jsonl", VERTEX, "Vertex AI import file"),
        ("import.csv", "gs://bucket/pets/a.jpg,dog\ngs://bucket/pets/b.jpg,cat\n", "Vertex AI import file"),
    ],
)
def test_a_file_of_annotations_that_is_named_like_a_table_is_one(
    tmp_path: Path, name: str, text: str, title: str
) -> None:
    expected = [str(picture(tmp_path / "images" / each)) for each in ("a.jpg", "b.jpg")]
    file = write(tmp_path / name, text)
    with open_rows(file) as reader:
        rows = list(reader)
    assert [row.image for row in rows] == expected  # a row each, however many labels it has
    assert reader.note.splitlines()[0] == f"read as {title}; labels are not used"


def test_of_vertex_what_is_not_labelled_is_left_out_with_its_count(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    text = VERTEX.splitlines()[0] + '\n{"imageGcsUri": "gs://bucket/pets/c.jpg"}\n'
    rows, notes = read(write(tmp_path / "import.jsonl", text))
    assert rows == [("pets/a.jpg", None)]
    assert any("1 of 2 pictures have no annotation; they are left out" in note for note in notes)


def test_who_names_the_columns_reads_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "labels.csv", OPEN_IMAGES)
    with open_rows(file, image_column="ImageID") as reader:
        assert [row.name for row in reader] == ["a", "a", "b"]


def test_shards_are_read_by_name_and_no_others(tmp_path: Path) -> None:
    first = shard(tmp_path / "train-000.tar", a="one", b="two")
    shard(tmp_path / "train-001.tar", c="three")
    shard(tmp_path / "val-000.tar", d="four")
    assert read(first)[0] == [("a.png", "one"), ("b.png", "two")]
    rows, notes = read(tmp_path / "train-{000..001}.tar")
    assert [name for name, _ in rows] == ["a.png", "b.png", "c.png"]
    assert notes == ["read as shards from train-000.tar, train-001.tar; labels are not used"]
    with open_rows(tmp_path / "train-{000..001}.tar") as reader:
        assert [row.image for row in reader] == [b"picture a", b"picture b", b"picture c"]
    assert [name for name, _ in read(tmp_path)[0]] == ["a.png", "b.png", "c.png", "d.png"]


def test_a_shard_that_is_not_there_or_changes_is_one_line(tmp_path: Path) -> None:
    file = shard(tmp_path / "train-000.tar", a="one", b="two")
    with pytest.raises(InputError, match=r"1 of its 2 files are not there, the first is .*train-001.tar"):
        open_rows(tmp_path / "train-{000..001}.tar")
    with pytest.raises(InputError, match=r"'.*train-7.tar' is not there; expected .csv"):
        open_rows(tmp_path / "train-7.tar")
    with open_rows(file) as reader:
        file.write_bytes(file.read_bytes()[:100])
        errors = [str(row.error) for row in reader]
    assert [error.partition(":")[0] for error in errors] == [f"cannot read picture '{file}/{key}.png'" for key in "ab"]
    with pytest.raises(InputError, match=r"train-000.tar: found no tar header at byte 0: it is truncated") as raised:
        open_rows(file)
    assert "\n" not in str(raised.value)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_a_zip_file_of_pictures_is_read_as_their_folder(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", "in/a.jpg", "in/a.txt", "in/deep/b.png", "in/notes.pdf", "__MACOSX/in/._a.jpg")
    with open_rows(file) as reader:
        rows = [(row.name, row.caption) for row in reader]
        assert reader.passed_over is not None
        assert reader.passed_over().endswith(f"picture: {Path('in/notes.pdf')}")
    assert rows == [(str(Path("in/a.jpg")), "A dog."), (str(Path("in/deep/b.png")), None)]
    assert reader.note.startswith(f"{file}: unpacked to ")
    with pytest.raises(InputError, match="its own image root: leave the image root out"):
        open_rows(file, image_root=tmp_path)


@pytest.mark.usefixtures("cache")
def test_a_zip_file_without_pictures_is_named(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", "readme.md")
    with pytest.raises(InputError, match=r"no picture in '.*a\.zip'; passed over 1 file .*: readme\.md"):
        open_rows(file)


@pytest.mark.usefixtures("cache")
def test_of_a_zip_file_pictures_that_no_row_names_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "data.zip"
    annotations = coco(tmp_path / "set", "a.jpg")
    with zipfile.ZipFile(pack(file, "a.jpg", "b.jpg"), "a") as archive:
        archive.write(annotations, annotations.name)
    rows, notes = read(file)
    assert rows == [("a.jpg", None)]
    assert notes[0] == "read as COCO annotations from _annotations.coco.json; labels are not used"
    assert notes[-1] == "1 picture left out, which no row names, such as b.jpg"


def test_labels_that_training_refuses_are_no_matter(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    write(tmp_path / "train.csv", "image,caption,dog,cat\na.jpg,one,0.25,0.75\n")
    rows, notes = read(tmp_path)
    assert rows == [("a.jpg", "one")]
    assert "warning: 1 x ignored: train.csv: columns that are not read: 'dog', 'cat'" in notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "image,caption\na.jpg,a dog\n"),
        ("rows.jsonl", '{"image": "a.jpg", "caption": "a dog"}\n'),
        ("rows.tsv", "image\tcaption\na.jpg\ta dog\n"),
    ],
)
def test_a_table_is_read_without_loading_all_formats(name: str, text: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, text)
    code = (
        "import sys; from mlic_runtime.rows.reader import open_rows\n"
        f"with open_rows({str(file)!r}) as reader: print([row.caption for row in reader])\n"
        "print([name.rpartition('.')[2] for name in sys.modules if '.annotations.formats.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows, modules = done.stdout.splitlines()
    assert rows == "['a dog']"
    may_be_asked = {"named_like_tables", "open_images", "vertex", "format", "parsing", "picture_names"}
    assert set(ast.literal_eval(modules)) == (set() if name.endswith(".tsv") else may_be_asked)
