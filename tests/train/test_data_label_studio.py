import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.folder import find_splits
from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train as command
from mlic_train.data import LabelSet, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]
LABELS = LabelSet(("cat", "dog"), ("cat", "dog"))


def choices(*names: str, control: str = "labels") -> dict[str, Any]:
    return {
        "value": {"choices": list(names)},
        "id": "t5sp3TyXPo",
        "from_name": control,
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }


def box(name: str, kind: str = "rectanglelabels") -> dict[str, Any]:
    return {
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "value": {"x": 50.8, "y": 5.9, "width": 12.4, "height": 10.5, "rotation": 0, kind: [name]},
        "id": "Dx_aB91ISN",
        "from_name": "tag",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def annotation(*result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": 1001,
        "completed_by": 1,
        "result": list(result),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2021-03-09T22:16:08.728353Z",
        "lead_time": 4.288,
        **changes,
    }


def task(image: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    """Return a task as the export JSON has it, without the fields about its project."""
    return {
        "id": 1,
        "annotations": list(annotations),
        "drafts": [],
        "predictions": [],
        "data": {"image": image, **data},
        "meta": {},
        "created_at": "2021-03-09T21:52:49.513742Z",
        "project": 83,
    }


def minimal(image: str, number: int, answers: dict[str, Any], annotation_id: int | None = 1) -> dict[str, Any]:
    """Return an object of JSON_MIN, with its keys in the order of Label Studio."""
    end = {"annotator": 1, "annotation_id": annotation_id, "created_at": "2021", "updated_at": "2021", "lead_time": 3.0}
    return {"image": image, "caption": "A  dog.", "id": number, **answers, **end}


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def rows(file: Path, labels: LabelSet | None = None, **options: Any) -> list[tuple[Any, ...]]:
    split = read_split([file], labels or read_labels([file]), **options)
    return [(r.image_id, r.captions, r.labels, r.unknown) for r in split.records]


def notes(file: Path, **options: Any) -> list[str]:
    return [warning.message for warning in read_split([file], read_labels([file]), **options).warnings]


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    for seed in (1, 2, 3):
        draw(tmp_path / "images" / f"{seed}.jpg", seed)
    return tmp_path


def test_choices_are_labels_and_an_empty_answer_is_none_of_them(folder: Path) -> None:
    tasks = [
        task("1.jpg", annotation(choices("dog", "cat")), caption="A dog\nand a cat."),
        task("2.jpg", annotation()),
        task("3.jpg", annotation(choices("dog"))),
    ]
    file = write(folder / "export.json", tasks)
    assert find_format(file).name == "label-studio"
    assert read_labels([file]).names == ("cat", "dog")
    assert rows(file) == [("1.jpg", ("A dog and a cat.",), (0, 1), ()), ("2.jpg", (), (), ()), ("3.jpg", (), (1,), ())]
    assert notes(file) == []


def test_tasks_without_an_answer_are_left_out_and_counted(folder: Path) -> None:
    predicted = {**task("2.jpg"), "predictions": [{"model_version": "m", "score": 0.5, "result": [choices("cat")]}]}
    tasks = [
        predicted,
        task("3.jpg", annotation(choices("cat"), was_cancelled=True)),
        task("1.jpg", annotation(choices("dog"))),
    ]
    file = write(folder / "export.json", tasks)
    assert rows(file) == [("1.jpg", (), (0,), ())]
    assert notes(file) == ["2 of 3 tasks have no annotation (1 of them were cancelled); they are left out"]


def test_predictions_alone_are_an_error(folder: Path) -> None:
    content = {"data": {"image": "1.jpg"}, "predictions": [{"result": [choices("dog")]}]}
    file = write(folder / "tasks.json", [content])
    with pytest.raises(DataError, match=r"1 tasks, none of which has an annotation \(predictions are none\)"):
        read_labels([file])


def test_labels_of_regions_and_paths_of_a_taxonomy_are_labels(folder: Path) -> None:
    path = {**choices(), "type": "taxonomy", "value": {"taxonomy": [["Animal", "Dog"], ["Sky"]]}, "from_name": "kind"}
    separate = [{**box("x", "labels"), "value": {"x": 1, "labels": ["wheel"]}}, {**box("x"), "type": "rectangle"}]
    file = write(folder / "export.json", [task("1.jpg", annotation(path, box("car"), box("car"), *separate))])
    assert read_labels([file]).names == ("Animal/Dog", "Sky", "car", "wheel")
    assert rows(file) == [("1.jpg", (), (0, 1, 2, 3), ())]
    assert notes(file) == [
        "the labels of 3 boxes or other regions count for the whole picture",
        "2 choices of a taxonomy are labels named by their paths, such as 'Animal/Dog'",
    ]


def test_what_is_no_label_is_named(folder: Path) -> None:
    of_region = {**choices("blurred", control="state"), "value": {"x": 1, "choices": ["blurred"]}}
    note = {"type": "textarea", "from_name": "note", "value": {"text": ["dark"]}}
    written = {"type": "textarea", "from_name": "caption", "value": {"text": ["Two dogs."]}}
    file = write(folder / "a.json", [task("1.jpg", annotation(choices("dog"), of_region, note, written), site="web")])
    assert rows(file) == [("1.jpg", ("Two dogs.",), (0,), ())]
    assert notes(file) == [
        "answers that are no labels are not read: 1 of choices 'state' of regions, 1 of textarea 'note'",
        "the data 'site' of tasks is not read",
    ]


def test_labels_that_only_some_people_chose_are_unknown(folder: Path) -> None:
    tasks = [
        task("1.jpg", annotation(choices("dog", "cat")), annotation(choices("dog"))),
        task("2.jpg", annotation(choices("dog")), annotation(choices("dog"))),
        task("3.jpg", annotation(choices("dog")), annotation(choices("cat"), ground_truth=True)),
    ]
    file = write(folder / "export.json", tasks)
    assert rows(file) == [("1.jpg", (), (1,), (0,)), ("2.jpg", (), (1,), ()), ("3.jpg", (), (0,), ())]
    assert notes(file) == [
        "1 tasks have an annotation marked as ground truth, which counts alone",
        "3 tasks have several annotations, which differ in 1; labels that only some have are unknown there",
    ]


def test_one_choice_in_two_controls_becomes_two_labels(folder: Path) -> None:
    tasks = [
        task("1.jpg", annotation(choices("yes", control="dog"), choices("no", control="cat"))),
        task("2.jpg", annotation(choices("yes", control="dog"), choices("yes", control="cat"))),
    ]
    file = write(folder / "export.json", tasks)
    labels = read_labels([file])
    assert labels.names == ("cat: yes", "dog: yes", "no")
    assert rows(file, labels) == [("1.jpg", (), (1, 2), ()), ("2.jpg", (), (0, 1), ())]
    # The names do not depend on what else a file has.
    assert rows(write(folder / "other.json", tasks[:1]), labels) == [("1.jpg", (), (1, 2), ())]
    assert "several controls have the same choice" in notes(file)[0]


@pytest.mark.parametrize(
    ("address", "there"),
    [
        ("/data/local-files/?d=images/1.jpg", "1.jpg"),
        ("/data/local-files/?d=photos%2Fa%20b.jpg", "a b.jpg"),
        ("/data/upload/12/0af3b2c1-1.jpg", "1.jpg"),
        ("/data/upload/12/0af3b2c1-1.jpg", "0af3b2c1-1.jpg"),
        ("http://localhost:8080/data/upload/0af3b2c1-1.jpg", "1.jpg"),
        ("s3://bucket/set/1.jpg", "set/1.jpg"),
        ("s3://bucket/set/1.jpg", "1.jpg"),
        ("https://example.com/set/a%20b.jpg?token=1", "a b.jpg"),
        ("gs://bucket/1.jpg", "1.jpg"),
    ],
)
def test_a_picture_is_found_by_the_end_of_its_address(tmp_path: Path, draw: Draw, address: str, there: str) -> None:
    picture = draw(tmp_path / "images" / there)
    file = write(tmp_path / "export.json", [task(address, annotation(choices("dog")))])
    split = read_split([file], read_labels([file]))
    assert split.records[0].image == picture
    assert "1 of 1 pictures are addresses, which are not fetched" in split.warnings[0].message


def test_a_hash_stays_where_the_file_has_it(folder: Path, draw: Draw) -> None:
    draw(folder / "images" / "0af3b2c1-1.jpg")
    tasks = [task("/data/upload/1/0af3b2c1-1.jpg", annotation(choices("dog"))), task("1.jpg", annotation())]
    split = read_split([write(folder / "export.json", tasks)], LabelSet(("dog",), ("dog",)))
    assert [record.image.name for record in split.records if isinstance(record.image, Path)] == [
        "0af3b2c1-1.jpg",
        "1.jpg",
    ]


def test_two_pictures_of_one_name_in_two_folders_are_not_mixed_up(folder: Path) -> None:
    tasks = [task(f"s3://b/{place}/1.jpg", annotation(choices(label))) for place, label in (("x", "dog"), ("y", "cat"))]
    split = read_split([write(folder / "export.json", tasks)], LABELS, skip_bad_rows=True, allow_empty=True)
    assert [problem.kind for problem in split.skipped] == ["missing-picture", "missing-picture"]


@pytest.mark.parametrize("address", ["/data/local-files/?d=../../etc/passwd", "s3://bucket/../../etc/passwd"])
def test_an_address_does_not_leave_the_pictures_folder(folder: Path, address: str) -> None:
    file = write(folder / "export.json", [task(address, annotation(choices("dog")))])
    split = read_split([file], read_labels([file]), skip_bad_rows=True, allow_empty=True)
    assert [problem.kind for problem in split.skipped] == ["bad-row"]


def test_the_minimal_export_is_read(folder: Path) -> None:
    objects = [
        minimal("/data/upload/1/00000000-1.jpg", 1, {"labels": {"choices": ["dog", "cat"]}}),
        minimal("/data/upload/1/00000000-2.jpg", 2, {"labels": "dog"}),
        minimal("/data/upload/1/00000000-3.jpg", 3, {}),
        minimal("/data/upload/1/00000000-3.jpg", 4, {}, annotation_id=None),
    ]
    file = write(folder / "export.json", objects)
    assert find_format(file).name == "label-studio"
    assert [(row[0], row[2]) for row in rows(file)] == [
        ("00000000-1.jpg", (0, 1)),
        ("00000000-2.jpg", (1,)),
        ("00000000-3.jpg", ()),
    ]
    assert rows(file)[0][1] == ("A dog.",)


def test_regions_and_paths_of_the_minimal_export(folder: Path) -> None:
    region = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["car"], "original_width": 640}
    answers = {"box": [region, region], "kind": [{"taxonomy": [["Animal", "Dog"]]}]}
    file = write(folder / "export.json", [minimal("1.jpg", 1, answers)])
    assert read_labels([file]).names == ("Animal/Dog", "car")


def test_several_objects_of_one_task_are_the_answers_of_several_people(folder: Path) -> None:
    objects = [minimal("1.jpg", 1, {"labels": label}) for label in ("dog", "cat")]
    assert rows(write(folder / "a.json", objects), LABELS) == [("1.jpg", ("A dog.",), (), (0, 1))]


def test_the_minimal_export_with_sorted_keys(folder: Path) -> None:
    content = [dict(sorted({**minimal("1.jpg", 1, {"labels": "dog"}), "site": "web"}.items()))]
    file = write(folder / "export.json", content)
    assert read_labels([file]).names == ("dog",)
    assert notes(file) == ["the data 'site' of tasks is not read"]


def test_the_labelling_configuration_declares_the_labels(folder: Path) -> None:
    (folder / "labels.xml").write_text(
        '<View><Image name="image" value="$image"/><Choices name="labels" toName="image" choice="multiple">'
        '<Choice value="dog"/><Choice value="cat" alias="Cat"/></Choices>'
        '<RectangleLabels name="box" toName="image"><Label value="car"/></RectangleLabels>'
        '<Taxonomy name="kind" toName="image"><Choice value="Animal"><Choice value="Dog"/></Choice></Taxonomy>'
        '<Choices name="state" toName="image" perRegion="true"><Choice value="blurred"/></Choices></View>'
    )
    file = write(folder / "export.json", [task("1.jpg", annotation(choices("dog")))])
    assert read_labels([file]).names == ("dog", "Cat", "car", "Animal", "Animal/Dog")
    (folder / "other.xml").write_text("<View/>")
    with pytest.raises(DataError, match=r"labelling configurations labels\.xml, other\.xml; expected one"):
        read_labels([file])


def test_a_key_of_the_data_says_the_split(folder: Path) -> None:
    tasks = [task(f"{n}.jpg", annotation(choices("dog")), split=split) for n, split in ((1, "Training"), (2, "valid"))]
    file = write(folder / "export.json", tasks)
    assert [record.split for record in read_split([file], read_labels([file])).records] == ["train", "val"]


def test_what_mlic_infer_wrote_and_people_corrected(folder: Path) -> None:
    """The tasks of `mlic-infer --uncertain`, as they are exported after the correction."""
    tasks = [
        {
            **task("/data/local-files/?d=photos/1.jpg", annotation(choices("dog")), caption="A dog."),
            "predictions": [{"model_version": "hybrid", "score": 0.5, "result": [choices("cat")]}],
        },
        task("", annotation(choices("cat")), caption="A cat."),
        task("/data/local-files/?d=photos/2.jpg", annotation(), caption=""),
    ]
    file = write(folder / "export.json", tasks)
    assert rows(file) == [
        ("photos/1.jpg", ("A dog.",), (1,), ()),
        (None, ("A cat.",), (0,), ()),
        ("photos/2.jpg", (), (), ()),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([task("1.jpg", annotation(choices("dog"))), {"data": 3}], r"record 2: bad-row: found \{'data': 3\}"),
        ([{**task("1.jpg"), "annotations": [17]}], r"found the annotations \[17\]"),
        (
            [task("1.jpg", annotation({"type": "choices", "value": 3}))],
            "found the value 3 of a result of type 'choices'",
        ),
        ([task("1.jpg", annotation({"type": "choices", "value": {"choices": [[1]]}}))], r"found the choices \[\[1\]\]"),
        ([task("1.jpg", annotation(result=3))], "found the result 3"),
    ],
)
def test_a_malformed_task_is_a_problem_of_its_row(folder: Path, content: object, message: str) -> None:
    file = write(folder / "export.json", content)
    with pytest.raises(DataError, match=message):
        read_split([file], LABELS)


