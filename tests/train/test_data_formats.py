from pathlib import Path

import pytest

from mlic_runtime.annotations.formats import registry
from mlic_runtime.annotations.formats.format import Format, Rows, clean_row
from mlic_runtime.annotations.names import DATA_FORMATS
from mlic_runtime.base.override import override
from mlic_train.data import LabelSet, find_splits, read_labels, read_split
from mlic_train.errors import DataError

LABELS = LabelSet(("dog", "cat"), ("1", "2"))


class Lines(Format):
    """A caption, a bar and labels on each line."""

    name = "lines"
    title = "lines"
    file_names = ("*.lines", "captions_*.txt")
    split_files = ("{split}.lines",)

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            caption, _, cell = line.partition("|")
            yield clean_row(file, number, "", [caption], cell)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Format:
    added = Lines()
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, added))
    return added


@pytest.mark.parametrize("name", ["train.lines", "TRAIN.LINES", "captions_a.txt"])
def test_a_format_in_the_list_is_read(tmp_path: Path, lines: Format, name: str) -> None:
    file = tmp_path / name
    file.write_text("A  dog.|1\nA cat.|2\n")
    assert registry.find_format(file) is lines
    records = read_split([file], LABELS).records
    assert [(record.captions, record.labels) for record in records] == [(("A dog.",), (0,)), (("A cat.",), (1,))]
    assert read_labels([file]).names == ("1", "2")


def test_a_format_finds_the_split_of_a_data_folder(tmp_path: Path, lines: Format) -> None:
    (tmp_path / "train.lines").write_text("")
    (tmp_path / "val.lines").mkdir()
    assert lines.find_split(tmp_path, "train") == [(tmp_path / "train.lines",)]
    assert lines.find_split(tmp_path, "val") == []


def test_pictures_are_looked_for_in_the_given_folder_first(lines: Format) -> None:
    assert lines.picture_folders(Path("a/b.lines"), None) == [Path("a/images"), Path("a")]
    assert lines.picture_folders(Path("a/b.lines"), Path("c")) == [Path("c"), Path("a")]


def test_each_format_has_a_name_of_its_own() -> None:
    assert ("auto", *(each.name for each in registry.FORMATS)) == DATA_FORMATS


def test_pictures_alone_and_unread_tables_are_said(tmp_path: Path) -> None:
    for name in ("a.jpg", "deeper/b.PNG", ".DS_Store"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).touch()
    with pytest.raises(DataError, match="found 2 pictures and no labels; expected a table beside them"):
        find_splits(tmp_path / "pictures")
    for name in ("train.csv", "sample_submission.csv", "captions_more.csv", "labels.csv"):
        (tmp_path / name).write_text("image,label\n")
    (note,) = find_splits(tmp_path).notes
    assert "nothing is read from sample_submission.csv;" in note


@pytest.mark.parametrize(
    ("content", "message"),
    [("image,label\n", "found no rows"), ("image,caption\na.jpg,A dog.\n", "found 1 rows and no labels")],
)
def test_a_table_without_labels_is_said(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_labels([tmp_path / "train.csv"])
