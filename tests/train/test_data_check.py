import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_runtime.annotations.problems import count_problems
from mlic_train.config import DataOptions
from mlic_train.data import (
    PROBLEM_KINDS,
    LabelSet,
    Problem,
    check_splits,
    fingerprint,
    read_split,
    summarise,
)
from mlic_train.data.splits import check_data, load_splits
from mlic_train.errors import DataError

LABELS = LabelSet(("dog", "cat"), ("1", "2"))
Draw = Callable[..., Path]
HEADER = "ImageID,Labels,Caption\n"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def data(tmp_path: Path, draw: Draw) -> Path:
    """A folder with four good pictures and two splits without a problem."""
    folder = tmp_path / "data"
    for seed, name in enumerate("abcd"):
        draw(folder / "images" / f"{name}.jpg", seed)
    write(folder / "train.csv", HEADER + "a.jpg,1,A dog.\nb.jpg,2,A cat.\n")
    write(folder / "val.csv", HEADER + "c.jpg,1 2,Pets.\n")
    return folder


def check(folder: Path, *, pictures: bool = True) -> list[Problem]:
    names = [name for name in ("train", "val") if (folder / f"{name}.csv").exists()]
    splits = {name: (folder / f"{name}.csv",) for name in names}
    return check_splits(splits, LABELS, pictures=pictures, workers=2)


def kinds(problems: list[Problem]) -> list[tuple[str, int | None, str, str]]:
    return [(problem.file.name, problem.number, problem.kind, problem.severity) for problem in problems]


def test_good_data_has_no_problem(data: Path) -> None:
    assert check(data) == []


def test_every_bad_row_is_listed_with_its_number(data: Path) -> None:
    rows = "a.jpg,1,A dog.\nx.jpg,1,Gone.\nb.jpg,9,A cat.\nd.jpg,1\na.jpg,2,A cat.\nb.jpg,2,A cat.\n,1,\n"
    write(data / "train.csv", HEADER + rows)
    assert kinds(check(data)) == [
        ("train.csv", 2, "missing-picture", "error"),
        ("train.csv", 3, "unknown-label", "error"),
        ("train.csv", 4, "bad-row", "error"),
        ("train.csv", 5, "duplicate-id", "error"),
        ("train.csv", 7, "bad-row", "error"),
    ]


def test_an_undecodable_picture_is_an_error(data: Path) -> None:
    whole = (data / "images" / "b.jpg").read_bytes()
    (data / "images" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "images" / "c.jpg").write_bytes(b"not a picture")
    problems = check(data)
    assert kinds(problems) == [
        ("train.csv", 2, "undecodable-picture", "error"),
        ("val.csv", 1, "undecodable-picture", "error"),
    ]
    assert str(data / "images" / "b.jpg") in problems[0].message


def test_blank_captions_and_repeated_rows_are_warnings(data: Path) -> None:
    write(data / "train.csv", HEADER + "a.jpg,1,A dog.\na.jpg,1,A dog.\nb.jpg,2,  \n")
    assert kinds(check(data)) == [
        ("train.csv", 2, "duplicate-id", "warning"),
        ("train.csv", 3, "empty-caption", "warning"),
    ]


def test_one_picture_in_two_splits_is_an_error_under_any_name(data: Path) -> None:
    shutil.copy(data / "images" / "b.jpg", data / "images" / "copy.jpg")
    write(data / "val.csv", HEADER + "c.jpg,1 2,Pets.\na.jpg,1,A dog.\ncopy.jpg,1,A cat.\n")
    problems = check(data)
    assert kinds(problems) == [("val.csv", 2, "split-overlap", "error"), ("val.csv", 3, "split-overlap", "error")]
    assert (
        f"in the split 'train' as 'b.jpg', record 2 of {data / 'train.csv'}, with other labels" in problems[1].message
    )


def test_one_picture_twice_in_a_split_is_a_warning(data: Path) -> None:
    shutil.copy(data / "images" / "b.jpg", data / "images" / "copy.jpg")
    write(data / "train.csv", HEADER + "a.jpg,1,A dog.\nb.jpg,2,A cat.\ncopy.jpg,2,A cat.\n")
    assert kinds(check(data)) == [("train.csv", 3, "duplicate-picture", "warning")]


def test_one_name_for_two_pictures_in_two_folders_is_no_overlap(tmp_path: Path, draw: Draw) -> None:
    splits = {}
    for seed, name in enumerate(("train", "val")):
        draw(tmp_path / name / "images" / "a.jpg", seed)
        splits[name] = (write(tmp_path / name / "rows.csv", HEADER + "a.jpg,1 2,Pets.\n"),)
    assert check_splits(splits, LABELS) == []


def test_without_pictures_the_same_id_is_an_overlap(data: Path) -> None:
    write(data / "val.csv", HEADER + "x.jpg,1,A dog.\nb.jpg,2,A cat.\n")
    assert kinds(check(data, pictures=False)) == [("val.csv", 2, "split-overlap", "error")]


