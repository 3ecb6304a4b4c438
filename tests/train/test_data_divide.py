"""Val from training rows: shares of labels, groups of alike rows, and independence of order, paths and names."""

import csv
import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlic_train.config import DataOptions
from mlic_train.data import Record, read_labels, read_split
from mlic_train.data import splits as splits_module
from mlic_train.data.divide import Division, apply_division, divide, read_division, stratify, write_division
from mlic_train.data.splits import Splits, check_data, load_splits, read_splits
from mlic_train.errors import CheckpointError, ConfigError, DataError

Draw = Callable[..., Path]
Rows = Iterable[Sequence[object]]
HEADER = ("ImageID", "Labels", "Caption")


def write(file: Path, rows: Rows, header: Sequence[str] = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def captions(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return rows of (Labels, Caption) with labels from common to rare; every caption once."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02])
    drawn = rng.random((count, len(shares))) < shares
    return [("|".join(f"l{place}" for place in np.flatnonzero(row)), f"row {n}") for n, row in enumerate(drawn)]


def names_of(records: Iterable[Record]) -> set[str]:
    return {record.image_id or record.captions[0] for record in records}


def load(folder: Path, **options: object) -> Splits:
    return load_splits(DataOptions(folder, **options))  # type: ignore[arg-type] # options of the class


def test_each_label_gets_its_share_and_the_line_says_how(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", captions(1000), HEADER[1:])
    splits = load(tmp_path)
    assert len(splits.train.records) + len(splits.val.records) == 1000
    assert abs(len(splits.val.records) - 150) <= 2
    total, val = Counter[int](), Counter[int]()
    for records, counter in (((*splits.train.records, *splits.val.records), total), (splits.val.records, val)):
        counter.update(label for record in records for label in record.labels or ())
    for label, count in total.items():
        assert abs(val[label] - 0.15 * count) <= 1, (label, count)
    size = len(splits.val.records)
    assert f"val: {size} of 1,000 rows, chosen by --split-seed 0, stratified by label" in splits.lines()


def test_a_seed_is_another_division_and_a_fraction_another_size(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", captions(200), HEADER[1:])
    first, other = load(tmp_path), load(tmp_path, split_seed=1)
    assert names_of(first.val.records) != names_of(other.val.records)
    assert names_of(first.val.records) == names_of(load(tmp_path).val.records)
    assert abs(len(load(tmp_path, val_fraction=0.4).val.records) - 80) <= 2


def test_neither_order_nor_place_nor_names_matter(tmp_path: Path, draw: Draw) -> None:
    rng = np.random.default_rng(3)
    rows = [(f"p{n}.png", f"l{rng.integers(3)}", f"caption {n}") for n in range(40)]
    for n, (name, *_) in enumerate(rows):
        draw(tmp_path / "a" / "images" / name, n)
        draw(tmp_path / "b" / "sub" / "images" / "deeper" / f"other-{name}", n)
    write(tmp_path / "a" / "train.csv", rows)
    renamed = [(f"deeper/other-{name}", *rest) for name, *rest in rows]
    rng.shuffle(renamed)
    write(tmp_path / "b" / "sub" / "rows.csv", renamed)
    first, second = load(tmp_path / "a"), load(tmp_path / "b" / "sub")
    assert {record.captions for record in first.val.records} == {record.captions for record in second.val.records}
    assert [record.number for record in first.val.records] == sorted(record.number for record in first.val.records)


def test_alike_rows_stay_on_one_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for n in range(30):
        picture = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((90, 80))
        picture.save(folder / f"a{n}.png")
        picture.resize((60, 54)).save(folder / f"b{n}.jpg", quality=60)  # a near copy
        shutil.copy(folder / f"a{n}.png", folder / f"c{n}.png")  # the same bytes
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(folder / f"d{n}.png")
        rows += [(f"a{n}.png", "x", f"one {n}"), (f"b{n}.jpg", "y", ""), (f"c{n}.png", "x y", "")]
        rows.append((f"d{n}.png", "z", f"ONE {n}"))  # another picture with the same caption
    write(tmp_path / "train.csv", rows)
    splits = load(tmp_path)
    sides = {name: {n[1:].partition(".")[0] for n in names_of(split.records)} for name, split in splits.named().items()}
    assert sides["val"]
    assert not sides["train"] & sides["val"]
    assert "; 90 rows kept with others of the same picture, a near copy, or the same caption" in "".join(splits.notes)


def test_a_template_of_a_caption_does_not_bind_pictures(tmp_path: Path, draw: Draw) -> None:
    for n in range(40):
        draw(tmp_path / "images" / f"{n}.png", n, (9, 8))
    write(tmp_path / "train.csv", [(f"{n}.png", f"l{n % 2}", "a photo") for n in range(40)])
    assert len(load(tmp_path).val.records) == 6


def test_a_label_of_one_row_goes_to_train_and_that_is_said(tmp_path: Path) -> None:
    rows = [*captions(100), ("rare", "only one"), ("two", "first of two"), ("two", "second of two")]
    write(tmp_path / "train.csv", rows, HEADER[1:])
    splits = load(tmp_path)
    assert {"only one", "first of two", "second of two"} <= names_of(splits.train.records)
    (line,) = [note for note in splits.notes if note.startswith("val has no row")]
    assert "two (2)" in line
    assert "rare (1)" in line


@pytest.mark.parametrize("seed", range(5))
def test_ten_rows_are_enough(tmp_path: Path, seed: int) -> None:
    write(tmp_path / "train.csv", [("red" if n < 3 else "", f"row {n}") for n in range(10)], HEADER[1:])
    splits = load(tmp_path, split_seed=seed)
    assert 1 <= len(splits.val.records) <= 3
    assert any(record.labels for record in splits.val.records)
    assert any(record.labels for record in splits.train.records)


@pytest.mark.parametrize("rows", [[("red", "a")], [("red", "a"), ("green", "b"), ("blue", "c")]])
def test_too_few_rows_are_refused_in_one_line(tmp_path: Path, rows: Rows) -> None:
    write(tmp_path / "train.csv", rows, HEADER[1:])
    with pytest.raises(DataError, match=r"train\.csv: found no validation data, .*too few to divide.*--val FILE"):
        load(tmp_path)
    assert list(read_splits(DataOptions(tmp_path))) == ["train"]  # a report shows what is there
    (problem,) = [each for each in check_data(DataOptions(tmp_path)).problems if each.severity == "error"]
    assert "too few to divide" in problem.examples[0]


def test_more_captions_and_unlabelled_rows_are_not_divided(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", captions(60), HEADER[1:])
    write(tmp_path / "captions.csv", [(labels, f"more {text}") for labels, text in captions(60)], HEADER[1:])
    write(tmp_path / "test.csv", [("l0", "tested")], HEADER[1:])
    splits = load(tmp_path)
    assert len(splits.train.records) + len(splits.val.records) == 120
    assert not any(record.file.name == "captions.csv" for record in splits.val.records)
    assert splits.test is not None
    assert names_of(splits.test.records) == {"tested"}
    assert list(splits.named()) == ["train", "val", "test"]


def test_known_absences_of_unknown_labels_are_shared_out() -> None:
    # Label 0 is known in 20 of 200 rows; stratum 1 is "known to lack it", stratum 2 every row's own kind.
    counts = [{0: 1, 2: 1} if n < 10 else {1: 1, 2: 1} if n < 20 else {2: 1} for n in range(200)]
    in_val = stratify(counts, [1] * 200, 0.2, [False] * 200, 1)
    assert sum(in_val[:10]) == sum(in_val[10:20]) == 2
    assert sum(in_val) == 40


def test_unknown_labels_count_as_neither(tmp_path: Path) -> None:
    file = write(tmp_path / "train.csv", captions(100), HEADER[1:])
    split = read_split([file], read_labels([file]))
    records = tuple(
        dataclasses.replace(record, labels=tuple(one for one in record.labels or () if one), unknown=(0,))
        if record.number > 20
        else record
        for record in split.records
    )
    _, val, _ = divide(dataclasses.replace(split, records=records), 0.2, 0)
    known = [record for record in val.records if 0 not in record.unknown]
    assert len(known) == 4
    assert {bool(0 in (record.labels or ())) for record in known} == {True, False}


def test_what_was_divided_is_kept_and_found_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "train.csv", captions(50), HEADER[1:])
    splits = load(data)
    assert splits.division is not None
    write_division(tmp_path, splits.division)
    header, *lines = (tmp_path / "splits.csv").read_text().splitlines()
    assert header == "split,file,record,image_id,content"
    assert len(lines) == 50
    assert lines[0].split(",")[1:3] == ["train.csv", "1"]
    moved = Path(shutil.move(data, tmp_path / "elsewhere"))
    again = load_splits(DataOptions(moved, split_seed=9), runs=[tmp_path])
    assert [record.captions for record in again.val.records] == [record.captions for record in splits.val.records]
    assert any("splits.csv" in note for note in again.notes)


def test_a_kept_division_is_refused_for_other_rows(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    run.mkdir()
    write(data / "train.csv", captions(50), HEADER[1:])
    division = load(data).division
    assert division is not None
    write_division(run, division)
    write(data / "train.csv", [("l0", "new"), *captions(50)], HEADER[1:])
    with pytest.raises(DataError, match=r"found 0 of the \d+ rows that .*splits\.csv names for val; give the data"):
        load_splits(DataOptions(data), runs=[run])
    with pytest.raises(ConfigError, match=r"no validation data, and .*other had its own: give --val FILE"):
        load_splits(DataOptions(data), runs=[tmp_path / "other"])
    (run / "splits.csv").write_text("split,file\n")
    with pytest.raises(CheckpointError, match=r"splits\.csv is damaged \(found the header"):
        load_splits(DataOptions(data), runs=[run])


def test_runs_that_were_divided_differently_cannot_be_compared(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "train.csv", captions(50), HEADER[1:])
    for seed in (0, 1):
        (tmp_path / f"run{seed}").mkdir()
        division = load(data, split_seed=seed).division
        assert division is not None
        write_division(tmp_path / f"run{seed}", division)
    with pytest.raises(ConfigError, match=r"other divisions of their data.*--split-seed"):
        load_splits(DataOptions(data), runs=[tmp_path / "run0", tmp_path / "run1"])


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    division = Division({("a\udcff,\n.csv", 1, 'x"y', "0" * 12): "val"}, ("val",))
    write_division(tmp_path, division)
    again = read_division(tmp_path)
    assert again is not None
    assert again.split_of == division.split_of


def test_files_of_one_name_in_two_folders_are_kept_apart(tmp_path: Path) -> None:
    files = [write(tmp_path / "data" / name / "rows.csv", captions(30, n), HEADER[1:]) for n, name in enumerate("ab")]
    split = read_split(files, read_labels(files))
    train, val, division = divide(split, 0.2, 0)
    assert {key[0] for key in division.split_of} == {"a/rows.csv", "b/rows.csv"}
    assert apply_division(split, division, tmp_path) == (train, val)


def test_rows_that_name_their_split_are_where_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.csv", captions(20), HEADER[1:])
    words = {n: "val" if n < 4 else "test" if n < 6 else None if n == 20 else "train" for n in range(1, 21)}

    def named(*arguments: object, **options: object) -> object:
        split = read_split(*arguments, **options)  # type: ignore[arg-type] # as given
        return dataclasses.replace(
            split, records=tuple(dataclasses.replace(each, split=words[each.number]) for each in split.records)
        )

    monkeypatch.setattr(splits_module, "read_split", named)
    splits = load(tmp_path)
    assert {name: len(split.records) for name, split in splits.named().items()} == {"train": 15, "val": 3, "test": 2}
    assert splits.division is None
    assert "split as the rows say: 15 train, 3 val, 2 test; 1 rows that name none are for training" in splits.notes
    words.update(dict.fromkeys((1, 2, 3), "train"))
    assert load(tmp_path).division is not None  # test stays, val is divided off
    write(tmp_path / "val.csv", captions(2), HEADER[1:])
    with pytest.raises(DataError, match=r"val\.csv:record 1: split-overlap: the row names the split 'train'"):
        load(tmp_path)
