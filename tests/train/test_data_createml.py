import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train
from mlic_train.data import find_splits, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]
BOX = {"x": 120.5, "y": 64, "width": 30, "height": 12}
DETECTION = [
    {"image": "0.jpg", "annotations": [{"label": "dog", "coordinates": BOX}, {"label": "dog", "coordinates": BOX}]},
    {"image": "1.jpg", "annotations": [{"label": "cat", "coordinates": BOX}, {"label": "dog", "coordinates": BOX}]},
    {"image": "2.jpg", "annotations": []},
]


@pytest.fixture
def write(tmp_path: Path, draw: Draw) -> Callable[..., Path]:
    def make(content: Any, name: str = "train/_annotations.createml.json") -> Path:
        file = tmp_path / name
        for number in range(3):
            draw(file.parent / f"{number}.jpg", number + sum(map(ord, name)))
        file.write_text(json.dumps(content))
        return file

    return make


def test_roboflows_folders_are_read(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(DETECTION)
    val = write(DETECTION, "valid/_annotations.createml.json")
    found = find_splits(tmp_path)
    assert (found.train, found.val) == ((file,), (val,))
    labels = read_labels(found.train)
    split = read_split(found.train, labels)
    assert labels.names == ("cat", "dog")
    assert [(r.image_id, r.labels) for r in split.records] == [("0.jpg", (1,)), ("1.jpg", (0, 1)), ("2.jpg", ())]
    assert [(p.kind, p.message) for p in split.warnings] == [
        ("interpreted", "4 annotations with coordinates count as labels of the whole picture")
    ]
    assert find_format(file).describe(file).startswith("Create ML JSON: 3 pictures")
    result = CliRunner().invoke(train, ["--data", str(tmp_path), "--check"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "0.jpg", "annotations": [{"label": "dog"}]}, {"image": "1.jpg", "annotations": [{"label": "cat"}]}],
        [{"imagefilename": "0.jpg", "annotation": "dog"}, {"imageFilename": "1.jpg", "annotation": "cat"}],
        [{"filename": "0.jpg", "annotations": ["dog"]}, {"filename": "1.jpg", "annotations": ["cat"]}],
        [{"image": "0.jpg", "label": "dog"}, {"image": "./1.jpg", "label": "cat"}],
        [{"image": "0.jpg", "labels": ["dog"], "verified": True}, {"image": "1.jpg", "labels": ["cat"]}],
        [
            {"imageURL": "file:///Users/me/set/0.jpg", "label": "dog"},
            {"imageURL": "/Users/me/set/1.jpg", "label": "cat"},
        ],
    ],
)
def test_labels_of_whole_pictures_are_read(write: Callable[..., Path], content: Any) -> None:
    file = write(content, "labels.json")
    split = read_split([file], read_labels([file]))
    assert [[split.labels.names[i] for i in r.labels or ()] for r in split.records] == [["dog"], ["cat"]]
    assert split.warnings == ()


def test_what_is_not_labelled_is_left_out_and_what_is_not_read_is_named(write: Callable[..., Path]) -> None:
    file = write([*DETECTION[:2], {"image": "2.jpg", "annotations": None, "author": "me"}])
    split = read_split([file], read_labels([file]))
    assert len(split.records) == 2
    assert [p.message for p in split.warnings][1:] == [
        "found 1 pictures without annotations, not labelled and left out",
        "found the keys 'author', which are not read",
    ]


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {"image": 3, "annotations": []},
        {"annotations": []},
        {"image": "2.jpg", "annotations": [3.5]},
        {"image": "2.jpg", "annotations": [{"label": None}]},
        {"image": "2.jpg", "annotations": [{"label": ""}]},
        {"image": "2.jpg", "annotations": {"label": {"x": 1}}},
        {"image": "2.jpg", "IMAGE": "1.jpg", "annotations": []},
        {"image": "../../etc/passwd", "annotations": []},
    ],
)
def test_a_broken_entry_costs_one_row(write: Callable[..., Path], entry: Any) -> None:
    file = write([*DETECTION[:2], entry])
    split = read_split([file], read_labels([file]), skip_bad_rows=True)
    assert len(split.records) == 2
    assert [(p.kind, p.number) for p in split.skipped] == [("bad-row", 3)]


@pytest.mark.parametrize("content", [[], {}, [[1]]])
def test_other_json_is_not_taken(write: Callable[..., Path], content: Any, tmp_path: Path) -> None:
    write(content, "labels.json")
    with pytest.raises(DataError):
        find_splits(tmp_path)


@pytest.mark.parametrize("content", [[{"image": "0.jpg"}], [{"image": "0.jpg", "annotations": [1.5]}]])
def test_an_array_of_other_rows_is_a_table(write: Callable[..., Path], content: Any) -> None:
    assert find_format(write(content, "labels.json")).name == "json"
