import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.folder import find_splits
from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train as command
from mlic_train.data import read_labels, read_split

Draw = Callable[..., Path]
CSV = """training,gs://bucket/set/1.jpg,dog,cat
TEST,gs://bucket/set/2.jpg,traffic light
UNASSIGNED,gs://bucket/set/3.jpg,dog
validation,gs://bucket/set/4.jpg
"""


def line(uri: str, *names: str, use: str | None = "training", **changes: Any) -> dict[str, Any]:
    """Return an object as Vertex AI imports and exports it."""
    resource = {} if use is None else {"aiplatform.googleapis.com/ml_use": use}
    annotations = [
        {"displayName": name, "annotationResourceLabels": {"aiplatform.googleapis.com/annotation_set_name": "8066"}}
        for name in names
    ]
    content = {"imageGcsUri": uri, "classificationAnnotations": annotations, "dataItemResourceLabels": resource}
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


def write(file: Path, *objects: object) -> Path:
    file.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return file


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    for seed in (1, 2, 3, 4):
        draw(tmp_path / "images" / f"{seed}.jpg", seed)
    return tmp_path


def test_json_lines(folder: Path) -> None:
    objects = [
        line("gs://bucket/set/1.jpg", "dog", "traffic  light"),
        line("gs://bucket/set/2.jpg", use="validation"),
        line(
            "gs://bucket/set/3.jpg",
            use="test",
            classificationAnnotations=None,
            classificationAnnotation={"displayName": "dog"},
        ),
        line("gs://bucket/set/4.jpg", classificationAnnotations=None, use=None),
    ]
    file = write(folder / "import.jsonl", *objects)
    assert find_format(file).name == "vertex"
    labels = read_labels([file])
    assert labels.names == ("dog", "traffic light")
    split = read_split([file], labels)
    assert [(r.labels, r.split, r.number) for r in split.records] == [
        ((0, 1), "train", 1),
        ((), "val", 2),
        ((0,), "test", 3),
    ]
    assert [record.image for record in split.records] == [folder / "images" / f"{n}.jpg" for n in (1, 2, 3)]
    assert [warning.message for warning in split.warnings] == [
        "1 of 4 pictures have no annotation; they are left out",
        "3 of 3 pictures are addresses, which are not fetched: they are looked for by name in the pictures folder",
    ]


def test_csv_without_a_header(folder: Path) -> None:
    file = folder / "import.csv"
    file.write_text(CSV)
    assert find_format(file).name == "vertex"
    labels = read_labels([file])
    assert labels.names == ("cat", "dog", "traffic light")
    records = read_split([file], labels).records
    assert [(r.labels, r.split, r.number) for r in records] == [
        ((0, 1), "train", 1),
        ((2,), "test", 2),
        ((1,), None, 3),
    ]


def test_csv_without_splits(folder: Path) -> None:
    file = folder / "import.csv"
    file.write_text("gs://bucket/set/1.jpg,dog\ngs://bucket/set/1.jpg,cat\n")
    split = read_split([file], read_labels([file]))
    assert [(record.labels, record.split) for record in split.records] == [((0, 1), None)]
    assert split.warnings[0].message == "1 pictures have several lines, whose labels count together"


