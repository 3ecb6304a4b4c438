import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_train.data import LabelSet, read_labels, read_split
from mlic_train.errors import DataError

LABELS = LabelSet(("person", "dog", "traffic light"), ("1", "18", "10"), restricts=True)
Draw = Callable[..., Path]


def write(folder: Path, text: str | bytes, name: str = "train.csv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_columns_may_come_in_any_order(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    file = write(tmp_path, 'Caption,ImageID,Labels\n"A dog, a man.",a.jpg,18 1\n')
    (record,) = read_split([file], LABELS).records
    assert record.image_id == "a.jpg"
    assert record.image == tmp_path / "images" / "a.jpg"
    assert record.captions == ("A dog, a man.",)
    assert record.labels == (0, 1)
    assert (record.file, record.number) == (file, 1)


def test_a_file_without_image_ids_gives_captions_only(tmp_path: Path) -> None:
    split = read_split([write(tmp_path, "Labels,Caption\n18,A dog.\n,A tree.\n")], LABELS)
    assert [(r.image_id, r.image, r.captions, r.labels) for r in split.records] == [
        (None, None, ("A dog.",), (1,)),
        (None, None, ("A tree.",), ()),
    ]


def test_equal_captions_without_pictures_stay_separate_records(tmp_path: Path) -> None:
    assert len(read_split([write(tmp_path, "Labels,Caption\n18,A dog.\n18,A dog.\n")], LABELS).records) == 2


def test_without_a_labels_column_records_are_not_labelled(tmp_path: Path) -> None:
    (record,) = read_split([write(tmp_path, "Caption\nA dog.\n")], LABELS).records
    assert record.labels is None


def test_a_blank_labels_cell_means_none_of_the_labels(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    (record,) = read_split([write(tmp_path, "ImageID,Labels,Caption\na.jpg,,\n")], LABELS).records
    assert record.labels == ()
    assert record.captions == ()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1 18", (0, 1)),
        ("18 1 18", (0, 1)),
        ("person dog", (0, 1)),
        ("1 dog", (0, 1)),
        ("traffic light", (2,)),
        ("dog;traffic light", (1, 2)),
        (" traffic light | person ", (0, 2)),
        ("dog;", (1,)),
        ("  ", ()),
    ],
)
def test_labels_are_read_by_id_and_by_name(tmp_path: Path, cell: str, expected: tuple[int, ...]) -> None:
    (record,) = read_split([write(tmp_path, f"Labels,Caption\n{cell},A picture.\n")], LABELS).records
    assert record.labels == expected


def test_crlf_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    text = 'Labels,Caption\n18,"A dog,\nasleep."\n1,A man.\n'
    plain = read_split([write(tmp_path, text)], LABELS).records
    windows = read_split([write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())], LABELS).records
    assert windows == plain
    assert plain[0].captions == ("A dog, asleep.",)


