from pathlib import Path

import pytest

from mlic_train.data import LabelSet, read_labels
from mlic_train.errors import DataError


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    "text", ["LabelID,Name\n2,traffic light\n1,dog\n\n", b"\xef\xbb\xbfName,LabelID\r\ntraffic light,2\r\ndog,1"]
)
def test_a_labels_file_gives_ids_and_names_in_its_order(tmp_path: Path, text: str | bytes) -> None:
    labels = read_labels([], labels_file=write(tmp_path, text))
    assert labels.names == ("traffic light", "dog")
    assert labels.ids == ("2", "1")
    assert labels.restricts
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected LabelID,Name"),
        ("LabelID\n1\n", "expected LabelID,Name"),
        ("LabelID,Name\n", "found no label"),
        ("LabelID,Name\n1,dog\n2\n", "record 2: found 1 columns"),
        ("LabelID,Name\n1,dog\n1,cat\n", "label id '1' occurs twice"),
        ("LabelID,Name\n1,dog\n2,dog\n", "label name 'dog' occurs twice"),
        ("LabelID,Name\n1,dog\n2,\n", "label name ''"),
        ("LabelID,Name\n1,a;b\n", "label name 'a;b'"),
        ("LabelID,Name\n1,2\n2,dog\n", "cannot be confused"),
        ('LabelID,Name\n1,"dog" x\n', "not a CSV file"),
        (b"LabelID,Name\n1,caf\xe9\n", "record 1: found the byte 0xE9"),
    ],
)
def test_a_broken_labels_file_is_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        LabelSet.from_file(file)
    assert str(error.value).startswith(str(file))


def test_a_missing_labels_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read: there is no such file"):
        LabelSet.from_file(tmp_path / "labels.csv")


def test_a_label_is_found_by_id_and_by_name() -> None:
    labels = LabelSet(("dog", "cat"), ("18", "17"))
    assert (labels.index("17"), labels.index("cat"), labels.index("dog")) == (1, 1, 0)
    assert "18" in labels
    assert "19" not in labels


def test_an_unknown_label_is_told_the_nearest_or_all() -> None:
    labels = LabelSet(("dog", "cat"), ("18", "17"))
    with pytest.raises(DataError, match="unknown label 'cats'; did you mean 'cat'"):
        labels.index("cats")
    with pytest.raises(DataError, match=r"unknown label '99'; expected one of 18 \(dog\), 17 \(cat\)"):
        labels.index("99")


def test_names_and_ids_must_pair_up() -> None:
    with pytest.raises(DataError, match="2 label names but 1 label ids"):
        LabelSet(("dog", "cat"), ("1",))


def test_label_sets_compare_by_their_labels() -> None:
    assert LabelSet(("dog",), ("1",)) == LabelSet(("dog",), ("1",), restricts=True)
    assert hash(LabelSet(("dog",), ("1",))) == hash(LabelSet(("dog",), ("1",)))
    assert LabelSet(("dog",), ("1",)) != LabelSet(("dog",), ("2",))


def test_whole_numbers_may_be_written_as_pandas_writes_them(tmp_path: Path) -> None:
    labels = LabelSet.from_file(write(tmp_path, "LabelID,Name\n18.0,dog\n10.0,traffic light\n"))
    assert labels.ids == ("18", "10")
    assert labels.parse("18.0") == labels.parse("18") == labels.parse("18.00") == (0,)
    assert labels.parse("10.0 18") == (0, 1)
    for other in ("18.5", "18.", ".0", "18.01"):
        with pytest.raises(DataError, match="unknown label"):
            labels.parse(other)


def test_names_that_look_like_versions_stay_as_they_are(tmp_path: Path) -> None:
    labels = LabelSet.from_file(write(tmp_path, "LabelID,Name\n1.0,a\n1.5,b\n"))
    assert labels.ids == ("1.0", "1.5")
    assert labels.parse("1.0") == (0,)


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_row_numbers_that_pandas_wrote_into_a_labels_file_are_ignored(tmp_path: Path, name: str) -> None:
    labels = LabelSet.from_file(write(tmp_path, f"{name},LabelID,Name\n0,18,dog\n1,10,cat\n"))
    assert (labels.ids, labels.names) == (("18", "10"), ("dog", "cat"))