def test_records_without_labels_and_labels_without_records_are_warnings(data: Path) -> None:
    write(data / "train.csv", HEADER + "a.jpg,1,A dog.\n")
    write(data / "val.csv", "ImageID,Caption\nc.jpg,Pets.\n")
    problems = check(data)
    assert kinds(problems) == [
        ("train.csv", None, "unused-label", "warning"),
        ("val.csv", None, "unlabelled", "error"),  # training would stop
    ]
    assert "'cat'" in problems[0].message
    assert "1 of 1 records" in problems[1].message


def test_unusable_files_do_not_hide_the_other_splits(data: Path) -> None:
    write(data / "train.csv", "Where,Labels\n")
    write(data / "val.csv", HEADER + "x.jpg,1,Gone.\n")
    problems = check(data)
    assert kinds(problems) == [
        ("train.csv", None, "bad-file", "error"),
        ("val.csv", None, "empty-split", "error"),
        ("val.csv", 1, "missing-picture", "error"),
    ]
    assert str(problems[0]).count(str(data / "train.csv")) == 1


def test_a_missing_pictures_folder_is_reported(data: Path) -> None:
    problems = check_splits({"train": (data / "train.csv",)}, LABELS, images=data / "nowhere")
    assert kinds(problems) == [("train.csv", None, "bad-file", "error")]


