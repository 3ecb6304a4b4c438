from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.folder import find_splits
from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train as command
from mlic_train.data import LabelSet, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]

# As CVAT 2 writes it, shortened by the fields of <meta> that are not read.
META = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>4</id><name>animals</name><size>9</size><mode>annotation</mode><overlap>0</overlap>
      <created>2024-05-27 10:12:30.000000+00:00</created><subset>{subset}</subset>
      <labels>
        <label><name>dog</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
        <label><name>traffic  light</name><color>#00ff00</color><type>any</type><attributes></attributes></label>
        <label><name>cat</name><color>#0000ff</color><type>any</type><attributes></attributes></label>
        <label><name>ear</name><type>points</type><attributes></attributes><parent>cat</parent></label>
      </labels>
    </task>
    <dumped>2024-05-27 10:20:00.000000+00:00</dumped>
  </meta>
"""
IMAGES = """
  <image id="0" name="1.jpg" width="16" height="12">
    <tag label="dog" source="manual"><attribute name="age">3</attribute></tag>
    <box label="cat" source="manual" occluded="1" xtl="1.0" ytl="2.0" xbr="3.0" ybr="4.0" z_order="0"></box>
    <box label="cat" source="manual" occluded="0" xtl="5.0" ytl="2.0" xbr="6.0" ybr="4.0" z_order="0"></box>
  </image>
  <image id="1" name="2.jpg" width="16" height="12"></image>
  <image id="2" name="3.jpg" width="16" height="12">
    <polygon label="traffic light" source="manual" occluded="0" points="1.0,2.0;3.0,4.0;5.0,6.0" z_order="0"/>
    <skeleton label="cat" source="manual" z_order="0"><points label="ear" outside="0" points="1,2"/></skeleton>
  </image>
"""


def write(file: Path, images: str = IMAGES, meta: str = META, subset: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(meta.format(subset=subset) + images + "</annotations>\n", encoding="utf-8")
    return file


@pytest.fixture
def file(tmp_path: Path, draw: Draw) -> Path:
    for seed in (1, 2, 3):
        draw(tmp_path / "images" / f"{seed}.jpg", seed)
    return write(tmp_path / "annotations.xml")


def test_tags_and_shapes_are_labels(file: Path) -> None:
    labels = read_labels([file])
    assert labels.names == ("dog", "traffic light", "cat")
    split = read_split([file], labels)
    assert [(r.image_id, r.labels, r.number) for r in split.records] == [
        ("1.jpg", (0, 2), 1),
        ("2.jpg", (), 2),
        ("3.jpg", (1, 2), 3),
    ]
    assert [warning.message for warning in split.warnings] == [
        "the labels of 4 boxes or other shapes count for the whole picture",
        "the attributes of 1 annotations are not read",
    ]


def test_without_declared_labels_those_that_occur_count(file: Path) -> None:
    write(file, meta="<annotations>")
    assert read_labels([file]).names == ("cat", "dog", "traffic light")


def test_the_subset_is_the_split_and_maybe_a_folder(tmp_path: Path, draw: Draw) -> None:
    drawn = [draw(tmp_path / "images" / name / "1.jpg", seed) for seed, name in enumerate(("Train", "Validation"))]
    images = '<image id="0" name="1.jpg" subset="Train"/><image id="1" name="1.jpg" subset="Validation"/>'
    file = write(tmp_path / "annotations.xml", images)
    records = read_split([file], read_labels([file])).records
    assert [(record.image, record.split) for record in records] == [(drawn[0], "train"), (drawn[1], "val")]


def test_the_subset_of_a_task_holds_for_its_images(file: Path) -> None:
    write(file, subset="test")
    assert {record.split for record in read_split([file], read_labels([file])).records} == {"test"}


def test_a_subset_that_is_no_split_is_named(file: Path) -> None:
    write(file, '<image id="0" name="1.jpg" subset="north"/><image id="1" name="2.jpg" subset="default"/>')
    split = read_split([file], read_labels([file]))
    assert [record.split for record in split.records] == [None, None]
    message = "the subset 'north' (1 pictures) is no split; expected train, val or test"
    assert [warning.message for warning in split.warnings] == [message]


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        ('<image id="0" width="3"/>', "bad-row", "found an <image> without a name"),
        (
            '<image id="0" name="1.jpg"><tag source="manual"/></image>',
            "bad-row",
            "found a <tag> of '1.jpg' without a label",
        ),
        ('<image id="0" name="1.jpg"><tag label="god"/></image>', "unknown-label", "unknown label 'god'"),
        ('<image id="0" name="9.jpg"/>', "missing-picture", "9.jpg"),
        ('<image id="0" name="../1.jpg"/>', "bad-row", "expected a name inside the pictures folder"),
    ],
)
def test_a_malformed_image_is_a_problem_of_its_row(file: Path, images: str, kind: str, message: str) -> None:
    write(file, images)
    split = read_split([file], read_labels([file]), skip_bad_rows=True, allow_empty=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(1, kind)]
    assert message in split.skipped[0].message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotations><track id='0' label='dog'/></annotations>", "found CVAT for video"),
        ("<labels/>", "found the XML element <labels>; expected <annotations>"),
        ("<annotations><image name='1.jpg'>", "not XML"),
        (
            "<!DOCTYPE lolz [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><annotations><image name='&b;'/></annotations>",
            "found a document type",
        ),
        ("<annotations>" + "<a>" * 100 + "</a>" * 100 + "</annotations>", "more than 64 elements inside one another"),
        ("<!DOCTYPE x SYSTEM 'file:///etc/passwd'><annotations/>", "found a document type"),
        ("<annotations>\x00</annotations>", "not XML"),
    ],
)
def test_hostile_and_broken_xml_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_split([file], LabelSet(("dog",), ("dog",)))
    assert "\n" not in str(caught.value)


def test_other_xml_is_not_taken_for_it(tmp_path: Path) -> None:
    file = tmp_path / "1.xml"
    file.write_text("<annotation><filename>1.jpg</filename></annotation>")
    with pytest.raises(DataError, match="cannot tell its format"):
        find_format(file)


def test_utf_16_is_read(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace('encoding="utf-8"', 'encoding="utf-16"')
    file.write_bytes(text.encode("utf-16"))
    assert find_format(file).name == "cvat"
    assert len(read_split([file], read_labels([file])).records) == 3


def test_it_is_found_in_folders_and_checked(file: Path, draw: Draw) -> None:
    assert find_splits(file.parent).train == (file,)
    root = file.parent / "set"
    for seed, name in enumerate(("train", "val"), start=7):
        write(root / name / "annotations.xml", f'<image id="0" name="{seed}.jpg"><tag label="dog"/></image>')
        draw(root / name / "images" / f"{seed}.jpg", seed)
    splits = find_splits(root)
    assert (splits.train, splits.val) == ((root / "train" / "annotations.xml",), (root / "val" / "annotations.xml",))
    result = CliRunner().invoke(command, ["--data", str(root), "--check"])
    assert result.exit_code == 0, result.output


def test_it_is_described(file: Path) -> None:
    expected = "CVAT for images: 3 pictures, 3 declared labels; 2 <box>, 1 <tag>, 1 <polygon>, 1 <skeleton>"
    assert find_format(file).describe(file) == expected
