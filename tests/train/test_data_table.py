import datetime
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlic_runtime.annotations.formats.format import ColumnNames, Row
from mlic_runtime.annotations.formats.registry import find_format
from mlic_runtime.annotations.source.members import from_json, image_source, to_json
from mlic_runtime.annotations.source.parquet import ParquetPicture
from mlic_train.api import data_options
from mlic_train.config import DataOptions
from mlic_train.data import LabelSet, Split, find_splits, read_labels, read_split
from mlic_train.data.splits import read_splits
from mlic_train.errors import DataError

Draw = Callable[..., Path]


def write(path: Path, text: "str | bytes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(*files: Path, pictures: bool = False, columns: "ColumnNames | None" = None) -> Split:
    return read_split(
        files, read_labels(files, columns=columns), pictures=pictures, columns=columns, skip_bad_rows=True
    )


def names(split: Split) -> "list[tuple[str, ...] | None]":
    return [
        None if record.labels is None else tuple(split.labels.names[index] for index in record.labels)
        for record in split.records
    ]


def said(split: Split, kind: str = "interpreted") -> "list[str]":
    return [problem.message for problem in split.warnings if problem.kind == kind]


def describe(file: Path) -> str:
    return find_format(file).describe(file)


# --- labels in a cell: one rule for all cells


@pytest.mark.parametrize(
    ("cells", "expected", "note"),
    [
        (
            ['["traffic light", "dog"]', '["dog"]', "[]"],
            [("dog", "traffic light"), ("dog",), ()],
            "3 of 3 cells",
        ),
        (["['traffic light', 'dog']", "[]", "dog"], [("dog", "traffic light"), (), ("dog",)], "2 of 3 cells"),
        (
            ["traffic light|dog", "dog", ""],
            [("dog", "traffic light"), ("dog",), ()],
            "by ';' or '|' in 1 of 2",
        ),
        (
            ["traffic light;dog", "dog", " "],
            [("dog", "traffic light"), ("dog",), ()],
            "by ';' or '|' in 1 of 2",
        ),
        (["traffic light, dog", "dog", ""], [("dog", "traffic light"), ("dog",), ()], "separated by commas in 1 of 2"),
        (["1 20", "3", ""], [("1", "20"), ("3",), ()], "separated by spaces in 1 of 2 cells"),
        (["cat dog", "dog", "cat"], [("cat", "dog"), ("dog",), ("cat",)], "separated by spaces in 1 of 3 cells"),
        (
            ["traffic light", "dog", "dog"],
            [("traffic light",), ("dog",), ("dog",)],
            "with spaces in 1 of 3 cells",
        ),
    ],
)
def test_how_labels_are_separated_is_decided_once_and_said(
    tmp_path: Path, cells: "list[str]", expected: "list[tuple[str, ...]]", note: str
) -> None:
    lines = [f'"{cell.replace(chr(34), chr(34) * 2)}",caption {number}\n' for number, cell in enumerate(cells)]
    split = read(write(tmp_path / "train.csv", "Labels,Caption\n" + "".join(lines)))
    assert names(split) == expected
    assert [note in message for message in said(split)] == [True]


@pytest.mark.parametrize("word", ["None", "nan", "NaN", "null", "NULL", "N/A", "<NA>"])
def test_a_word_for_no_value_means_not_labelled_and_is_counted(tmp_path: Path, word: str) -> None:
    split = read(write(tmp_path / "train.csv", f"Labels,Caption\n{word},a\ndog,b\n,c\n"))
    assert (split.labels.names, names(split)) == (("dog",), [None, ("dog",), ()])
    assert said(split) == [f"1 cells of labels say that there is no value, such as {word!r}: not labelled"]
    declared = LabelSet((word, "dog"), (word, "dog"))
    assert read_split([tmp_path / "train.csv"], declared).records[0].labels == (0,)


def test_a_word_for_no_value_is_no_caption(tmp_path: Path) -> None:
    split = read(write(tmp_path / "train.csv", "image,text,label\na.jpg,nan,dog\nb.jpg,A dog.,dog\n"))
    assert [record.captions for record in split.records] == [("A dog.",)]
    assert [problem.kind for problem in split.skipped] == ["bad-row"]  # without pictures there is nothing else


def test_labels_that_look_alike_are_said_and_not_joined(tmp_path: Path) -> None:
    text = "label,text\nTraffic Light,a\ntraffic_light,b\ntraffic_light,c\ncaf\u00e9,d\ncafe\u0301,e\n"
    split = read(write(tmp_path / "train.csv", text))
    assert split.labels.names == ("Traffic Light", "caf\u00e9", "traffic_light")
    assert said(split, "similar-labels") == [
        "found 'Traffic Light' (1 rows) and 'traffic_light' (2 rows), which look alike and are different labels; write "
        "them alike if they are one"
    ]
    assert any("in two Unicode normal forms" in message for message in said(split))
    assert names(split)[3:] == [("caf\u00e9",), ("caf\u00e9",)]


# --- one-hot columns


def test_one_hot_columns_are_labels_in_their_order(tmp_path: Path) -> None:
    text = "Id,Year,dog,cat,never\nx,1999,1,0,0\ny,2000,0,1.0,0\nz,2001,,-1,?\nw,2002,true,nan,no\n"
    file = write(tmp_path / "posters.csv", text)
    for name in "xyzw":
        write(tmp_path / "Images" / f"{name}.jpg", "")
    split = read(file, pictures=True)
    assert split.labels.names == ("dog", "cat", "never")
    assert [(record.image, record.labels, record.unknown) for record in split.records] == [
        (tmp_path / "Images/x.jpg", (0,), ()),
        (tmp_path / "Images/y.jpg", (1,), ()),
        (tmp_path / "Images/z.jpg", None, ()),
        (tmp_path / "Images/w.jpg", (0,), (1,)),
    ]
    assert describe(file) == "CSV: picture in 'Id', 3 label columns (dog, cat, never); not read: 'Year'"
    assert said(split, "ignored") == ["columns that are not read: 'Year'"]
    assert any(message.startswith("4 cells of label columns are blank, nan, -1 or ?") for message in said(split))
    assert any(message.startswith("found 4 pictures by the name without its ending") for message in said(split))


def test_crosses_are_labels_and_blanks_beside_them_are_none(tmp_path: Path) -> None:
    split = read(write(tmp_path / "t.csv", "text,dog,cat\na,x,\nb,,X\nc,,\n"))
    assert names(split) == [("dog",), ("cat",), ()]
    assert all(record.unknown == () for record in split.records)


def test_a_column_that_repeats_the_label_columns_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "Id,Genre,Action,Drama\na,\"['Action', 'Drama']\",1,1\nb,\"['Drama']\",0,1\n")
    assert read_labels([file]).names == ("Action", "Drama")
    assert describe(file) == "CSV: picture in 'Id', 2 label columns (Action, Drama); not read: 'Genre'"


