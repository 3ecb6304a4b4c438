from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train
from mlic_train.data import LabelSet, find_splits, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]


def annotation(filename: str, *objects: str, extra: str = "") -> str:
    """Return an annotation as VOC's own files and labelImg's have it."""
    boxes = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>"
        f"<difficult>{int(name == 'cat')}</difficult>"
        "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
        "<part><name>head</name><bndbox/></part></object>"
        for name in objects
    )
    return (
        f"<annotation><folder>VOC2012</folder><filename>{filename}</filename>{extra}"
        f"<size><width>16</width><height>12</height><depth>3</depth></size><segmented>0</segmented>{boxes}</annotation>"
    )


@pytest.fixture
def voc(tmp_path: Path, draw: Draw) -> Callable[..., Path]:
    """Write texts into a folder with the layout of VOC, with pictures of these stems."""

    def make(texts: Mapping[str, str], stems: str = "abcd", root: str = "VOCdevkit/VOC2012") -> Path:
        folder = tmp_path / root
        for seed, stem in enumerate(stems):
            draw(folder / "JPEGImages" / f"{stem}.jpg", seed)
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    return make


XML = {
    "Annotations/a.xml": annotation("a.jpg", "dog", "cat", "dog"),
    "Annotations/b.xml": annotation("b.jpg", "potted  plant"),
    "Annotations/c.xml": annotation("c.jpg"),
}