def test_data_without_picture_and_caption_is_refused(folder: Path) -> None:
    content = task("1.jpg", annotation(choices("dog")))
    file = write(folder / "export.json", [{**content, "data": {"audio": "1.wav"}}])
    with pytest.raises(DataError, match="found 'audio' in the data of tasks; expected a picture in `image`"):
        read_labels([file])


def test_the_picture_may_have_another_key(folder: Path) -> None:
    content = task("", annotation(choices("dog")))
    assert rows(write(folder / "a.json", [{**content, "data": {"front": "1.jpg"}}]))[0][0] == "1.jpg"
    file = write(folder / "b.json", [{**content, "data": {"front": "1.jpg", "back": "2.jpg"}}])
    with pytest.raises(DataError, match="found pictures under 'front', 'back'; expected one"):
        read_labels([file])


def test_it_is_described(folder: Path) -> None:
    file = write(folder / "a.json", [task("1.jpg", annotation(choices("dog"), box("car")), caption="A dog.", site="x")])
    expected = "picture in 'image', caption in 'caption', labels from 'labels' (choices), 'tag' (rectanglelabels)"
    assert find_format(file).describe(file) == f"Label Studio export (JSON): 1 tasks, {expected}; not read: 'site'"
    file = write(folder / "b.json", [minimal("1.jpg", 1, {"labels": "dog"})])
    assert find_format(file).describe(file).startswith("Label Studio export (JSON_MIN): 1 tasks, picture in 'image'")


def test_a_folder_is_checked(folder: Path) -> None:
    train = [task(f"{n}.jpg", annotation(choices(label))) for n, label in ((1, "dog"), (2, "cat"))]
    write(folder / "train.json", train)
    write(folder / "val.json", [task("3.jpg", annotation(choices("dog", "cat")))])
    splits = find_splits(folder)
    assert (splits.train, splits.val) == ((folder / "train.json",), (folder / "val.json",))
    result = CliRunner().invoke(command, ["--data", str(folder), "--check"])
    assert result.exit_code == 0, result.output
