import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train
from mlic_train.data import find_splits, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]
Make = Callable[[Mapping[str, str]], Path]
DOG, CAT = "0 0.716797 0.395833 0.216406 0.147222\n", "1 0.5 0.5 0.1 0.1\n"
YAML = "path: ../datasets/pets\ntrain: images/train\nval: images/val\ntest:\n\nnames:\n  0: dog\n  1: traffic light\n"


@pytest.fixture
def make(tmp_path: Path, draw: Draw) -> Make:
    """Write texts; for each label text also its picture, and pictures without texts where the text is None."""

    def write(texts: Mapping[str, str]) -> Path:
        for seed, (name, text) in enumerate(texts.items()):
            file = tmp_path / "data" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".jpg":
                draw(file, seed)
            else:
                file.write_text(text)
        return tmp_path / "data"

    return write


def read(folder: Path) -> dict[str, list[tuple[str | None, list[str]]]]:
    found = find_splits(folder)
    labels = read_labels(found.train)
    return {
        split: [(r.image_id, [labels.names[i] for i in r.labels or ()]) for r in read_split(files, labels).records]
        for split, files in found.by_split().items()
    }


def test_ultralytics_layout(make: Make) -> None:
    texts = {
        "data.yaml": YAML,
        "labels/train/1.txt": DOG + DOG + CAT,
        "labels/train/2.txt": "",
        "labels/val/3.txt": CAT,
    }
    folder = make({**texts, **{f"images/{name}.jpg": "" for name in ("train/1", "train/2", "train/4", "val/3")}})
    assert read(folder) == {
        "train": [
            ("images/train/1.jpg", ["dog", "traffic light"]),
            ("images/train/2.jpg", []),
            ("images/train/4.jpg", []),
        ],
        "val": [("images/val/3.jpg", ["traffic light"])],
    }
    train_source = folder / "images" / "train"
    assert [p.message for p in read_split([train_source], read_labels([train_source])).warnings] == [
        "3 boxes or outlines count as labels of the whole picture",
        "found 1 pictures without a text, with none of the labels: 'images/train/4.jpg'",
    ]
    assert find_format(train_source).describe(train_source) == (
        "YOLO: 2 classes (dog, traffic light); boxes are labels of the whole picture"
    )
    result = CliRunner().invoke(train, ["--data", str(folder), "--check"])
    assert result.exit_code == 0, result.output


def test_roboflow_layout(make: Make) -> None:
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['dog', 'cat']\n"
    texts = {"data.yaml": yaml, "README.dataset.txt": "pets", "train/labels/1.txt": DOG, "valid/labels/2.txt": CAT}
    folder = make({**texts, "train/images/1.jpg": "", "valid/images/2.jpg": "", "test/images/3.jpg": ""})
    assert read(folder) == {"train": [("images/1.jpg", ["dog"])], "val": [("images/2.jpg", ["cat"])]}


@pytest.mark.parametrize("names", ["obj.names", "classes.txt"])
def test_texts_beside_pictures(make: Make, names: str) -> None:
    folder = make({names: "dog\ncat\n", "1.txt": DOG, "2.txt": DOG + CAT, "1.jpg": "", "2.jpg": ""})
    assert read(folder) == {"train": [("1.jpg", ["dog"]), ("2.jpg", ["dog", "cat"])]}


def test_lists_of_pictures_give_the_splits(make: Make) -> None:
    """As CVAT's export `YOLO 1.1` has them."""
    texts = {
        "obj.names": "dog\ncat\n",
        "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "train.txt": "data/obj_train_data/1.jpg\ndata/obj_train_data/2.jpg\n",
        "valid.txt": "data/obj_valid_data/3.jpg\n",
        "obj_train_data/1.txt": DOG,
        "obj_train_data/2.txt": "",
        "obj_valid_data/3.txt": CAT,
    }
    folder = make({**texts, "obj_train_data/1.jpg": "", "obj_train_data/2.jpg": "", "obj_valid_data/3.jpg": ""})
    assert read(folder) == {
        "train": [("obj_train_data/1.jpg", ["dog"]), ("obj_train_data/2.jpg", [])],
        "val": [("obj_valid_data/3.jpg", ["cat"])],
    }
    (folder / "train.txt").write_text("../../secret.jpg\nobj_train_data/1.jpg\n")
    split = read_split([folder / "train.txt"], read_labels([folder / "train.txt"]), skip_bad_rows=True)
    assert [(r.image_id) for r in split.records] == ["obj_train_data/1.jpg"]
    assert [p.kind for p in split.skipped] == ["bad-row"]