def test_objects_are_labels_of_the_picture(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc(XML)
    found = find_splits(tmp_path)
    assert found.train == (folder,)
    assert found.notes == (f"{tmp_path}: found the data in its folder VOCdevkit/VOC2012",)
    labels = read_labels(found.train)
    assert labels.names == ("cat", "dog", "potted plant")
    split = read_split(found.train, labels)
    assert [(r.image_id, r.labels, r.split) for r in split.records] == [
        ("JPEGImages/a.jpg", (0, 1), None),
        ("JPEGImages/b.jpg", (2,), None),
        ("JPEGImages/c.jpg", (), None),
    ]
    assert [p.message for p in split.warnings] == [
        "4 objects count as labels of the whole picture, 1 difficult and 4 truncated ones included",
        "found 1 pictures without an annotation, left out: 'JPEGImages/d.jpg'",
    ]
    assert find_format(folder).describe(folder) == (
        "Pascal VOC: 3 XML files: objects are labels of the whole picture, difficult ones included"
    )


def test_lists_give_the_splits(voc: Callable[..., Path]) -> None:
    lists = {"train": "a\n", "val": "b \n", "trainval": "a\nb\nc\n", "test": "", "dog_train": "a 1\n"}
    folder = voc({**XML, "Annotations/d.xml": annotation("d.jpg", "dog")}, stems="abcd")
    for name, text in lists.items():
        (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{name}.txt").write_text(text)
    split = read_split([folder], read_labels([folder]))
    assert [(r.image_id, r.split) for r in split.records] == [
        ("JPEGImages/a.jpg", "train"),
        ("JPEGImages/b.jpg", "val"),
        ("JPEGImages/c.jpg", "train"),
    ]
    assert "found 1 annotations that no list in ImageSets/Main names, left out: 'Annotations/d.xml'" in [
        p.message for p in split.warnings
    ]
    (folder / "ImageSets/Main/test.txt").write_text("a\n")
    bad = read_split([folder], read_labels([folder]), skip_bad_rows=True).skipped
    assert [(p.kind, p.message) for p in bad] == [
        ("split-overlap", "'a' is in the lists train.txt and test.txt; expected it in one split")
    ]


def test_without_xml_the_lists_of_classes_give_the_labels(voc: Callable[..., Path]) -> None:
    main = "ImageSets/Main"
    lists = {
        f"{main}/train.txt": "a\nb\n",
        f"{main}/val.txt": "c\n",
        f"{main}/dog_train.txt": "a  1\nb -1\n",
        f"{main}/dog_val.txt": "c -1\n",
        f"{main}/traffic light_train.txt": "a -1\nb  0\n",
        f"{main}/traffic light_val.txt": "c  1\n",
    }
    folder = voc(lists)
    assert find_splits(folder).train == (folder,)
    split = read_split([folder], read_labels([folder]))
    assert [(r.image_id, r.labels, r.unknown, r.split) for r in split.records] == [
        ("JPEGImages/a.jpg", (0,), (), "train"),
        ("JPEGImages/b.jpg", (), (1,), "train"),
        ("JPEGImages/c.jpg", (1,), (), "val"),
    ]
    assert [p.message for p in split.warnings] == [
        "1 entries of the lists are 0 (difficult): these labels are unknown there"
    ]
    (folder / main / "dog_val.txt").write_text("c maybe\n")
    assert [p.kind for p in read_split([folder], split.labels, skip_bad_rows=True).skipped] == ["bad-row"]


def test_roboflow_has_the_xml_beside_the_pictures(tmp_path: Path, draw: Draw) -> None:
    for seed, (split, label) in enumerate((("train", "dog"), ("train", "cat"), ("valid", "cat"), ("test", "dog"))):
        name = f"{seed}_jpg.rf.0af3"
        draw(tmp_path / split / f"{name}.jpg", seed)
        (tmp_path / split / f"{name}.xml").write_text(annotation(f"{name}.jpg", label))
    (tmp_path / "README.roboflow.txt").write_text("pets - v1\n")
    found = find_splits(tmp_path)
    assert (found.train, found.val, found.test) == (
        (tmp_path / "train",),
        (tmp_path / "valid",),
        (tmp_path / "test",),
    )
    assert [r.labels for r in read_split(found.val, read_labels(found.train)).records] == [(0,)]
    result = CliRunner().invoke(train, ["--data", str(tmp_path), "--check"])
    assert result.exit_code == 0, result.output


def test_the_file_name_decides_where_the_stem_does_not(voc: Callable[..., Path], draw: Draw) -> None:
    folder = voc({"Annotations/x.xml": annotation("C:\\photos\\a.jpg", "dog"), **XML})
    draw(folder / "JPEGImages" / "b.png", 9)
    draw(folder / "SegmentationClass" / "c.png", 9)
    split = read_split([folder], read_labels([folder]), skip_bad_rows=True)
    assert [r.image_id for r in split.records] == [f"JPEGImages/{stem}.jpg" for stem in "abc"]
    (folder / "Annotations/x.xml").write_text(annotation("nowhere.jpg", "dog"))
    (problem,) = read_split([folder], read_labels([folder]), skip_bad_rows=True).skipped
    assert problem.kind == "missing-picture"
    assert "found no picture named 'x' or 'nowhere.jpg'" in problem.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>', "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ("<annotation><object>", "not XML"),
        ("<annotations/>", "found the element <annotations>"),
        ("<annotation>" + "<x>" * 1000 + "</x>" * 1000 + "</annotation>", "elements inside one another"),
        ("<annotation><object><name> </name></object></annotation>", "an object without a <name>"),
        ("<annotation>" + " " * 1_100_000 + "</annotation>", "more than 1048576 bytes"),
        ("", "not XML"),
    ],
)
def test_bad_xml_costs_one_row(voc: Callable[..., Path], text: str, expected: str) -> None:
    folder = voc({**XML, "Annotations/d.xml": text})
    split = read_split([folder], read_labels([folder]), skip_bad_rows=True)
    assert len(split.records) == 3
    (problem,) = split.skipped
    assert (problem.kind, problem.number) == ("bad-row", 4)
    assert "'Annotations/d.xml'" in problem.message
    assert expected in problem.message


def test_a_chosen_format_says_what_is_missing(voc: Callable[..., Path]) -> None:
    folder = voc({})
    with pytest.raises(DataError, match=r"found no annotation; expected Annotations/\*\.xml"):
        read_split(find_splits(folder, "voc").train, LabelSet(("a",), ("a",)), data_format="voc")