def test_boxes_are_labels(folder: Path) -> None:
    box = {"displayName": "dog", "xMin": 0.1, "yMin": 0.1, "xMax": 0.2, "yMax": 0.3}
    objects = [line("gs://b/1.jpg", classificationAnnotations=None, boundingBoxAnnotations=[box, box])]
    file = write(folder / "import.jsonl", *objects)
    split = read_split([file], read_labels([file]))
    assert [record.labels for record in split.records] == [(0,)]
    assert split.warnings[0].message == "the labels of 2 boxes count for the whole picture"
    table = folder / "import.csv"
    table.write_text(
        "TRAINING,gs://b/1.jpg,dog,0.1,0.1,,,0.3,0.3,,\nTRAINING,gs://b/1.jpg,7,.7,.6,,,.8,.9,,\n"
        "TRAINING,gs://b/2.jpg,NEGATIVE_IMAGE,,,,,,,,\nTRAINING,gs://b/3.jpg,,,,,,,,,\n"
    )
    labels = read_labels([table])
    assert labels.names == ("7", "dog")
    assert [record.labels for record in read_split([table], labels).records] == [(0, 1), ()]


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"imageGcsUri": 3}, "bad-row", "expected an object with imageGcsUri"),
        ([], "bad-row", "expected an object with imageGcsUri"),
        (
            line("gs://b/1.jpg", "dog", use="tomorrow"),
            "bad-row",
            "ml_use 'tomorrow'; expected training, validation or test",
        ),
        (
            line("gs://b/1.jpg", classificationAnnotations=[{"name": 3}]),
            "bad-row",
            "expected an object with displayName",
        ),
        (line("gs://b/1.jpg", classificationAnnotations=[None]), "bad-row", "expected an object with displayName"),
        (line("gs://b/9.jpg", "dog"), "missing-picture", "9.jpg"),
        (line("gs://b/../../1.jpg", "dog"), "bad-row", "expected a name inside the pictures folder"),
        (
            line("gs://b/2.jpg", "dog", use="test"),
            "split-overlap",
            "found 'gs://b/2.jpg' for 'test', but line 1 has it",
        ),
    ],
)
def test_a_malformed_line_is_a_problem_of_its_row(folder: Path, changed: object, kind: str, message: str) -> None:
    file = write(folder / "import.jsonl", line("gs://b/2.jpg", "dog"), changed)
    split = read_split([file], read_labels([file]), skip_bad_rows=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(2, kind)]
    assert message in split.skipped[0].message


def test_deep_and_broken_lines_cost_one_row_each(folder: Path) -> None:
    file = write(folder / "import.jsonl", line("gs://b/2.jpg", "dog"))
    file.write_text(file.read_text() + '{"imageGcsUri": ' + "[" * 100_000 + "\n{\n")
    split = read_split([file], read_labels([file]), skip_bad_rows=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(2, "bad-row"), (3, "bad-row")]


@pytest.mark.parametrize("text", ["training,s3://b/1.jpg,dog", "tomorrow,gs://b/1.jpg,dog", "training"])
def test_a_malformed_line_of_csv_is_a_problem_of_its_row(folder: Path, text: str) -> None:
    file = folder / "import.csv"
    file.write_text(CSV + text + "\n")
    split = read_split([file], read_labels([file]), skip_bad_rows=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(5, "bad-row")]
    assert "expected a line such as training,gs://bucket/1.jpg,dog,cat" in split.skipped[0].message


def test_other_tables_are_not_taken_for_it(folder: Path) -> None:
    for name, text in (
        ("a.csv", "ImageID,Labels\ngs://b/1.jpg,dog\n"),
        ("a.jsonl", '{"image": "1.jpg", "labels": []}\n'),
    ):
        (folder / name).write_text(text)
        assert find_format(folder / name).name != "vertex"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_folder_is_checked(folder: Path, suffix: str) -> None:
    for number, split in enumerate(("train", "val"), start=1):
        file = folder / f"{split}.{suffix}"
        if suffix == "csv":
            file.write_text(f"gs://b/{number}.jpg,dog\n")
        else:
            write(file, line(f"gs://b/{number}.jpg", "dog", use=None))
    assert find_splits(folder).val == (folder / f"val.{suffix}",)
    result = CliRunner().invoke(command, ["--data", str(folder), "--check"])
    assert result.exit_code == 0, result.output


def test_it_is_described_and_found_alone_in_a_folder(folder: Path) -> None:
    file = folder / "import.csv"
    file.write_text(CSV)
    assert find_splits(folder).train == (file,)
    assert find_format(file).describe(file) == "Vertex AI import file (CSV): 4 pictures, 3 labels, split in ml_use"