def test_rows_of_one_picture_become_one_record_with_several_captions(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    file = write(tmp_path, "ImageID,Labels,Caption\nb.jpg,1,A man.\na.jpg,18 1,A dog.\na.jpg,1 18,A puppy.\n")
    split = read_split([file], LABELS)
    assert [(r.image_id, r.captions, r.number) for r in split.records] == [
        ("b.jpg", ("A man.",), 1),
        ("a.jpg", ("A dog.", "A puppy."), 2),
    ]
    assert split.warnings == ()


def test_a_repeated_row_is_a_warning(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "a.jpg")
    split = read_split([write(tmp_path, "ImageID,Labels,Caption\na.jpg,1,A man.\na.jpg,1,A man.\n")], LABELS)
    assert split.records[0].captions == ("A man.",)
    assert [(p.kind, p.number, p.severity) for p in split.warnings] == [("duplicate-id", 2, "warning")]


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("b.jpg,1", "bad-row", "found 2 columns; expected 3"),
        ("b.jpg,1,A man, a dog.", "bad-row", "found 4 columns; expected 3"),
        ("b.jpg,pigeon,A bird.", "unknown-label", "unknown label 'pigeon'"),
        ("b.jpg,persn,A man.", "unknown-label", "did you mean 'person'"),
        ("c.jpg,1,A man.", "missing-picture", "c.jpg"),
        ("../b.jpg,1,A man.", "bad-row", "inside the pictures folder"),
        ("x/../../b.jpg,1,A man.", "bad-row", "inside the pictures folder"),
        ("/b.jpg,1,A man.", "bad-row", "inside the pictures folder"),
        ("C:\\b.jpg,1,A man.", "bad-row", "inside the pictures folder"),
        ("b.jpg\0,1,A man.", "bad-row", ""),
        (",1,", "bad-row", "neither a picture nor a caption"),
        ('b.jpg,1,"A "man".', "bad-row", "expected quotes inside a quoted cell to be doubled"),
        ('b.jpg,1,"' + "x" * 140_000 + '"', "bad-row", "field larger than field limit"),
        ("a.jpg,18,A dog.", "duplicate-id", 'labels ["dog"], but record 1 gives it ["person"]'),
    ],
)
def test_a_bad_row_stops_with_its_file_and_number_or_is_skipped(
    tmp_path: Path, draw: Draw, row: str, kind: str, message: str
) -> None:
    draw(tmp_path / "images" / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    file = write(tmp_path, f"ImageID,Labels,Caption\na.jpg,1,A man.\n{row}\nb.jpg,18,A dog.\n")
    with pytest.raises(DataError) as error:
        read_split([file], LABELS)
    assert str(error.value).startswith(f"{file}:record 2: {kind}: ")
    assert message in str(error.value)
    assert "--skip-bad-rows" in str(error.value)
    assert "\n" not in str(error.value)

    split = read_split([file], LABELS, skip_bad_rows=True)
    assert [(r.image_id, r.number) for r in split.records] == [("a.jpg", 1), ("b.jpg", 3)]
    assert [(p.file, p.number, p.kind, p.severity) for p in split.skipped] == [(file, 2, kind, "error")]


def test_a_row_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    file = write(tmp_path, b"Labels,Caption\n18,A dog.\n18,A caf\xe9.\n18,A cat.\n")
    split = read_split([file], LABELS, skip_bad_rows=True)
    assert [r.number for r in split.records] == [1, 3]
    assert "0xE9" in split.skipped[0].message
    str(split.skipped[0]).encode()


def test_a_quote_that_is_never_closed_costs_one_record(tmp_path: Path) -> None:
    file = write(tmp_path, 'Labels,Caption\n18,"A dog.\n1,A man.\n18,A puppy.\n')
    split = read_split([file], LABELS, skip_bad_rows=True)
    assert [(r.number, r.captions) for r in split.records] == [(2, ("A man.",)), (3, ("A puppy.",))]
    assert [p.number for p in split.skipped] == [1]


def test_a_file_that_breaks_the_csv_rules_is_told_of_the_competition_format(tmp_path: Path) -> None:
    file = write(tmp_path, 'ImageID,Labels,Caption\n0.jpg,1,"A "man"."\n')
    with pytest.raises(DataError, match="--data-format competition"):
        read_split([file], LABELS, pictures=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no header"),
        ("\n1,2\n", "found 1, 2; expected a column for pictures"),
        ("where,Labels,what\n", "found where, Labels, what; expected a column for pictures"),
        ("Caption,Labels,Caption\n", "found the columns Caption and Caption, which are the same"),
        ("Labels\n1\n", "found Labels; expected a column for pictures"),
        ('Labels,"Caption"x\n', "a header that is not CSV"),
        ("ImageID,Labels,Caption\n", "no usable record"),
        ("Labels,Caption\n".encode("utf-16")[:-1], "found UTF-16 that is cut off or damaged"),
    ],
)
def test_an_unusable_file_is_refused_even_where_bad_rows_are_skipped(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        read_split([file], LABELS, skip_bad_rows=True)
    assert str(file) in str(error.value)


def test_the_reason_is_told_when_every_row_is_bad(tmp_path: Path) -> None:
    file = write(tmp_path, "Labels,Caption\npigeon,A bird.\n")
    with pytest.raises(DataError, match=r"all 1 rows were bad, the first: .*unknown label 'pigeon'"):
        read_split([file], LABELS, skip_bad_rows=True)


def test_labels_are_inferred_by_number_when_all_are_numbers(tmp_path: Path) -> None:
    labels = read_labels([write(tmp_path, "Labels,Caption\n10 2,x\n1,y\n,z\n")])
    assert labels.names == labels.ids == ("1", "2", "10")
    assert not labels.restricts


def test_labels_are_inferred_from_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    file = write(tmp_path, "Labels,Caption\n10.0,x\n2.0,y\n2,z\n,w\n")
    labels = read_labels([file])
    assert labels.ids == ("2", "10")
    assert [r.labels for r in read_split([file], labels).records] == [(1,), (0,), (0,), ()]
    assert read_labels([write(tmp_path, "Labels,Caption\n1.0,x\n1.5,y\n")]).ids == ("1.0", "1.5")


def test_labels_are_inferred_by_name_otherwise(tmp_path: Path) -> None:
    assert read_labels([write(tmp_path, "Labels,Caption\ndog cat,x\n7,y\n")]).names == ("7", "dog cat")
    assert read_labels([write(tmp_path, "Labels,Caption\ndog cat,x\ncat,y\ndog,z\n")]).names == ("cat", "dog")


def test_inferred_names_may_have_spaces_where_the_file_uses_separators(tmp_path: Path) -> None:
    file = write(tmp_path, "Labels,Caption\ndog;cat,x\ntraffic light,y\n")
    labels = read_labels([file])
    assert labels.names == ("cat", "dog", "traffic light")
    assert [r.labels for r in read_split([file], labels).records] == [(0, 1), (2,)]


def test_no_label_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 1 rows and no labels"):
        read_labels([write(tmp_path, "Caption\nA dog.\n")])


def test_what_the_csv_module_writes_is_read_back(tmp_path: Path) -> None:
    captions = ['A "stop" sign', '"', "a,b", "üñí 犬", "it's", 'ends with "quotes"']
    with (tmp_path / "c.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["Caption"], *([caption] for caption in captions)])
    assert [r.captions[0] for r in read_split([tmp_path / "c.csv"], LABELS).records] == captions


@pytest.mark.parametrize(
    ("header", "numbers"),
    [("", "7"), ("Unnamed: 0", "7"), ("Unnamed: 0.1,Unnamed: 0", "7,7"), (",Unnamed: 0", "7,3")],
)
def test_row_numbers_that_pandas_wrote_are_ignored_with_a_warning(tmp_path: Path, header: str, numbers: str) -> None:
    file = write(tmp_path, f"{header},Labels,Caption\n{numbers},18,A dog.\n{numbers},1,A man.\n")
    split = read_split([file], LABELS)
    assert [(r.captions, r.labels) for r in split.records] == [(("A dog.",), (1,)), (("A man.",), (0,))]
    (warning,) = split.warnings
    assert (warning.kind, warning.number, warning.severity) == ("ignored", None, "warning")
    assert "its row numbers are not read" in warning.message
    assert read_labels([file]).ids == ("1", "18")


def test_a_column_without_a_name_that_holds_something_else_is_not_ignored(tmp_path: Path) -> None:
    file = write(tmp_path, ",Labels,Caption\na.jpg,18,A dog.\n")
    with pytest.raises(DataError, match=r"found 'a\.jpg' in a column without a name; expected a row number"):
        read_split([file], LABELS)
    file = write(tmp_path, ",Labels,Caption\n0,18\n")
    with pytest.raises(DataError, match=r"found 2 columns; expected 3 \(Labels,Caption\)"):
        read_split([file], LABELS)
    (warning,) = read_split([write(tmp_path, "Labels,,Caption\n18,0,A dog.\n")], LABELS).warnings
    assert warning.message == "columns that are not read: 'a column without a name'"
