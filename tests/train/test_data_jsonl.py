import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_train.data import LabelSet, read_labels, read_split
from mlic_train.errors import DataError

LABELS = LabelSet(("person", "dog", "traffic light"), ("1", "18", "10"))
Draw = Callable[..., Path]


def write(folder: Path, *lines: object) -> Path:
    file = folder / "train.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def test_every_key_is_optional_but_picture_or_caption(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "images" / "sub" / "a.png")
    file = write(
        tmp_path,
        {"image": "sub/a.png", "captions": ["A dog.", "A  puppy.\n"], "labels": ["dog", 1]},
        {"image": "sub/a.png"},
        {"image": None, "caption": "A man.", "labels": []},
        {"caption": ["A light."], "labels": ["traffic light"]},
        {"caption": "A tree.", "labels": None},
    )
    split = read_split([file], LABELS)
    assert [(r.image_id, r.captions, r.labels, r.number) for r in split.records] == [
        ("sub/a.png", ("A dog.", "A puppy."), (0, 1), 1),
        (None, ("A man.",), (), 3),
        (None, ("A light.",), (2,), 4),
        (None, ("A tree.",), None, 5),
    ]


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    file = write(tmp_path, "", {"caption": "A man."}, "  ", {"caption": "A dog."})
    assert [r.number for r in read_split([file], LABELS).records] == [2, 4]


def test_crlf_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"caption": "A dog."}\r\n{"caption": "A man."}\r\n')
    assert [r.captions[0] for r in read_split([file], LABELS).records] == ["A dog.", "A man."]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("{", "bad-row", "not JSON"),
        ("[1]", "bad-row", "expected an object"),
        ('{"caption": "x", "Caption": "y"}', "bad-row", "found the columns caption and Caption, which are the same"),
        ('{"caption": "x", "caption": "y"}', "bad-row", "a key twice"),
        ('{"caption": 3}', "bad-row", "found a caption that is int"),
        ('{"captions": ["x", null]}', "bad-row", "found a caption that is NoneType"),
        ('{"caption": "x", "labels": {"a": 1}}', "bad-row", "expected a list of names or ids"),
        ('{"caption": "x", "labels": [true]}', "bad-row", "found the label True"),
        ('{"caption": "x", "labels": [1.5]}', "bad-row", "found the label 1.5"),
        ('{"caption": "x", "labels": [NaN]}', "bad-row", "found the label nan"),
        ('{"caption": "x", "labels": [[1]]}', "bad-row", "found the label [1]"),
        ('{"caption": "x", "labels": ["doog"]}', "unknown-label", "did you mean 'dog'"),
        ('{"caption": "\\ud83d"}', "bad-row", "not UTF-8"),
        ('{"image": 3.5}', "bad-row", "found a picture that is float"),
        ('{"image": "a.png"}', "missing-picture", "a.png"),
        ('{"image": "../a.png"}', "bad-row", "inside the pictures folder"),
        ("{}", "bad-row", "neither a picture nor a caption"),
        ("[" * 100_000, "bad-row", ""),
    ],
)
def test_a_bad_line_stops_with_its_number_or_is_skipped(tmp_path: Path, line: str, kind: str, message: str) -> None:
    file = write(tmp_path, {"caption": "A dog."}, line, {"caption": "A man."})
    with pytest.raises(DataError) as error:
        read_split([file], LABELS)
    assert str(error.value).startswith(f"{file}:record 2: {kind}: ")
    assert message in str(error.value)
    split = read_split([file], LABELS, skip_bad_rows=True)
    assert [r.number for r in split.records] == [1, 3]
    assert [(p.number, p.kind) for p in split.skipped] == [(2, kind)]


def test_labels_are_inferred_with_their_spaces(tmp_path: Path) -> None:
    file = write(tmp_path, {"caption": "x", "labels": ["traffic light", "dog"]}, {"caption": "y", "labels": []}, "{")
    assert read_labels([file]).names == ("dog", "traffic light")


def test_a_whole_number_may_be_written_as_a_float(tmp_path: Path) -> None:
    file = write(tmp_path, {"caption": "x", "labels": [18.0, 1]})
    assert read_split([file], LABELS).records[0].labels == (0, 1)