def test_progress_counts_every_picture_once(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    splits = {name: (data / f"{name}.csv",) for name in ("train", "val")}
    check_splits(splits, LABELS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_problem_reads_as_file_record_kind_message() -> None:
    assert str(Problem(Path("a.csv"), 7, "bad-row", "no")) == "a.csv:record 7: bad-row: no"
    assert str(Problem(Path("a.csv"), None, "bad-file", "no")) == "a.csv: bad-file: no"
    with pytest.raises(ValueError, match="unknown kind of problem 'odd'"):
        Problem(Path("a.csv"), 7, "odd", "no")
    assert all(PROBLEM_KINDS.values())


def test_a_summary_counts_what_a_split_holds(data: Path) -> None:
    rows = '{"image": "a.jpg", "captions": ["A", "B"], "labels": [1, 2]}\n{"image": "b.jpg", "labels": []}\n'
    rows += '{"caption": "C", "labels": [1]}\n{"caption": "D"}\n{"caption": "E", "labels": ["x"]}\n'
    summary = summarise(read_split([write(data / "mix.jsonl", rows)], LABELS, skip_bad_rows=True))
    assert (summary.records, summary.with_picture, summary.with_caption, summary.caption_only) == (4, 2, 3, 2)
    assert (summary.captions, summary.labelled, summary.without_label, summary.skipped) == (4, 3, 1, 1)
    assert summary.label_counts == {"dog": 2, "cat": 1}


def prints(folder: Path, suffix: str = "csv") -> str:
    return fingerprint({name: read_split([folder / f"{name}.{suffix}"], LABELS) for name in ("train", "val")})


def test_the_fingerprint_does_not_change_with_the_place(data: Path, tmp_path: Path) -> None:
    before = prints(data)
    assert len(before) == 64
    shutil.move(data, tmp_path / "elsewhere")
    assert prints(tmp_path / "elsewhere") == before


def test_the_fingerprint_does_not_change_with_the_format(data: Path) -> None:
    before = prints(data)
    train = '{"image": "a.jpg", "caption": "A dog.", "labels": ["dog"]}\n'
    train += '{"image": "b.jpg", "caption": "A cat.", "labels": [2]}\n'
    write(data / "train.jsonl", train)
    write(data / "val.jsonl", '{"image": "c.jpg", "caption": "Pets.", "labels": ["cat", "dog"]}\n')
    assert prints(data, "jsonl") == before


@pytest.mark.parametrize(
    "train", ["a.jpg,1,A hog.\nb.jpg,2,A cat.\n", "a.jpg,2,A dog.\nb.jpg,2,A cat.\n", "a.jpg,1,A dog.\n"]
)
def test_the_fingerprint_changes_with_the_rows(data: Path, train: str) -> None:
    before = prints(data)
    write(data / "train.csv", HEADER + train)
    assert prints(data) != before


def test_the_fingerprint_changes_with_a_picture_and_with_the_split(data: Path, draw: Draw) -> None:
    before = prints(data)
    split = read_split([data / "train.csv"], LABELS)
    assert fingerprint({"train": split}) != fingerprint({"test": split})
    draw(data / "images" / "a.jpg", size=(32, 32))
    assert prints(data) != before
    (data / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"record 1: the picture .* cannot be read any more"):
        fingerprint({"train": split})


def test_skipping_bad_rows_leaves_out_every_row_that_the_check_calls_an_error(data: Path) -> None:
    (data / "images" / "b.jpg").write_bytes(b"no picture")
    rows = "a.jpg,1,A dog.\nx.jpg,1,Gone.\nb.jpg,2,A cat.\nd.jpg,9,A cat.\nd.jpg,1\n,1 2,Pets.\n"
    write(data / "train.csv", HEADER + rows)
    write(data / "labels.csv", "LabelID,Name\n1,dog\n2,cat\n")
    splits = load_splits(DataOptions(data, skip_bad_rows=True))
    assert [record.number for record in splits.train.records] == [1, 6]
    errors = {(problem.number, problem.kind) for problem in check(data) if problem.severity == "error"}
    assert {(problem.number, problem.kind) for problem in splits.train.skipped} == errors
    assert (3, "undecodable-picture") in errors
    (data / "images" / "c.jpg").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"val.csv:record 1: undecodable-picture: .*no usable record in the split 'val'"
    ):
        load_splits(DataOptions(data, skip_bad_rows=True))


def test_skipping_bad_rows_leaves_out_a_picture_that_an_earlier_split_has(data: Path) -> None:
    shutil.copy(data / "images" / "b.jpg", data / "images" / "copy.jpg")
    write(data / "val.csv", HEADER + "c.jpg,1 2,Pets.\ncopy.jpg,2,A cat.\n")
    splits = load_splits(DataOptions(data, skip_bad_rows=True))
    assert [record.number for record in splits.val.records] == [1]
    assert [problem.kind for problem in splits.val.skipped] == ["split-overlap"]
    assert len(splits.train.records) == 2


def test_training_says_that_splits_share_pictures(data: Path) -> None:
    write(data / "val.csv", HEADER + "c.jpg,1 2,Pets.\nb.jpg,2,A cat.\n")
    shared = "val shares 1 picture with train, such as 'b.jpg', so that its metrics are too good; --skip-bad-rows"
    assert any(line.startswith(shared) for line in load_splits(DataOptions(data)).lines())
    assert not any(" shares " in line for line in load_splits(DataOptions(data, skip_bad_rows=True)).lines())


def test_training_and_checking_agree_on_what_is_one_picture_without_files(data: Path) -> None:
    write(data / "val.csv", HEADER + "c.jpg,1 2,Pets.\nb.jpg,2,A cat.\n")
    options = DataOptions(data, pictures=False)
    overlaps = [problem for problem in check_data(options).problems if problem.kind == "split-overlap"]
    assert [problem.count for problem in overlaps] == [1]
    assert any(line.startswith("val shares 1 picture with train, such as") for line in load_splits(options).lines())


def test_problems_are_counted_by_kind_errors_first() -> None:
    found = [Problem(Path("a.csv"), n, "empty-caption", "blank", "warning") for n in range(1, 6)]
    found += [Problem(Path("b.csv"), 7, "bad-row", "no"), Problem(Path("b.csv"), None, "bad-file", "gone")]
    counts = count_problems(iter(found))
    assert [(one.severity, one.kind, one.count, len(one.examples)) for one in counts] == [
        ("error", "bad-file", 1, 1),
        ("error", "bad-row", 1, 1),
        ("warning", "empty-caption", 5, 3),
    ]
    assert counts[1].line() == "error: 1 x bad-row: b.csv:record 7: no"
    assert counts[2].line().endswith("a.csv:record 3: blank; ... 2 more")
    assert len(count_problems(found, examples=None)[2].examples) == 5


def test_rows_without_labels_are_left_out_and_said(data: Path) -> None:
    write(data / "test.csv", "ImageID,Caption\nd.jpg,Something.\n")
    write(data / "more.jsonl", '{"caption": "E", "labels": [1]}\n{"caption": "F"}\n')
    options = DataOptions(data, train=(data / "train.csv", data / "more.jsonl"))
    splits = load_splits(options)
    assert len(splits.train.records) == 3
    assert splits.test is None
    first = f"the first is {data / 'more.jsonl'}: record 2"
    assert f"train: 1 rows that are not labelled are left out, {first}" in splits.lines()
    assert "test: none of 1 rows is labelled; it is left out" in splits.lines()


def test_without_pictures_none_is_decoded(data: Path) -> None:
    (data / "images" / "b.jpg").write_bytes(b"no picture")
    splits = load_splits(DataOptions(data, skip_bad_rows=True, pictures=False))
    assert len(splits.train.records) == 2


def test_places_are_relative_and_what_val_lacks_is_said_once(tmp_path: Path) -> None:
    rows = [f"{number} dogs,dog\n{number} cats,cat\n" for number in range(20)]
    (tmp_path / "rows.csv").write_text("".join(["Caption,Labels\n", *rows, "a bird,bird\n,cat\n"]), encoding="utf-8")
    check = check_data(DataOptions(folder=tmp_path, pictures=False))
    assert [example.partition(":")[0] for problem in check.problems for example in problem.examples] == ["rows.csv"]
    assert sum("bird (1)" in note for note in check.notes) == 1
    assert "unused-label" not in {problem.kind for problem in check.problems}