def test_flags_beside_a_labels_column_are_not_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "text,label,is_adult\na,dog,0\nb,cat,1\n")
    assert describe(file) == "CSV: captions in 'text', labels in 'label'; not read: 'is_adult'"


@pytest.mark.parametrize("text", ["text,dog,cat\na,1,0\nb,0.73,1\n", "text,dog,cat\na,0.1,0.9\nb,0.7,0.2\n"])
def test_fractions_in_label_columns_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"found 0\.\d+ in the column 'dog'; expected 1 or 0: soft labels come from"):
        read(write(tmp_path / "t.csv", text))


def test_label_columns_that_are_all_blank_in_another_split_stay_labels(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,dog,cat\na,1,0\nb,0,1\n")
    val = write(tmp_path / "val.csv", "text,dog,cat\na,1,\nb,0,\n")
    split = read_split([val], read_labels([train]))
    assert [(record.labels, record.unknown) for record in split.records] == [((0,), (1,)), ((), (1,))]


def test_roboflow_s_header_has_spaces_after_the_commas(tmp_path: Path) -> None:
    write(tmp_path / "a b.jpg", "")
    split = read(write(tmp_path / "_classes.csv", "filename, dog, traffic light\na b.jpg, 1, 0\n"), pictures=True)
    assert (split.labels.names, names(split)) == (("dog", "traffic light"), [("dog",)])


# --- other columns of labels


def test_numbered_columns_hold_a_label_each(tmp_path: Path) -> None:
    file = write(tmp_path / "t.tsv", "text\ttag_1\ttag_2\na\tdog\ttraffic light\nb\tcat\t\nc\t\t\n")
    split = read(file)
    assert names(split) == [("dog", "traffic light"), ("cat",), ()]
    assert describe(file) == "CSV, separated by tabs: captions in 'text', labels in 'tag_1', 'tag_2'"


def test_numbered_captions_are_several_captions(tmp_path: Path) -> None:
    split = read(write(tmp_path / "t.csv", "image;caption_1;caption_2;tags\na.jpg;A dog.;One dog.;dog\n"))
    assert split.records[0].captions == ("A dog.", "One dog.")


def test_columns_may_be_named_and_have_to_be_there(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "image,other,where,what,a,b\nx.jpg,y.jpg,test,A dog.,1,0.5\n")
    columns = ColumnNames(image="other", caption="what", labels=("a",), split="where")
    (record,) = read(file, columns=columns).records
    assert (record.image_id, record.captions, record.split) == ("y.jpg", ("A dog.",), "test")
    with pytest.raises(DataError, match="found no column 'nowhere'; expected one of: 'image', 'other'"):
        read(file, columns=ColumnNames(labels=("nowhere",)))
    with pytest.raises(DataError, match="which has no columns"):
        find_format(tmp_path / "x.tar", columns=columns)


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("Split", ("Training", "valid", "test"), ["train", "val", "test"]),
        ("fold", ("train", "dev", "testing"), ["train", "val", "test"]),
        ("is_valid", ("False", "True", "0"), ["train", "val", "train"]),
        ("is_test", ("0", "1", "0"), ["train", "test", "train"]),
        ("fold", ("0", "1", "2"), [None, None, None]),
    ],
)
def test_a_column_may_name_the_split(
    tmp_path: Path, header: str, cells: "tuple[str, ...]", expected: "list[str | None]"
) -> None:
    lines = "".join(f"caption {number},dog,{cell}\n" for number, cell in enumerate(cells))
    split = read(write(tmp_path / "t.csv", f"text,label,{header}\n{lines}"))
    assert [record.split for record in split.records] == expected
    assert said(split, "ignored") == ([f"columns that are not read: {header!r}"] if expected[0] is None else [])


