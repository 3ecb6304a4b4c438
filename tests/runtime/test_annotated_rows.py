from pathlib import Path

import pytest

from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.rows import AnnotatedRows, LocatedRow, join_captions
from mlic_runtime.errors import DataError


def located(rows: AnnotatedRows) -> list[LocatedRow]:
    return [row for row in rows.read() if not isinstance(row, Problem)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "a.jpg").touch()
    (tmp_path / "images" / "deep" / "b.jpg").touch()
    labels, captions = tmp_path / "train.csv", tmp_path / "captions.csv"
    labels.write_text("image,labels\na.jpg,dog\nb.jpg,cat\nc.jpg,cat\n../d.jpg,cat\n")
    captions.write_text("image,caption\na.jpg,one\na,two\na.jpg,one\n")
    return [labels, captions]


def test_rows_of_one_picture_have_one_key_across_sources_and_spellings(files: list[Path]) -> None:
    rows = AnnotatedRows(files)
    by_key: dict[object, tuple[str, ...]] = {}
    for row in located(rows):
        by_key[row.key] = join_captions(by_key.get(row.key, ()), row.row.captions)
    picture = files[0].parent / "images" / "a.jpg"
    assert by_key[picture] == ("one", "two")
    assert [each.name for each in rows.formats.values()] == ["csv", "csv"]
    assert [note.partition(",")[0] for note in rows.notes()] == [
        "found 1 picture in a subfolder",
        "found 1 picture by the name without its ending",
    ]


def test_a_picture_that_is_not_found_is_a_problem_of_its_row(files: list[Path]) -> None:
    found = {row.row.image_id: row.problem for row in located(AnnotatedRows(files, images_option="--there"))}
    assert found["a.jpg"] is None
    missing, outside = found["c.jpg"], found["../d.jpg"]
    assert missing is not None
    assert (missing.kind, missing.number) == ("missing-picture", 3)
    assert missing.message.endswith("expected it there, or another folder with --there")
    assert outside is not None
    assert outside.kind == "bad-row"
    plain = {row.row.image_id: row.problem for row in located(AnnotatedRows(files))}["c.jpg"]
    assert plain is not None
    assert plain.message.endswith("expected it there")


def test_without_pictures_the_name_is_the_key_else_the_row(files: list[Path]) -> None:
    texts = files[0].with_name("texts.csv")
    texts.write_text("caption,labels\none,dog\none,dog\n")
    rows = located(AnnotatedRows([*files, texts], pictures=False))
    assert [row.key for row in rows[:2]] == ["a.jpg", "b.jpg"]
    assert [row.key for row in rows[-2:]] == [(texts, 1), (texts, 2)]
    assert all(row.picture is None and row.problem is None for row in rows)


def test_the_folder_of_the_pictures_has_to_be_there(files: list[Path]) -> None:
    with pytest.raises(DataError, match="nowhere: not a folder; expected the pictures folder"):
        AnnotatedRows(files, files[0].with_name("nowhere"))
