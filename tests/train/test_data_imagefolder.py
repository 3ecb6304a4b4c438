import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.formats.registry import find_format
from mlic_train.cli.train import train
from mlic_train.data import LabelSet, find_splits, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, draw: Draw) -> Callable[..., Path]:
    """Make pictures of different bytes with these names in a folder, and return it."""

    def make(*names: str, root: str = "data") -> Path:
        for seed, name in enumerate(names):
            draw(tmp_path / root / name, seed)
        return tmp_path / root

    return make


def messages(folder: Path) -> list[str]:
    labels = read_labels([folder])
    return [problem.message for problem in read_split([folder], labels).warnings]


def test_the_folder_of_a_picture_is_its_label(tree: Callable[..., Path]) -> None:
    folder = tree("dog/1.jpg", "dog/old/2.PNG", "traffic  light/1.jpg", "cat/1.webp")
    found = find_splits(folder)
    assert (found.train, found.val, found.notes) == ((folder,), (), ())
    labels = read_labels(found.train)
    assert labels.names == ("cat", "dog", "traffic light")
    split = read_split(found.train, labels)
    assert [(r.image_id, r.labels, r.image) for r in split.records] == [
        ("cat/1.webp", (0,), folder / "cat/1.webp"),
        ("dog/1.jpg", (1,), folder / "dog/1.jpg"),
        ("dog/old/2.PNG", (1,), folder / "dog/old/2.PNG"),
        ("traffic  light/1.jpg", (2,), folder / "traffic  light/1.jpg"),
    ]
    assert split.warnings == ()
    assert find_format(folder).describe(folder) == (
        "class folders: one label a picture, 3 labels (cat, dog, traffic  light)"
    )


@pytest.mark.parametrize(("train_name", "val_name"), [("train", "val"), ("Training", "VALID")])
def test_split_folders_hold_class_folders(tree: Callable[..., Path], train_name: str, val_name: str) -> None:
    folder = tree(*(f"{train_name}/{c}/1.jpg" for c in "ab"), f"{val_name}/a/2.jpg", "test/b/3.jpg")
    found = find_splits(folder)
    assert (found.train, found.val) == ((folder / train_name,), (folder / val_name,))
    assert found.test == (folder / "test",)
    labels = read_labels(found.train)
    assert [r.labels for r in read_split(found.val, labels).records] == [(0,)]
    result = CliRunner().invoke(train, ["--data", str(folder), "--check"])
    assert result.exit_code == 0, result.output


def test_one_folder_inside_another_is_descended_into_and_said(tree: Callable[..., Path]) -> None:
    folder = tree("pets/more/dog/1.jpg", "pets/more/cat/1.jpg")
    found = find_splits(folder)
    assert found.train == (folder / "pets" / "more",)
    assert found.notes == (f"{folder}: found the data in its folder pets/more",)
    unpacked_twice = tree("train/train/dog/1.jpg", "train/train/cat/1.jpg", root="twice")
    assert find_splits(unpacked_twice).train == (unpacked_twice / "train" / "train",)


def test_one_folder_of_pictures_is_no_class(tree: Callable[..., Path]) -> None:
    for names in (("images/1.jpg", "images/2.jpg"), ("images/1.jpg", "masks/1.png"), ("train/1.jpg", "test/2.jpg")):
        folder = tree(*names, root="-".join(names).replace("/", "_"))
        with pytest.raises(DataError, match=r"found 2 pictures and no labels; .* a folder for each label"):
            find_splits(folder)


def test_rows_in_a_file_win_over_folders(tree: Callable[..., Path]) -> None:
    folder = tree("dog/1.jpg", "cat/1.jpg")
    (folder / "rows.jsonl").write_text('{"image": "dog/1.jpg", "labels": ["dog", "cute"]}\n')
    assert find_splits(folder).train == (folder / "rows.jsonl",)
    assert find_splits(folder, "imagefolder").train == (folder,)