def test_without_names_the_numbers_are_the_labels(make: Make) -> None:
    folder = make({"images/1.jpg": "", "labels/1.txt": "10 1 1 1 1\n2 0.1 0.1 0.2 0.2 0.3 0.3"})
    assert read(folder) == {"train": [("images/1.jpg", ["2", "10"])]}


def test_the_same_pictures_for_val_are_no_val(make: Make) -> None:
    yaml = "train: images/train2017\nval: images/train2017\nnames: [dog, cat]\n"
    folder = make({"data.yaml": yaml, "images/train2017/1.jpg": "", "labels/train2017/1.txt": DOG})
    assert list(read(folder)) == ["train"]


@pytest.mark.parametrize(
    "line", ["7 0.5 0.5 0.1 0.1", "dog 0.5 0.5 0.1 0.1", "0 0.5 0.5", "0 a b c d", "-1 0 0 0 0", "0 " + "9" * 10_000]
)
def test_a_broken_line_costs_its_picture(make: Make, line: str) -> None:
    texts = {"data.yaml": YAML, "images/train/1.jpg": "", "images/train/2.jpg": "", "labels/train/1.txt": DOG}
    folder = make({**texts, "labels/train/2.txt": DOG})
    files = find_splits(folder).train
    (folder / "labels/train/2.txt").write_text(line + "\n")
    split = read_split(files, read_labels(files, "yolo"), data_format="yolo", skip_bad_rows=True)
    assert len(split.records) == 1
    assert [(p.kind, p.message.startswith("labels/train/2.txt: found the ")) for p in split.skipped] == [
        ("bad-row", True)
    ]


@pytest.mark.parametrize("text", ["names: 3", "- a\n- b", ""])
def test_a_yaml_file_that_names_no_classes_is_passed_over(make: Make, text: str) -> None:
    folder = make({"data.yaml": text, "images/train/1.jpg": "", "labels/train/1.txt": DOG})
    assert read(folder) == {"train": [("images/train/1.jpg", ["0"])]}


@pytest.mark.parametrize("text", ["names: [", "names: !!python/object/apply:os.system [ls]", "[" * 5000])
def test_a_broken_yaml_file_is_one_line(make: Make, text: str) -> None:
    folder = make({"data.yaml": text, "images/train/1.jpg": "", "labels/train/1.txt": DOG})
    with pytest.raises(DataError, match=r"data\.yaml: not YAML"):
        find_splits(folder)


def test_names_that_are_no_list_are_an_error(make: Make) -> None:
    folder = make({"data.yaml": "names: {a: dog}\n", "images/train/1.jpg": "", "labels/train/1.txt": DOG})
    with pytest.raises(DataError, match="in its YAML file; expected a list of names"):
        read_labels(find_splits(folder).train)


def test_random_damage_gives_rows_or_problems(make: Make) -> None:
    folder = make({"data.yaml": YAML, "images/train/1.jpg": "", "labels/train/1.txt": DOG})
    files, rng = find_splits(folder).train, random.Random(0)
    labels = read_labels(files)
    for _ in range(200):
        content = bytearray((DOG + CAT).encode())
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (folder / "labels/train/1.txt").write_bytes(content)
        split = read_split(files, labels, data_format="yolo", skip_bad_rows=True, allow_empty=True)
        assert len(split.records) + len(split.skipped) == 1


def test_a_declared_split_without_texts_is_said(make: Make) -> None:
    texts = {"data.yaml": YAML, "labels/train/1.txt": DOG}
    folder = make({**texts, "images/train/1.jpg": "", "images/val/2.jpg": ""})
    found = find_splits(folder)
    assert found.val == ()
    messages = [problem.message for problem in read_split(found.train, read_labels(found.train)).warnings]
    expected = f"{folder / 'images' / 'val'}, which the YAML file names for val, has no texts with labels"
    assert expected in messages
