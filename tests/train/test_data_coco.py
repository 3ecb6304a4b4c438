import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlic_runtime.annotations.folder import find_splits
from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.data import LabelSet, read_labels, read_split
from mlic_train.data.check import check_splits
from mlic_train.errors import DataError

Draw = Callable[..., Path]
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 10, "name": "traffic light"}]


def instances(count: int = 3, **changes: Any) -> dict[str, Any]:
    content = {
        "images": [{"id": 100 + n, "file_name": f"{n}.jpg"} for n in range(count)],
        "categories": CATEGORIES,
        "annotations": [
            {"image_id": 100, "category_id": 18},
            {"image_id": 100, "category_id": 18, "iscrowd": 1},
            {"image_id": 101, "category_id": 1, "iscrowd": 1},
            {"image_id": 100, "category_id": 10},
        ],
    }
    return {**content, **changes}


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def file(tmp_path: Path, draw: Draw) -> Path:
    for number in range(3):
        draw(tmp_path / "images" / f"{number}.jpg")
    return write(tmp_path / "instances_train.json", instances())


def test_labels_are_the_categories_by_id(file: Path) -> None:
    labels = read_labels([file])
    assert labels.names == ("person", "traffic light", "dog")
    assert labels.ids == ("1", "10", "18")


def test_annotations_become_labels_and_a_picture_without_any_has_none(file: Path) -> None:
    split = read_split([file], read_labels([file]))
    assert [(r.image_id, r.labels, r.captions, r.number) for r in split.records] == [
        ("0.jpg", (1, 2), (), 1),
        ("1.jpg", (0,), (), 2),
        ("2.jpg", (), (), 3),
    ]


def test_captions_are_found_beside_by_name(file: Path) -> None:
    captions = [{"image_id": 101, "caption": "A man."}, {"image_id": 101, "caption": " Some\nman "}]
    extra = {"image_id": 999, "caption": "Of another picture."}
    write(file.with_name("captions_train.json"), {"annotations": [*captions, extra]})
    split = read_split([file], read_labels([file]))
    assert [r.captions for r in split.records] == [(), ("A man.", "Some man"), ()]


def test_categories_outside_a_labels_file_are_ignored(file: Path) -> None:
    restricted = file.with_name("labels.csv")
    restricted.write_text("LabelID,Name\n7,dog\n")
    split = read_split([file], read_labels([file], labels_file=restricted))
    assert [r.labels for r in split.records] == [(0,), (), ()]


def test_categories_that_the_training_split_lacks_are_unknown_labels(file: Path) -> None:
    split = read_split([file], LabelSet(("dog", "person"), ("18", "1")), skip_bad_rows=True)
    assert [r.number for r in split.records] == [2, 3]
    assert [(p.number, p.kind) for p in split.skipped] == [(1, "unknown-label")]


def test_categories_match_by_id_where_labels_have_no_other_names(file: Path) -> None:
    split = read_split([file], LabelSet(("1", "10", "18"), ("1", "10", "18")))
    assert [r.labels for r in split.records] == [(1, 2), (0,), ()]


def test_no_common_category_is_an_error(file: Path) -> None:
    with pytest.raises(DataError, match="none of which is among the labels"):
        read_split([file], LabelSet(("horse",), ("1",), restricts=True))


@pytest.mark.parametrize("notation", [float, str, lambda number: f"{number}.0"])
def test_ids_may_be_floats_and_texts(file: Path, notation: Callable[[int], object]) -> None:
    expected = read_split([file], read_labels([file])).records
    changed = instances()
    for entry, names in (("images", ["id"]), ("categories", ["id"]), ("annotations", ["image_id", "category_id"])):
        changed[entry] = [{**each, **{name: notation(each[name]) for name in names}} for each in changed[entry]]
        write(file, {**instances(), entry: changed[entry]})
        assert read_split([file], read_labels([file])).records == expected
    write(file, changed)
    assert read_labels([file]).ids == ("1", "10", "18")
    assert read_split([file], read_labels([file])).records == expected


def test_texts_with_leading_zeros_are_ids_of_their_own(file: Path) -> None:
    images = [{"id": "01", "file_name": "0.jpg"}, {"id": "1", "file_name": "1.jpg"}]
    write(file, instances(images=images, annotations=[{"image_id": "01", "category_id": 18}]))
    assert [r.labels for r in read_split([file], read_labels([file])).records] == [(2,), ()]


@pytest.mark.parametrize("pictures", ["images/train2017", "train2017", "images"])
def test_pictures_are_found_in_the_published_layout(tmp_path: Path, draw: Draw, pictures: str) -> None:
    file = write(tmp_path / "annotations" / "instances_train2017.json", instances(1, annotations=[]))
    expected = draw(tmp_path / pictures / "0.jpg")
    assert read_split([file], read_labels([file])).records[0].image == expected


