"""`--also`: more labelled rows, whose pictures may be in the data already."""

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mlic_train.config import DataOptions
from mlic_train.data.splits import Splits, check_data, load_splits
from mlic_train.errors import DataError

Draw = Callable[..., Path]
HEADER = ("ImageID", "Labels", "Caption")


def write(file: Path, *rows: Sequence[str], header: Sequence[str] = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


@pytest.fixture
def data(tmp_path: Path, draw: Draw) -> Path:
    folder = tmp_path / "data"
    for seed, name in enumerate("abcdef"):
        draw(folder / "images" / f"{name}.png", seed)
    write(folder / "train.csv", ("a.png", "cat", "A"), ("b.png", "dog", "B"))
    write(folder / "val.csv", ("c.png", "cat", "C"), ("d.png", "dog", "D"))
    return folder


def load(folder: Path, *also: Path, **options: object) -> Splits:
    return load_splits(DataOptions(folder, also=also, **options))  # type: ignore[arg-type] # options of the class


def labels_of(splits: Splits) -> dict[str, dict[str, list[str]]]:
    names = splits.labels.names
    return {
        split: {str(record.image_id): [names[label] for label in record.labels or ()] for record in rows.records}
        for split, rows in splits.named().items()
    }


def test_new_rows_join_train_and_known_pictures_take_the_newer_labels(data: Path) -> None:
    more = write(data / "fixed" / "more.csv", ("a.png", "dog", ""), ("c.png", "cat dog", ""), ("e.png", "cat", ""))
    splits = load(data, more)
    assert labels_of(splits) == {
        "train": {"a.png": ["dog"], "b.png": ["dog"], "e.png": ["cat"]},
        "val": {"c.png": ["cat", "dog"], "d.png": ["dog"]},
    }
    assert splits.train.records[0].captions == ("A",)
    expected = "also more.csv: 1 rows joined train, 2 were there already (1 of train, 1 of val rows got other labels)"
    assert expected in splits.lines()


def test_a_picture_is_known_by_its_bytes_under_any_name(data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "export"
    elsewhere.mkdir()
    shutil.copy(data / "images" / "b.png", elsewhere / "3f2a-b.png")
    more = write(elsewhere / "more.csv", ("3f2a-b.png", "cat", ""))
    splits = load(data, more)
    assert labels_of(splits)["train"] == {"a.png": ["cat"], "b.png": ["cat"]}


def test_captions_without_pictures_are_known_by_their_text(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ("cat", "A"), ("dog", "B"), header=HEADER[1:])
    write(tmp_path / "val.csv", ("cat", "C"), ("dog", "D"), header=HEADER[1:])
    more = write(tmp_path / "more.csv", ("dog", "A"), ("cat", "E"), header=HEADER[1:])
    splits = load(tmp_path, more)
    assert [(record.captions[0], record.labels) for record in splits.train.records] == [
        ("A", (1,)),
        ("B", (1,)),
        ("E", (0,)),
    ]


def test_rows_without_labels_change_nothing_and_unknown_labels_are_refused(data: Path) -> None:
    more = write(data / "fixed" / "more.csv", ("a.png", "A"), ("e.png", "E"), header=("ImageID", "Caption"))
    splits = load(data, more)
    assert labels_of(splits) == labels_of(load(data))
    assert any("2 are not labelled and change nothing" in line for line in splits.lines())
    write(more, ("a.png", "horse", ""))
    with pytest.raises(DataError, match=r"more\.csv:record 1: unknown-label: unknown label 'horse'"):
        load(data, more)
    assert check_data(DataOptions(data, also=(more,))).errors == 1


def test_val_that_is_divided_off_stays_the_same(data: Path, draw: Draw) -> None:
    (data / "val.csv").unlink()
    rows = []
    for n in range(20):
        draw(data / "images" / f"{n}.png", 100 + n)
        rows.append((f"{n}.png", "cat" if n % 2 else "dog", f"caption {n}"))
    write(data / "train.csv", *rows)
    more = write(data / "fixed" / "more.csv", ("0.png", "cat dog", ""), ("e.png", "cat", ""), ("f.png", "dog", ""))
    before, after = load(data), load(data, more)
    assert labels_of(before)["val"].keys() == labels_of(after)["val"].keys()
    assert labels_of(after)["train"].keys() - labels_of(before)["train"].keys() == {"e.png", "f.png"}