def test_the_same_bytes_in_two_class_folders_are_one_record_with_both_labels(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    shutil.copy(folder / "cat/1.jpg", folder / "dog/other name.jpg")
    split = read_split([folder], read_labels([folder]))
    assert [(r.image_id, r.labels) for r in split.records] == [
        ("cat/1.jpg", (0, 1)),
        ("cat/2.jpg", (0,)),
        ("dog/3.jpg", (1,)),
    ]
    assert [(p.kind, p.severity, p.message) for p in split.warnings] == [
        (
            "duplicate-picture",
            "warning",
            "found 1 pictures with the same bytes in several class folders, such as 'cat/1.jpg', "
            "'dog/other name.jpg'; each is one record with all of its labels",
        )
    ]


def test_what_is_passed_over_is_counted_and_named(tree: Callable[..., Path]) -> None:
    folder = tree("dog/1.jpg", "cat/1.jpg", "loose.jpg")
    for name in ("README.md", "dog/notes.pdf", ".hidden/1.jpg", "dog/.DS_Store", "__MACOSX/dog/._1.jpg", "empty/x.md"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x")
    assert messages(folder) == [
        "found 1 pictures outside of the class folders, not read: 'loose.jpg'",
        "found 3 files that are no pictures, not read: 'README.md', 'dog/notes.pdf', 'empty/x.md'",
        "found 1 class folders without a picture: 'empty'",
    ]


@pytest.mark.parametrize("name", ["1.jfif", "1.JPE", "1", "1.tmp", "photo.of.a.dog"])
def test_pictures_with_unusual_endings_go_by_their_content(tree: Callable[..., Path], name: str) -> None:
    folder = tree("dog/0.jpg", "cat/0.jpg")
    (folder / "dog/0.jpg").rename(folder / "dog" / name)
    assert [r.image_id for r in read_split([folder], read_labels([folder])).records] == ["cat/0.jpg", f"dog/{name}"]


def test_captions_beside_the_pictures_are_read(tree: Callable[..., Path]) -> None:
    folder = tree("dog/1.jpg", "dog/2.jpg", "cat/1.jpg")
    texts = {"dog/1.txt": "A dog sleeps on a red sofa.", "cat/1.txt": "Two cats look out of the window.\n"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    split = read_split(find_splits(folder).train, read_labels([folder]))
    assert [(r.labels, r.captions) for r in split.records] == [
        ((0,), ("Two cats look out of the window.",)),
        ((1,), ("A dog sleeps on a red sofa.",)),
        ((1,), ()),
    ]
    assert split.warnings == ()


def test_numbers_as_names_are_sorted_by_value(tree: Callable[..., Path]) -> None:
    assert read_labels([tree("2/1.jpg", "10/1.jpg", "1/1.jpg")]).names == ("1", "2", "10")


def test_a_link_in_a_circle_ends(tree: Callable[..., Path]) -> None:
    folder = tree("dog/1.jpg", "cat/1.jpg")
    (folder / "dog" / "again").symlink_to(folder, target_is_directory=True)
    assert len(read_split([folder], LabelSet(("cat", "dog"), ("cat", "dog"))).records) == 2


def test_a_folder_name_that_is_not_utf8_costs_its_rows(tree: Callable[..., Path]) -> None:
    folder = tree("dog/1.jpg", "cat/1.jpg")
    os.rename(os.fsencode(folder / "cat"), os.fsencode(folder) + b"/ca\xff")  # noqa: PTH104 # bytes
    split = read_split([folder], LabelSet(("dog",), ("dog",)), skip_bad_rows=True)
    assert [r.image_id for r in split.records] == ["dog/1.jpg"]
    assert [p.kind for p in split.skipped] == ["bad-row"]


def test_a_chosen_format_takes_any_folder_and_says_what_is_missing(tree: Callable[..., Path]) -> None:
    folder = tree("1.jpg", "2.jpg")
    with pytest.raises(DataError, match="found no picture in a class folder"):
        read_split(find_splits(folder, "imagefolder").train, LabelSet(("a",), ("a",)), data_format="imagefolder")


def test_folders_called_training_set_and_test_set_are_splits(tmp_path: Path, draw: Callable[..., Path]) -> None:
    for seed, name in enumerate(("training_set/dog/1.png", "training_set/cat/2.png", "test_set/dog/3.png")):
        draw(tmp_path / name, seed)
    found = find_splits(tmp_path)
    assert (found.train, found.val, found.test) == ((tmp_path / "training_set",), (), (tmp_path / "test_set",))
    assert read_labels(found.train).names == ("cat", "dog")