@pytest.mark.parametrize("pictures", ["photos/train2017", "photos"])
def test_a_given_pictures_folder_may_have_a_folder_per_split(tmp_path: Path, draw: Draw, pictures: str) -> None:
    file = write(tmp_path / "instances_train2017.json", instances(1, annotations=[]))
    expected = draw(tmp_path / pictures / "0.jpg")
    split = read_split([file], read_labels([file]), images=tmp_path / "photos")
    assert split.records[0].image == expected


@pytest.mark.parametrize(
    ("changes", "number", "kind", "message"),
    [
        ({"images": [{"id": 1, "file_name": "0.jpg"}, {"id": 2}]}, 2, "bad-row", "expected both of a picture"),
        (
            {"images": [{"id": 1, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}]},
            2,
            "duplicate-id",
            "record 1 has it",
        ),
        ({"annotations": [{"image_id": 102, "category_id": 7}]}, 3, "bad-row", "category_id 7"),
        ({"annotations": [{"image_id": 102, "category_id": 1.5}]}, 3, "bad-row", "category_id 1.5"),
        (
            {"images": [{"id": 1, "file_name": "0.jpg"}, {"id": 1.5, "file_name": "1.jpg"}]},
            2,
            "bad-row",
            "found id 1.5",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, None, "bad-row", "image_id 7"),
        ({"annotations": [{"image_id": [7], "category_id": 1}]}, None, "bad-row", "image_id None"),
        ({"images": [{"id": 1, "file_name": "0.jpg"}, {"id": 2, "file_name": "9.jpg"}]}, 2, "missing-picture", "9.jpg"),
    ],
)
def test_a_bad_entry_stops_or_is_skipped(
    file: Path, changes: dict[str, Any], number: int | None, kind: str, message: str
) -> None:
    write(file, instances(**{"annotations": [], **changes}))
    labels = read_labels([file])
    with pytest.raises(DataError, match=message):
        read_split([file], labels)
    split = read_split([file], labels, skip_bad_rows=True)
    assert [(p.number, p.kind) for p in split.skipped] == [(number, kind)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "found a JSON list"),
        ({"images": [], "annotations": []}, "not its captions file"),
        (instances(categories=[{"id": "x", "name": "dog"}]), "category id 'x'"),
        (instances(categories=[*CATEGORIES, CATEGORIES[0]]), "category 18 twice"),
        (instances(categories=[{"id": 1.5, "name": "dog"}]), "category id 1.5"),
        (instances(annotations={}), "no list of objects under 'annotations'"),
        ({"categories": CATEGORIES, "annotations": []}, "no list of objects under 'images'"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(file: Path, content: object, message: str) -> None:
    write(file, content)
    with pytest.raises(DataError, match=message):
        read_split([file], LabelSet(("dog",), ("18",), restricts=True), skip_bad_rows=True)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instances_train.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_labels([tmp_path / "instances_train.json"])


def test_a_broken_captions_file_is_refused(file: Path) -> None:
    write(file.with_name("captions_train.json"), {"annotations": [{"image_id": 100}]})
    with pytest.raises(DataError, match=r"captions_train\.json: found annotations\[0\] with the caption None"):
        read_split([file], read_labels([file]))


def test_the_categories_of_a_coco_file_are_the_labels_of_the_captions_read_with_it(file: Path) -> None:
    more = file.with_name("captions.csv")
    more.write_text("Labels,Caption\ntraffic light,A light.\n18,A dog.\n")
    labels = read_labels([file, more])
    assert labels.names == ("person", "traffic light", "dog")
    assert [r.labels for r in read_split([file, more], labels).records[3:]] == [(1,), (2,)]


def test_two_files_must_agree_on_their_categories(file: Path) -> None:
    other = write(file.with_name("instances_val.json"), instances(categories=[{"id": 1, "name": "cat"}]))
    with pytest.raises(DataError, match="category 1 is 'cat' here but 'person'"):
        read_labels([file, other])


def category(key: int, name: str, parent: str = "none") -> dict[str, Any]:
    return {"id": key, "name": name, "supercategory": parent}


@pytest.mark.parametrize(
    ("root", "note"),
    [
        ("animals", "the root category 'animals' has no annotations; it is left out"),
        ("dog", "the root category 'dog', which another category has too, has no annotations; it is left out"),
    ],
)
def test_a_root_category_without_annotations_is_left_out(tmp_path: Path, draw: Draw, root: str, note: str) -> None:
    categories = [category(0, root), category(1, "dog", root), category(2, "cat", root)]
    for number, name in enumerate(("train", "valid")):
        draw(tmp_path / name / "a_jpg.rf.0123.jpg", number)
        content = instances(
            images=[{"id": 0, "file_name": "a_jpg.rf.0123.jpg", "height": 12, "width": 16}],
            categories=categories,
            annotations=[{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": []}],
        )
        write(tmp_path / name / "_annotations.coco.json", content)
    splits = find_splits(tmp_path)
    assert splits.val == (tmp_path / "valid" / "_annotations.coco.json",)
    labels = read_labels(splits.train)
    assert (labels.names, labels.ids) == (("dog", "cat"), ("1", "2"))
    split = read_split(splits.val, labels)
    assert [record.labels for record in split.records] == [(0,)]
    messages = [warning.message for warning in split.warnings]
    assert messages == [
        note,
        "the categories of 1 boxes or masks count as labels of the whole picture",
    ]


def test_a_root_category_with_annotations_stays(file: Path) -> None:
    categories = [category(1, "animals"), category(2, "dog", "animals")]
    write(file, instances(categories=categories, annotations=[{"image_id": 100, "category_id": 1}]))
    assert read_labels([file]).names == ("animals", "dog")


def test_two_categories_of_one_name_are_one_label(file: Path) -> None:
    categories = [category(1, "dog", "pet"), category(2, "dog", "wild")]
    found = [{"image_id": 100, "category_id": 1}, {"image_id": 101, "category_id": 2}]
    write(file, instances(categories=categories, annotations=found))
    split = read_split([file], read_labels([file]))
    assert [record.labels for record in split.records] == [(0,), (0,), ()]
    assert [warning.message for warning in split.warnings] == ["2 categories are called 'dog'; they are one label"]


def test_without_categories_their_ids_are_the_labels(file: Path) -> None:
    content = instances(annotations=[{"image_id": 100, "category_id": 18}, {"image_id": 101, "category_id": 2}])
    del content["categories"]
    write(file, content)
    labels = read_labels([file])
    assert labels.names == ("2", "18")
    split = read_split([file], labels)
    assert [record.labels for record in split.records] == [(1,), (0,), ()]
    assert "found no `categories`; the 2 category ids" in split.warnings[0].message


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("labels.json", "data"),  # FiftyOne
        ("annotations.json", "images"),
        ("annotations/instances_default.json", "images/default"),  # CVAT
        ("annotations/instances_default.json", "images"),
        ("train.json", "train"),
        ("annotations/instances_Train.json", "images/Train"),
    ],
)
def test_the_namings_of_other_tools(tmp_path: Path, draw: Draw, name: str, pictures: str) -> None:
    picture = draw(tmp_path / pictures / "0.jpg")
    file = write(tmp_path / name, instances(1, annotations=[]))
    splits = find_splits(tmp_path)
    assert splits.train == (file,)
    assert read_split([file], read_labels([file]), images=splits.images).records[0].image == picture


def test_other_tasks_of_coco_do_not_disturb(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "annotations" / f"{task}_all.json", instances(1)) for task in ("instances", "person_keypoints")
    ]
    assert find_splits(tmp_path).train == (files[0],)