def test_label_studio_s_csv_is_read(tmp_path: Path) -> None:
    write(tmp_path / "cat.jpg", "")
    text = (
        "image,id,choices,annotator,annotation_id,created_at,updated_at,lead_time\n"
        '/data/upload/3/0af3b2c1-cat.jpg,1,"{""choices"":[""cat"",""traffic light""]}",1,7,2024-01-01,2024-01-01,1.5\n'
    )
    split = read(write(tmp_path / "project.csv", text), pictures=True)
    assert split.records[0].image == tmp_path / "cat.jpg"
    assert names(split) == [("cat", "traffic light")]
    plain = "caption,id,choices,annotator,annotation_id,lead_time\na,1,cat,1,7,1\nb,2,,1,8,1\nc,3,,,,\n"
    assert names(read(write(tmp_path / "plain.csv", plain))) == [("cat",), (), None]


# --- JSON lines, JSON, Parquet


def test_json_lines_may_have_one_hot_keys_and_other_names(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.jpg", "text": "A dog.", "dog": 1, "cat": False},
        {"file_name": "b.jpg", "text": "x", "cat": 1},
    ]
    split = read(write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert [(record.labels, record.unknown) for record in split.records] == [((0,), ()), ((1,), (0,))]


def test_a_json_array_is_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.json", json.dumps([{"caption": "A dog.", "tags": ["dog", "traffic light"]}]))
    assert find_format(file).name == "json"
    assert names(read(file)) == [("dog", "traffic light")]


def features(column: str, *names: str) -> "dict[bytes, bytes]":
    label = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
    return {b"huggingface": json.dumps({"info": {"features": {column: label}}}).encode()}


@pytest.mark.parametrize("kind", ["struct", "bytes"])
def test_pictures_in_parquet_are_read_one_by_one(tmp_path: Path, draw: Draw, kind: str) -> None:
    pictures = [draw(tmp_path / f"{number}.png", seed=number).read_bytes() for number in range(5)]
    cells = [{"bytes": each, "path": f"{n}.png"} if kind == "struct" else each for n, each in enumerate(pictures)]
    table = pa.table({"image": cells, "labels": [[1], [0, 1], [], None, [0]]})
    folder = tmp_path / "hf/data"
    folder.mkdir(parents=True)
    for number, part in enumerate((table.slice(0, 3), table.slice(3))):
        part = part.replace_schema_metadata(features("labels", "dog", "cat"))
        parquet.write_table(part, folder / f"train-0000{number}-of-00002.parquet", row_group_size=2)
    split = read(*find_splits(tmp_path / "hf").train, pictures=True)
    assert names(split) == [("cat",), ("dog", "cat"), (), None, ("dog",)]
    for record, content in zip(split.records, pictures, strict=True):
        assert isinstance(record.image, ParquetPicture)
        assert record.image.read_bytes() == content
        assert record.image.size == len(content)
        assert from_json(json.loads(json.dumps(to_json(record.image)))) == record.image
        source = image_source(record.image)
        assert not isinstance(source, Path)
        assert source.read() == content
    assert split.records[0].image_id == ("0.png" if kind == "struct" else "train-00000-of-00002.parquet/1")
    first = split.records[0].image
    assert isinstance(first, ParquetPicture)
    parquet.write_table(pa.table({"image": [b"another"]}), folder / "train-00000-of-00002.parquet")
    with pytest.raises(OSError, match=r"it has changed|it is damaged"):
        first.read_bytes()


# --- where tables and pictures lie


@pytest.mark.parametrize("name", ["train.tsv", "train_labels.csv", "train-labels.csv", "train.ndjson"])
def test_names_of_files_tell_the_split(tmp_path: Path, name: str) -> None:
    content = '{"text": "a", "label": "b"}\n' if name.endswith("json") else "text\tlabel\na\tb\n"
    file = write(tmp_path / name, content)
    write(tmp_path / "sample_submission.csv", "id,label\n1,b\n")
    assert find_splits(tmp_path).train == (file,)


def test_hugging_face_s_imagefolder_has_metadata_in_each_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write(tmp_path / split / "sub/a.png", split)
        write(tmp_path / split / "metadata.csv", "file_name,text,label\nsub/a.png,A dog.,dog\n")
    found = read_splits(DataOptions(tmp_path))
    assert {name: split.records[0].image for name, split in found.items()} == {
        "train": tmp_path / "train/sub/a.png",
        "val": tmp_path / "validation/sub/a.png",
        "test": tmp_path / "test/sub/a.png",
    }


def test_one_metadata_file_may_name_the_splits_by_folders(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/c.png", "validation/b.png"):
        write(tmp_path / name, "")
    text = "file_name,labels\ntrain/a.png,dog\n.\\train\\c.png,dog\nvalidation/b.png,dog\n"
    file = write(tmp_path / "metadata.csv", text)
    assert find_splits(tmp_path).train == (file,)
    assert [record.split for record in read(file, pictures=True).records] == ["train", "train", "val"]
    assert describe(file).endswith("split by the first folder of the pictures' names")


@pytest.mark.parametrize("folder", ["images", "Images", "imgs", "pictures", "train", "images/train", "a/b/c"])
def test_pictures_are_found_in_the_usual_folders(tmp_path: Path, folder: str) -> None:
    picture = write(tmp_path / folder / "a.jpg", "")
    split = read(write(tmp_path / "train_labels.csv", "image,label\na.jpg,dog\n"), pictures=True)
    assert split.records[0].image is not None
    assert Path(str(split.records[0].image)).samefile(picture)


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        (["images/a.jpg", "images/a.png"], "a", "found 2 pictures for 'a': .*a.jpg, .*a.png; expected one"),
        (["x/a.jpg", "y/a.jpg"], "a.jpg", "found 2 pictures for 'a.jpg'"),
        (["images/b.jpg"], "a.jpg", "no picture at .*images/a.jpg, in .*, or below; expected it there"),
    ],
)
def test_pictures_that_are_not_there_or_several_are_said(
    tmp_path: Path, files: "list[str]", name: str, message: str
) -> None:
    for file in files:
        write(tmp_path / file, "")
    table = write(tmp_path / "t.csv", f"image,label\n{name},dog\n")
    with pytest.raises(DataError, match=rf"record 1: missing-picture: {message}"):
        read_split([table], read_labels([table]))


