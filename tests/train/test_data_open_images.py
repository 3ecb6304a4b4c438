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
HUMAN = """ImageID,Source,LabelName,Confidence
000026e7ee790996,verification,/m/04hgtk,0
000026e7ee790996,verification,/m/07j7r,1
000026e7ee790996,crowdsource-verification,/m/0bt9lr,1
000062a39995e348,verification,/m/07j7r,0
000062a39995e348,verification,/m/015p6,1
"""
NAMES = "/m/015p6,Bird\n/m/0bt9lr,Dog\n/m/07j7r,Tree\n/m/04hgtk,Human head\n/m/0zzzz,Never\n"
BOXES = """ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
000026e7ee790996,xclick,/m/0bt9lr,1,0.022673031,0.9642005,0.07103825,0.80054647,0,0,0,0,0
000026e7ee790996,xclick,/m/0bt9lr,1,0.1,0.2,0.3,0.4,1,0,1,1,0
000062a39995e348,activemil,/m/015p6,1,0.1,0.2,0.3,0.4,0,0,0,0,0
"""
TABLE = "train-annotations-human-imagelabels.csv"


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    (tmp_path / TABLE).write_text(HUMAN)
    (tmp_path / "class-descriptions.csv").write_text(NAMES)
    for seed, name in enumerate(("000026e7ee790996", "000062a39995e348")):
        draw(tmp_path / "train" / f"{name}.jpg", seed)
    return tmp_path


def test_what_is_not_listed_is_unknown(folder: Path) -> None:
    file = folder / TABLE
    assert find_format(file).name == "open-images"
    labels = read_labels([file])
    assert labels.names == ("Bird", "Dog", "Tree", "Human head")
    assert labels.ids == ("/m/015p6", "/m/0bt9lr", "/m/07j7r", "/m/04hgtk")
    split = read_split([file], labels)
    assert [(r.image_id, r.labels, r.unknown, r.number) for r in split.records] == [
        ("000026e7ee790996", (1, 2), (0,), 1),
        ("000062a39995e348", (0,), (1, 3), 4),
    ]
    assert [record.image for record in split.records] == sorted((folder / "train").iterdir())
    message = "labels that are not listed for one of the 2 pictures are unknown there"
    assert [warning.message for warning in split.warnings] == [message]


def test_confidences_of_a_machine_have_thresholds(folder: Path) -> None:
    lines = [f"000026e7ee790996,machine,/m/{label},{number}" for label, number in (("015p6", 0.9), ("0bt9lr", 0.8))]
    lines += ["000026e7ee790996,machine,/m/07j7r,0.1"]
    file = folder / "train-annotations-machine-imagelabels.csv"
    file.write_text("\n".join([HUMAN.split("\n")[0], *lines]))
    split = read_split([file], read_labels([file]))
    assert [(record.labels, record.unknown) for record in split.records] == [((0,), (1,))]
    assert "1 confidences lie between 0.1 and 0.9, and leave their label unknown" in split.warnings[0].message


def test_boxes_are_labels(folder: Path) -> None:
    file = folder / "train-annotations-bbox.csv"
    file.write_text(BOXES)
    split = read_split([file], read_labels([file]))
    assert [(record.labels, record.unknown) for record in split.records] == [((1,), (0,)), ((0,), (1,))]
    assert "boxes count as labels of the whole picture" in split.warnings[0].message


def test_lines_that_contradict_each_other_leave_the_label_unknown(folder: Path) -> None:
    file = folder / TABLE
    file.write_text(HUMAN + "000062a39995e348,verification,/m/015p6,0\n")
    split = read_split([file], read_labels([file]))
    assert [(record.labels, record.unknown) for record in split.records][1] == ((), (0, 1, 3))
    assert "1 pictures have a label with confidence 1 and 0" in split.warnings[0].message


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_names_that_two_classes_share_get_their_ids(folder: Path, header: str) -> None:
    (folder / "class-descriptions.csv").write_text(header + NAMES.replace("Bird", "Dog"))
    assert read_labels([folder / TABLE]).names[:2] == ("Dog (/m/015p6)", "Dog (/m/0bt9lr)")


def test_without_descriptions_the_ids_are_the_names(folder: Path) -> None:
    (folder / "class-descriptions.csv").unlink()
    assert read_labels([folder / TABLE]).names == ("/m/015p6", "/m/04hgtk", "/m/07j7r", "/m/0bt9lr")


def test_labels_of_a_labels_file_are_matched_by_name(folder: Path) -> None:
    (folder / "labels.csv").write_text("LabelID,Name\n1,Tree\n2,Dog\n")
    labels = read_labels([folder / TABLE], labels_file=folder / "labels.csv")
    records = read_split([folder / TABLE], labels).records
    assert [(record.labels, record.unknown) for record in records] == [((0, 1), ()), ((), (1,))]
    assert labels == LabelSet(("Tree", "Dog"), ("1", "2"))


@pytest.mark.parametrize(
    "line", ["a,b,c", "a,v,/m/07j7r,2", "a,v,/m/07j7r,nan", "a,v,/m/07j7r,x", ",v,/m/07j7r,1", "a,v,,1"]
)
def test_a_malformed_line_is_a_problem_of_its_row(folder: Path, line: str) -> None:
    file = folder / TABLE
    file.write_text(HUMAN + line + "\n")
    split = read_split([file], read_labels([file]), skip_bad_rows=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(6, "bad-row")]
    assert "expected 4 columns, an ImageID, a LabelName, a Confidence of 0 to 1" in split.skipped[0].message


def test_a_malformed_description_is_refused(folder: Path) -> None:
    (folder / "class-descriptions.csv").write_text("/m/015p6\n")
    with pytest.raises(DataError, match=r"class-descriptions\.csv: found a line without two columns"):
        read_labels([folder / TABLE])


def test_a_data_set_is_found_and_checked(folder: Path, draw: Draw) -> None:
    (folder / "train-annotations-bbox.csv").write_text(BOXES)
    lines = HUMAN.replace("000026e7ee790996", "a").replace("000062a39995e348", "b")
    (folder / "validation-annotations-human-imagelabels.csv").write_text(lines)
    for seed, name in enumerate("ab", start=5):
        draw(folder / "validation" / f"{name}.jpg", seed)
    splits = find_splits(folder)
    assert splits.train == (folder / TABLE,)
    assert splits.val == (folder / "validation-annotations-human-imagelabels.csv",)
    result = CliRunner().invoke(command, ["--data", str(folder), "--check"])
    assert "train-annotations-bbox.csv of the same split is not read" in result.output
    assert "0 errors" in result.output, result.output


def test_the_layout_of_fiftyone(folder: Path) -> None:
    for name, place in ((TABLE, "labels/classifications.csv"), ("class-descriptions.csv", "metadata/classes.csv")):
        (folder / "set" / "train" / place).parent.mkdir(parents=True)
        (folder / name).rename(folder / "set" / "train" / place)
    (folder / "train").rename(folder / "set" / "train" / "data")
    splits = find_splits(folder / "set")
    assert splits.train == (folder / "set" / "train" / "labels" / "classifications.csv",)
    labels = read_labels(splits.train)
    assert labels.names[0] == "Bird"
    assert len(read_split(splits.train, labels).records) == 2


def test_it_is_described(folder: Path) -> None:
    expected = "Open Images: 5 labels of 2 pictures, 4 classes, 4 of them named by class descriptions"
    assert find_format(folder / TABLE).describe(folder / TABLE) == expected