@pytest.mark.parametrize("name", ["train/0.jpg", "images\\train\\0.jpg", "0.jpg"])
def test_folders_in_a_name_are_kept_or_left_out_as_the_pictures_lie(tmp_path: Path, draw: Draw, name: str) -> None:
    picture = draw(tmp_path / "images" / "0.jpg")
    file = write(tmp_path / "labels.json", instances(annotations=[], images=[{"id": 1, "file_name": name}]))
    assert read_split([file], read_labels([file])).records[0].image == picture


def test_two_pictures_of_one_name_are_not_mixed_up(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "0.jpg")
    images = [{"id": number, "file_name": f"{name}/0.jpg"} for number, name in enumerate("ab")]
    file = write(tmp_path / "labels.json", instances(annotations=[], images=images))
    split = read_split([file], read_labels([file]), skip_bad_rows=True, allow_empty=True)
    assert [problem.kind for problem in split.skipped] == ["missing-picture", "missing-picture"]


def test_content_decides_what_a_picture_is_not_its_ending(tmp_path: Path, draw: Draw) -> None:
    for name in ("0.jfif", "1", "2.png"):
        draw(tmp_path / "x.jpg").rename(tmp_path / name)
    images = [{"id": n, "file_name": name} for n, name in enumerate(("0.jfif", "1", "2.png"))]
    write(tmp_path / "train.json", instances(annotations=[], images=images))
    splits = find_splits(tmp_path).by_split()
    assert [p.kind for p in check_splits(splits, read_labels(splits["train"])) if p.severity == "error"] == []


def test_it_is_described(file: Path) -> None:
    write(file.with_name("captions_train.json"), {"annotations": []})
    expected = "3 pictures in `images`, 3 categories (dog, person, traffic light), captions in captions_train.json"
    assert find_format(file).describe(file) == f"COCO annotations: {expected}"
