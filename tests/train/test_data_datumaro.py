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
from mlic_train.errors import DataError

Draw = Callable[..., Path]


def item(name: str, *annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an item as Datumaro (and CVAT) writes it."""
    image = {"path": f"{name}.jpg", "size": [12, 16]}
    return {"id": name, "annotations": list(annotations), "attr": {"frame": 0}, "image": image, **changes}


def annotation(place: int | None, kind: str = "label", **changes: Any) -> dict[str, Any]:
    return {"id": 0, "type": kind, "attributes": {}, "group": 0, "label_id": place, **changes}


def content(*items: dict[str, Any]) -> dict[str, Any]:
    labels: list[dict[str, Any]] = [
        {"name": name, "parent": "", "attributes": []} for name in ("dog", "traffic light", "cat")
    ]
    categories: dict[str, Any] = {"label": {"labels": labels, "attributes": []}, "points": {"items": []}}
    return {"dm_format_version": "1.0", "media_type": 2, "info": {}, "categories": categories, "items": list(items)}


def write(file: Path, value: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


@pytest.fixture
def file(tmp_path: Path, draw: Draw) -> Path:
    for seed in (1, 2, 3):
        draw(tmp_path / "images" / "default" / f"{seed}.jpg", seed)
    items = [
        item("1", annotation(2), annotation(0, "bbox", bbox=[1, 2, 3, 4], attributes={"occluded": False})),
        item("2"),
        item("3", annotation(1, "mask"), annotation(None, "bbox"), annotation(None, "caption", caption="A  light.")),
    ]
    return write(tmp_path / "annotations" / "default.json", content(*items))


def test_labels_of_all_annotations_count(file: Path) -> None:
    labels = read_labels([file])
    assert labels.names == ("dog", "traffic light", "cat")
    split = read_split([file], labels)
    assert [(r.image_id, r.captions, r.labels, r.number) for r in split.records] == [
        ("1.jpg", (), (0, 2), 1),
        ("2.jpg", (), (), 2),
        ("3.jpg", ("A light.",), (1,), 3),
    ]
    assert [warning.message for warning in split.warnings] == [
        "the labels of 2 boxes or other shapes count for the whole picture",
        "1 annotations of the type 'bbox' have no label; they are not read",
        "the attributes of 1 annotations are not read",
    ]


def test_the_path_may_stand_under_media_and_the_id_is_a_name_too(file: Path, draw: Draw) -> None:
    picture = draw(file.parent.parent / "images" / "default" / "a" / "4.png", 4)
    items = [item("x", image=None, media={"path": "a/4.png"}), item("a/4.png", image={"path": ""})]
    write(file, content(*items))
    split = read_split([file], read_labels([file]))
    assert [record.image for record in split.records] == [picture]
    assert [warning.kind for warning in split.warnings] == ["duplicate-id"]


@pytest.mark.parametrize("layout", ["images/train", "images", "train"])
def test_the_pictures_of_a_subset(tmp_path: Path, draw: Draw, layout: str) -> None:
    picture = draw(tmp_path / layout / "1.jpg")
    file = write(tmp_path / "annotations" / "train.json", content(item("1", annotation(0))))
    found = find_splits(tmp_path)
    assert found.train == (file,)
    assert read_split([file], read_labels([file]), images=found.images).records[0].image == picture


def test_subsets_of_other_names_are_one_data_set(tmp_path: Path) -> None:
    files = [write(tmp_path / "annotations" / f"{name}.json", content(item(name))) for name in ("north", "south")]
    assert find_splits(tmp_path).train == tuple(files)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (item("1", annotation(3)), "found the label_id 3; expected 0 to 2"),
        (item("1", annotation(-1)), "found the label_id -1"),
        (item("1", annotation(10**400)), "found the label_id 1"),
        (item("1", annotation(True)), "found the label_id True"),
        (item("1", annotation(None, "caption")), "found the caption None; expected a text"),
        (item("1", annotations={"type": "label"}), "found annotations of the type dict; expected a list"),
        (item("", image={}), "found the id '' and no path"),
        (item("../1"), "expected a name inside the pictures folder"),
    ],
)
def test_a_malformed_item_is_a_problem_of_its_row(file: Path, changed: dict[str, Any], message: str) -> None:
    write(file, content(changed, item("2", annotation(0))))
    split = read_split([file], read_labels([file]), skip_bad_rows=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(1, "bad-row")]
    assert message in split.skipped[0].message


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({}, "found no label under categories/label/labels"),
        ({"label": []}, "found no list under categories/label/labels"),
        ({"label": {"labels": [{"name": 3}]}}, "found the name 3 of label 0; expected a text"),
        ({"label": {"labels": [{"name": "a;b"}]}}, "expected a text without ';'"),
    ],
)
def test_malformed_categories_are_refused(file: Path, categories: object, message: str) -> None:
    write(file, {**content(), "categories": categories})
    with pytest.raises(DataError, match=message):
        read_labels([file])


def test_a_data_set_is_checked(tmp_path: Path, draw: Draw) -> None:
    for seed, split in enumerate(("train", "val")):
        labels = [annotation(place) for place in range(3)]
        write(tmp_path / "annotations" / f"{split}.json", content(item(str(seed), *labels)))
        draw(tmp_path / "images" / split / f"{seed}.jpg", seed)
    result = CliRunner().invoke(command, ["--data", str(tmp_path), "--check"])
    assert result.exit_code == 0, result.output


def test_it_is_described(file: Path) -> None:
    assert (
        find_format(file).describe(file) == "Datumaro: 3 items, 3 declared labels; 2 bbox, 1 label, 1 mask, 1 caption"
    )