@pytest.mark.parametrize("what", ["a link to nowhere", "a link to itself", "a FIFO", "a folder"])
def test_what_is_no_file_is_no_picture_and_leaves_the_others_alone(tmp_path: Path, what: str) -> None:
    write(tmp_path / "images/a.jpg", "")
    odd = tmp_path / "images" / "odd.jpg"
    if what == "a FIFO":
        os.mkfifo(odd)  # whoever opens it waits for ever
    elif what == "a folder":
        odd.mkdir()
    else:
        odd.symlink_to("odd.jpg" if what == "a link to itself" else "gone.jpg")
    table = write(tmp_path / "t.csv", "image,label\na.jpg,dog\nodd.jpg,dog\n")
    split = read_split([table], read_labels([table]), skip_bad_rows=True)
    assert [record.image_id for record in split.records] == ["a.jpg"]
    assert [problem.kind for problem in split.skipped] == ["missing-picture"]
    assert split.warnings == ()


def test_backslashes_and_the_other_normal_form_are_found(tmp_path: Path) -> None:
    write(tmp_path / "images/sub/caf\u00e9.jpg", "")
    split = read(write(tmp_path / "t.csv", "image,label\nsub\\cafe\u0301.jpg,dog\n"), pictures=True)
    assert [Path(str(record.image)).name for record in split.records] == ["caf\u00e9.jpg"]
    assert any("in another Unicode normal form" in message for message in said(split))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_usual_way_to_write_a_table_gives_the_same_rows(
    tmp_path: Path, encoding: str, end: str, separator: str
) -> None:
    lines = [["Caption", "Labels"], ["caf\u00e9", '"dog;traffic light"'], ["b", "cat"]]
    text = "".join(separator.join(cells) + end for cells in lines)
    split = read(write(tmp_path / "train.csv", text.encode(encoding)))
    assert names(split) == [("dog", "traffic light"), ("cat",)]
    assert [record.captions for record in split.records] == [("caf\u00e9",), ("b",)]


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_data_frame_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Draw, kind: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("1.png", "2.png", "3.png"):
        draw(tmp_path / "posters" / name)
    cells: dict[str, list[object]] = {
        "Id": [1, 2, 3],
        "title": ["A dog", None, "Both"],
        "dog": [1, 0, None],
        "cat": [False, True, True],
        "seen": [datetime.date(2024, 1, 1)] * 3,
    }
    frame = importlib.import_module(kind).DataFrame(cells)
    options = data_options(frame)
    split = read_splits(options)["train"]
    assert split.labels.names == ("dog", "cat")
    assert [(record.image, record.captions, record.labels, record.unknown) for record in split.records] == [
        (tmp_path / "posters/1.png", ("A dog",), (0,), ()),
        (tmp_path / "posters/2.png", (), (1,), ()),
        (tmp_path / "posters/3.png", ("Both",), (1,), (0,)),
    ]
    assert said(split, "ignored") == ["columns that are not read: 'seen'"]
    assert data_options(importlib.import_module(kind).DataFrame(cells)) == options  # so that a run can be resumed
    assert data_options(frame[:2]) != options


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"a": [b"x"]}, "found a bytes in the column 'a' of row 1 of the DataFrame; expected a text"),
        ({0: ["x"]}, "found a DataFrame with the column 0; expected texts as names"),
    ],
)
def test_a_data_frame_that_cannot_be_used_is_refused(frame: "dict[object, list[object]]", message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_options(importlib.import_module("pandas").DataFrame(frame))


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(DataError, match="found a dict as data; expected a folder, a file"):
        data_options({"a": 1})


# --- one row a label


def test_rows_with_a_label_each_become_one_record_a_picture(tmp_path: Path) -> None:
    rows = ["a.jpg,dog", "a.jpg,cat", "b.jpg,dog", "c.jpg,cat", "c.jpg,traffic light"]
    file = write(
        tmp_path / "train.csv",
        "\n".join(["image,label,caption", *(f"{row},seen {row.partition(',')[0]}" for row in rows)]),
    )
    split = read(file)
    assert [record.image_id for record in split.records] == ["a.jpg", "b.jpg", "c.jpg"]
    assert names(split) == [("cat", "dog"), ("dog",), ("cat", "traffic light")]
    assert [note for note in said(split) if "put together" in note] == [
        "4 rows give 2 pictures a label each in 'label': the labels of a picture are put together"
    ]
    assert not split.skipped


@pytest.mark.parametrize(
    "rows",
    [
        ["a.jpg,dog;cat", "a.jpg,bird", "b.jpg,dog"],  # whole lists contradict each other
        [*(f"{index}.jpg,dog" for index in range(30)), "3.jpg,cat"],  # one picture of thirty is a mistake
    ],
)
def test_contradictions_are_not_put_together(tmp_path: Path, rows: "list[str]") -> None:
    file = write(
        tmp_path / "train.csv",
        "\n".join(["image,label,caption", *(f"{row},seen {row.partition(',')[0]}" for row in rows)]),
    )
    split = read(file)
    assert [problem.kind for problem in split.skipped] == ["duplicate-id"]


def test_few_words_in_many_combinations_are_lists(tmp_path: Path) -> None:
    words = ["primary", "water", "road", "cloudy", "haze"]
    cells = [" ".join(words[first : first + length]) for first in range(5) for length in range(2, 6 - first)]
    cells = list(dict.fromkeys([*cells, "haze primary", "water primary road", "road primary", "haze water primary"]))
    assert len(cells) >= 2 * len(words)
    file = write(
        tmp_path / "train.csv", "\n".join(["image_name,tags,caption", *(f"{i},{c},seen" for i, c in enumerate(cells))])
    )
    split = read(file)
    assert split.labels.names == tuple(sorted(words))
    assert any("separated by spaces" in note and "give a labels file" in note for note in said(split))


def test_names_with_spaces_stay_whole(tmp_path: Path) -> None:
    labels = ["traffic light", "fire hydrant", "stop sign", "dog"]
    file = write(
        tmp_path / "train.csv", "\n".join(["image,label,caption", *(f"{i},{c},seen" for i, c in enumerate(labels))])
    )
    assert read(file).labels.names == tuple(sorted(labels))


def test_names_that_share_words_stay_whole(tmp_path: Path) -> None:
    birds = [f"{color} {bird}" for color in ("black", "white", "great gray") for bird in ("gull", "tern", "owl")]
    assert len({word for name in birds for word in name.split()}) < len(birds)
    birds.append("dodo")
    file = write(
        tmp_path / "train.csv", "\n".join(["image,label,caption", *(f"{i},{c},seen" for i, c in enumerate(birds))])
    )
    assert read(file).labels.names == tuple(sorted(birds))


# --- the card of a Hugging Face data set

CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': cat
          '1': traffic light
  - name: labels
    sequence:
      class_label:
        names: [cat, traffic light]
---
# A data set
"""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metadata.csv", "file_name,label,text\na.png,1,a\nb.png,0,b\n", [("traffic light",), ("cat",)]),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "labels": [0, 1], "text": "a"}\n{"file_name": "b.png", "labels": [], "text": "b"}',
            [("cat", "traffic light"), ()],
        ),
    ],
)
def test_class_labels_of_the_card_name_numbers(
    tmp_path: Path, name: str, content: str, expected: "list[tuple[str, ...]]"
) -> None:
    write(tmp_path / "README.md", CARD)
    split = read(write(tmp_path / "train" / name, content))
    assert split.labels.names == ("cat", "traffic light")
    assert names(split) == expected


@pytest.mark.parametrize("card", ["# no card", "---\n: : [\n---\n", "---\ndataset_info: 3\n---\n", "---\n[" * 5000])
def test_other_readmes_change_nothing(tmp_path: Path, card: str) -> None:
    write(tmp_path / "README.md", card)
    split = read(write(tmp_path / "train.csv", "file_name,label,text\na.png,1,a\nb.png,0,b\n"))
    assert split.labels.names == ("0", "1")


@pytest.mark.parametrize(
    "header", ["Bild;Beschriftung;Kategorien", "image;légende;étiquettes", "Imagen;Leyenda;Categorías"]
)
def test_german_french_and_spanish_names_of_columns_are_known(tmp_path: Path, header: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"{header}\na.jpg;one;dog\n", encoding="utf-8")
    (row,) = [each for each in find_format(file).read_rows(file, None) if isinstance(each, Row)]
    assert (row.image_id, row.captions, row.labels) == ("a.jpg", ("one",), "dog")
