import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mlic_train.data
from mlic_runtime.annotations.formats.registry import find_format
from mlic_runtime.annotations.names import DATA_FORMATS
from mlic_train.data import LabelSet, find_splits, read_labels, read_split
from mlic_train.errors import DataError

LABELS = LabelSet(("dog", "cat"), ("1", "2"))
Draw = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_facade_is_sorted_and_complete() -> None:
    names = mlic_train.data.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))  # constants first, as ruff sorts
    assert all(hasattr(mlic_train.data, name) for name in names)


def test_reading_loads_neither_numpy_nor_pillow_nor_torch() -> None:
    code = "import sys, mlic_train.data; print(sorted({'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "expected"), [("a.csv", "csv"), ("a.CSV", "csv"), ("a.jsonl", "jsonl"), ("instances_a.json", "coco")]
)
def test_the_format_goes_by_the_name(name: str, expected: str) -> None:
    assert find_format(Path(name)).name == expected
    assert expected in DATA_FORMATS


def test_an_unclear_or_unknown_format_is_an_error() -> None:
    with pytest.raises(DataError, match="mlic-train --data-format"):
        find_format(Path("train.txt"))
    with pytest.raises(DataError, match=r"expected one of auto, .*csv"):
        find_format(Path("train.csv"), "tsv")


def test_several_files_of_several_formats_make_one_split(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    first = write(tmp_path / "train.csv", "ImageID,Labels,Caption\na.jpg,1,A dog.\n")
    second = write(
        tmp_path / "more.jsonl", '{"caption": "A cat.", "labels": ["cat"]}\n{"image": "a.jpg", "caption": "B"}\n'
    )
    split = read_split([first, second], LABELS)
    assert [(r.file, r.number, r.captions) for r in split.records] == [
        (first, 1, ("A dog.", "B")),
        (second, 1, ("A cat.",)),
    ]
    assert read_labels([first, second]).names == ("1", "cat")


def test_one_name_in_two_folders_is_two_pictures(tmp_path: Path, draw: Draw) -> None:
    files = []
    for folder, label in (("x", 1), ("y", 2)):
        draw(tmp_path / folder / "images" / "a.jpg")
        files.append(write(tmp_path / folder / "train.csv", f"ImageID,Labels,Caption\na.jpg,{label},A pet.\n"))
    assert [r.labels for r in read_split(files, LABELS).records] == [(0,), (1,)]


def test_other_labels_in_another_file_name_both_records(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    first = write(tmp_path / "one.csv", "ImageID,Labels\na.jpg,1\n")
    second = write(tmp_path / "two.csv", "ImageID,Labels\na.jpg,2\n")
    with pytest.raises(DataError) as error:
        read_split([first, second], LABELS)
    assert f"{second}:record 1: duplicate-id" in str(error.value)
    assert f"record 1 of {first}" in str(error.value)


@pytest.mark.parametrize("folder", ["", "images"])
def test_pictures_lie_in_images_or_beside_the_file(tmp_path: Path, draw: Draw, folder: str) -> None:
    picture = draw(tmp_path / folder / "a.jpg")
    file = write(tmp_path / "train.csv", "ImageID,Labels\na.jpg,1\n")
    assert read_split([file], LABELS).records[0].image == picture


def test_a_given_pictures_folder_wins(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    picture = draw(tmp_path / "photos" / "sub" / "a.jpg")
    file = write(tmp_path / "train.csv", "ImageID,Labels\nsub/a.jpg,1\n")
    assert read_split([file], LABELS, images=tmp_path / "photos").records[0].image == picture


def test_a_missing_pictures_folder_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "train.csv", "ImageID,Labels\na.jpg,1\n")
    with pytest.raises(DataError, match="expected the pictures folder"):
        read_split([file], LABELS, images=tmp_path / "photos")


def test_a_missing_picture_is_named_with_its_full_path(tmp_path: Path) -> None:
    file = write(tmp_path / "train.csv", f"ImageID,Labels\n{'n' * 300}/a.jpg,1\nsub/a.jpg,1\n")
    (tmp_path / "images" / "sub" / "a.jpg").mkdir(parents=True)
    split_error = str(tmp_path / "images" / "sub" / "a.jpg")
    with pytest.raises(DataError, match="record 1: missing-picture"):
        read_split([file], LABELS)
    with pytest.raises(DataError) as error:
        read_split([file], LABELS, skip_bad_rows=True)
    assert "all 2 rows were bad" in str(error.value)
    write(file, "ImageID,Labels\nsub/a.jpg,1\n")
    with pytest.raises(DataError) as error:
        read_split([file], LABELS)
    assert split_error in str(error.value)


def test_folders_are_listed_once_not_once_per_row(tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["ImageID,Labels"]
    for number in range(20):
        draw(tmp_path / "images" / f"{number}.jpg")
        rows.append(f"{number}.jpg,1")
    file = write(tmp_path / "train.csv", "\n".join(rows))
    scandir = os.scandir
    listed: list[Path] = []

    def counted(path: Path) -> object:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert len(read_split([file], LABELS).records) == 20
    assert listed == [tmp_path / "images"]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv: cannot be read: there is no such file"):
        read_split([tmp_path / "train.csv"], LABELS)


def test_no_file_is_an_error() -> None:
    with pytest.raises(DataError, match="found no file"):
        read_split([], LABELS)
    with pytest.raises(DataError, match="found no file"):
        read_labels([])


def test_a_split_can_be_sent_to_another_process(tmp_path: Path) -> None:
    split = read_split([write(tmp_path / "c.csv", "Labels,Caption\n1,A dog.\n")], LABELS)
    copy = pickle.loads(pickle.dumps(split))
    assert copy == split
    assert copy.labels.index("cat") == 1


@pytest.mark.parametrize(
    "train", ["train.csv", "train.jsonl", "instances_train2017.json", "annotations/instances_train.json"]
)
def test_a_data_folder_is_found_by_its_names(tmp_path: Path, train: str) -> None:
    for name in (train, "val.jsonl", "test.csv", "captions.csv", "captions_more.csv", "labels.csv", "images/a.jpg"):
        write(tmp_path / name, "")
    found = find_splits(tmp_path)
    assert found.train == (tmp_path / train,)
    assert found.val == (tmp_path / "val.jsonl",)
    assert found.test == (tmp_path / "test.csv",)
    assert found.captions == (tmp_path / "captions.csv", tmp_path / "captions_more.csv")
    assert found.labels_file == tmp_path / "labels.csv"
    assert found.images == tmp_path / "images"


def test_only_the_training_split_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "")
    found = find_splits(tmp_path)
    assert (found.val, found.test, found.captions, found.labels_file, found.images) == ((), (), (), None, None)


def test_a_folder_without_a_training_split_lists_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "val.csv", "")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"no training split; found images/, val\.csv; expected files or folders"):
        find_splits(tmp_path)
    with pytest.raises(DataError, match="not a file or folder"):
        find_splits(tmp_path / "nowhere")


