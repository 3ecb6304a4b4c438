import json
from pathlib import Path

import pytest

from mlic_runtime.annotations.folder import find_splits
from mlic_runtime.annotations.formats import json_files
from mlic_runtime.annotations.formats.json_files import load_json
from mlic_runtime.annotations.formats.registry import find_format
from mlic_runtime.errors import DataError


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"version": 1, "entries": []}, "a JSON object with the keys 'version', 'entries'"),
        ({str(n): n for n in range(12)}, r"'9', ... \(12 in all\)"),
        ([{"name": "a"}], "a JSON list of objects with the keys 'name'"),
        ([3], "a JSON list of int"),
        ([], "an empty JSON list"),
        ({}, "an empty JSON object"),
        ("text", "a JSON str"),
        ({"images": [], "annotations": [{"caption": "A dog."}]}, "'images', 'annotations'"),
    ],
)
def test_json_that_no_format_knows_is_named_with_what_is_expected(tmp_path: Path, content: object, found: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=found) as caught:
        find_format(file)
    assert "COCO annotations: an object with `images`, `annotations` and `categories`" in str(caught.value)
    assert "Label Studio export: a list of tasks" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 10_000, b"\xff\xfe{", b"", b'{"images": [}', b"\x80"],
)
def test_what_is_no_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: not JSON in UTF-8") as caught:
        find_format(file)
    assert "\n" not in str(caught.value)


def test_a_file_named_like_a_split_must_be_json(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("ImageID,Labels\n1.jpg,1\n")
    (tmp_path / "val.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"val\.json: not JSON"):
        find_splits(tmp_path)


def test_other_json_in_a_data_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("ImageID,Labels\n1.jpg,1\n")
    (tmp_path / "settings.json").write_text("// not JSON")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    assert find_splits(tmp_path).train == (tmp_path / "data.csv",)


def test_a_file_is_loaded_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[1]")
    first = load_json(file)
    assert load_json(file) is first
    file.write_text("[1, 2]")
    assert load_json(file) == [1, 2]


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "_KEPT_BYTES", 10)
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file in files:
        file.write_text("[12, 3]")
    first = load_json(files[0])
    load_json(files[1])
    assert load_json(files[0]) == first
    assert load_json(files[0]) is not first
    files[2].write_text("[1, 2, 3, 4, 5, 6]")
    assert load_json(files[2]) is not load_json(files[2])


def test_a_file_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_ANNOTATIONS_BYTES", 3)
    file = tmp_path / "a.json"
    file.write_text("[1, 2]")
    with pytest.raises(DataError, match="found 6 bytes; expected at most 3"):
        load_json(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.json"
    file.write_text('["é"]', encoding=encoding)
    assert load_json(file) == ["é"]