def test_one_split_in_two_files_is_ambiguous(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "")
    write(tmp_path / "annotations" / "instances_train.json", "")
    with pytest.raises(DataError, match=r"found train\.csv, annotations/instances_train\.json for the split 'train'"):
        find_splits(tmp_path)


def test_splits_are_found_in_folders_named_like_them(tmp_path: Path) -> None:
    for name in ("Train/rows.csv", "valid/rows.jsonl", "TEST/instances_a.json", "labels.csv"):
        write(tmp_path / name, "")
    found = find_splits(tmp_path)
    assert found.train == (tmp_path / "Train" / "rows.csv",)
    assert found.val == (tmp_path / "valid" / "rows.jsonl",)
    assert found.test == (tmp_path / "TEST" / "instances_a.json",)
    assert found.labels_file == tmp_path / "labels.csv"


def test_the_only_source_of_a_folder_is_the_data_set(tmp_path: Path) -> None:
    for name in ("posters.csv", "labels.csv", "captions.csv", ".hidden.csv"):
        write(tmp_path / name, "")
    found = find_splits(tmp_path)
    assert (found.train, found.val, found.captions) == (
        (tmp_path / "posters.csv",),
        (),
        (tmp_path / "captions.csv",),
    )
    write(tmp_path / "more.jsonl", "")
    with pytest.raises(DataError, match=r"found posters\.csv, more\.jsonl for the training data; expected one"):
        find_splits(tmp_path)


def test_one_file_is_a_data_set(tmp_path: Path) -> None:
    for name in ("posters.csv", "captions.csv", "val.csv", "images/a.jpg"):
        write(tmp_path / name, "")
    found = find_splits(tmp_path / "posters.csv")
    assert (found.train, found.val, found.captions) == ((tmp_path / "posters.csv",), (), ())
    assert found.images == tmp_path / "images"


def test_two_folders_for_one_split_are_ambiguous(tmp_path: Path) -> None:
    for name in ("train/rows.csv", "val/rows.csv", "valid/rows.csv"):
        write(tmp_path / name, "")
    with pytest.raises(DataError, match=r"found val, valid for the split 'val'; expected one"):
        find_splits(tmp_path)
