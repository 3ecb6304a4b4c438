import io
import json
import sys
from pathlib import Path

import pytest

from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_ROW_BYTES
from mlic_runtime.rows.reader import Row, locate, open_rows, picture_finder


def rows_of(path: Path, **options: bool) -> list[Row]:
    with open_rows(path, **options) as reader:  # type: ignore[arg-type] # only the two switches are given here
        return list(reader)


def write(path: Path, content: "str | bytes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(row: Row) -> "tuple[object, str | None, str | None]":
    return row.image, row.caption, row.name


def problem(row: Row) -> str:
    assert row.error is not None
    assert "\n" not in str(row.error)
    return str(row.error)


# --- CSV


@pytest.mark.parametrize("image", ["ImageID", "image", "path", "IMAGE", "imageid"])
@pytest.mark.parametrize("caption", ["Caption", "caption"])
def test_columns_go_by_their_names_in_any_order(tmp_path: Path, image: str, caption: str) -> None:
    file = write(tmp_path / "rows.csv", f"{caption},{image}\nred,a.jpg\n,b/c.jpg\ngreen,\n")
    assert [said(row) for row in rows_of(file)] == [
        (str(tmp_path / "a.jpg"), "red", "a.jpg"),
        (str(tmp_path / "b/c.jpg"), None, "b/c.jpg"),
        (None, "green", None),
    ]


def test_other_columns_are_not_read_and_it_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", "ImageID,Labels,Captoin\na.jpg,1 2,red\n")
    with open_rows(file) as reader:
        assert reader.note == "not read from the input: Labels, Captoin"
        assert [said(row)[1:] for row in reader] == [(None, "a.jpg")]


def test_captions_are_cleaned_as_in_training(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", 'Caption\n"  a dog\r\n on\ta ""beach"" "\n"one\rtwo"\n')
    assert [row.caption for row in rows_of(file)] == ['a dog on a "beach"', "one two"]


def test_a_byte_order_mark_and_other_line_ends_do_not_matter(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", b"\xef\xbb\xbfCaption\r\nred\r\n\r\ngreen")
    assert [row.caption for row in rows_of(file)] == ["red", "green"]


def test_a_row_that_breaks_the_rules_costs_one_row(tmp_path: Path) -> None:
    lines = ["a.jpg,red", 'b.jpg,"never closed', "c.jpg,green", "d.jpg", 'e.jpg,"a "stop" sign"', "f.jpg,blue"]
    file = write(tmp_path / "rows.csv", "ImageID,Caption\n" + "\n".join(lines) + "\n")
    rows = rows_of(file)
    assert [row.caption for row in rows] == ["red", None, "green", None, None, "blue"]
    assert problem(rows[1]).startswith("row 2: found 'b.jpg,\"never closed', which is not CSV (")
    assert problem(rows[3]) == "row 4: found 1 columns; expected 2 (ImageID,Caption)"
    assert rows[3].name == "d.jpg"
    assert "expected quotes inside a quoted cell to be doubled" in problem(rows[4])


def test_bytes_that_are_not_utf8_cost_one_row(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "rows.csv", b"ImageID,Caption\na.jpg,caf\xe9\n\xff.jpg,red\nc.jpg,red\n"))
    assert problem(rows[0]) == "row 1, caption: found the byte 0xE9, which is not UTF-8; expected UTF-8 text"
    assert rows[0].name == "a.jpg"
    assert problem(rows[1]).startswith("row 2, picture: found the byte 0xFF")
    assert rows[2].error is None


@pytest.mark.parametrize("quote", ['"', ""])
def test_a_row_that_is_too_long_costs_one_row(tmp_path: Path, quote: str) -> None:
    long = "x" * (MAX_ROW_BYTES + 10)
    file = write(tmp_path / "rows.csv", f"Caption\nred\n{quote}{long}{quote}\ngreen\n")
    rows = rows_of(file)
    assert [row.caption for row in rows] == ["red", None, "green"]
    assert f"more than {MAX_ROW_BYTES} bytes" in problem(rows[1])


def test_a_quoted_cell_that_swallows_many_lines_ends_at_a_limit(tmp_path: Path) -> None:
    lines = ['"never closed', *["a caption of some length " * 8] * 2000]
    rows = rows_of(write(tmp_path / "rows.csv", "Caption\n" + "\n".join(lines) + "\n"))
    assert "field larger than field limit" in problem(rows[0])
    assert len(rows) == 2001
    assert all(row.error is None for row in rows[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found no header"),
        ("number,words\n1,red\n", "found number, words; expected a column for pictures (ImageID, image, file_name"),
        ("image,Image\na,b\n", "found the columns image and Image, which are the same; expected one of them"),
        ("image,image\na,b\n", "found the columns image and image, which are the same"),
        ('"ImageID,Caption\n', "found a header that is not CSV"),
        ("ImageID.Caption\n", "found ImageID.Caption; expected a column"),
        (b"\xff\xfeI\0m\0d", "found UTF-16 that is cut off or damaged"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_at_once(tmp_path: Path, content: "str | bytes", message: str) -> None:
    file = write(tmp_path / "rows.csv", content)
    with pytest.raises(InputError) as caught:
        open_rows(file)
    assert str(caught.value).startswith(f"the input {str(file)!r}: {message}")


def test_a_header_alone_is_no_row(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "rows.csv", "ImageID\n")) == []


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_a_table_may_have_any_usual_separator_line_end_and_encoding(
    tmp_path: Path, separator: str, end: str, encoding: str, ending: str
) -> None:
    lines = [["image", "caption"], ["a.jpg", "caf\u00e9"], ["b.jpg", '"red, green; blue"']]
    text = "".join(separator.join(cells) + end for cells in lines)
    file = write(tmp_path / f"rows.{ending}", text.encode(encoding))
    with open_rows(file) as reader:
        assert [said(row)[1:] for row in reader] == [("caf\u00e9", "a.jpg"), ("red, green; blue", "b.jpg")]
        assert reader.note == ("it is UTF-16" if encoding == "utf-16" else "")
        assert reader.share() == 1


def test_spaces_after_separators_are_no_part_of_cells_where_the_header_has_them(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", 'filename, text\na.jpg, "red, green"\nb.jpg, blue\n')
    assert [said(row)[1:] for row in rows_of(file)] == [("red, green", "a.jpg"), ("blue", "b.jpg")]


def test_of_several_columns_the_best_is_read_and_it_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", "id,image_id,file_name,Title,text\n1,2,a.jpg,T,red\n")
    with open_rows(file) as reader:
        assert [said(row)[1:] for row in reader] == [("red", "a.jpg")]
        assert reader.note == (
            "the picture is in file_name; the caption is in text; not read from the input: id, image_id, Title"
        )


@pytest.mark.parametrize(
    ("header", "name", "caption"),
    [("id,score", "1", None), ("id,title", "1", "2"), ("id,text", None, "2"), ("Id,caption_1", None, "2")],
)
def test_an_id_is_a_picture_only_where_nothing_else_is(
    tmp_path: Path, header: str, name: "str | None", caption: "str | None"
) -> None:
    (row,) = rows_of(write(tmp_path / "rows.csv", f"{header}\n1,2\n"))
    assert said(row)[1:] == (caption, name)


def test_columns_may_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", "image,where,what\na.jpg,b.jpg,red\n")
    with open_rows(file, image_column="where", caption_column="what") as reader:
        assert [said(row)[1:] for row in reader] == [("red", "b.jpg")]
        assert reader.note == "not read from the input: image"
    with pytest.raises(InputError, match="found no column 'wher'; expected one of: 'image', 'where', 'what'"):
        open_rows(file, image_column="wher")


def test_row_numbers_that_pandas_wrote_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", ",image\n0,a.jpg\nx,b.jpg\n")
    good, bad = rows_of(file)
    assert good.name == "a.jpg"
    assert problem(bad) == (
        "row 2: found 'x' in a column without a name; expected a row number, or a name in the header"
    )


def test_a_json_array_of_objects_is_a_table(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "rows.json", '[{"image": "a.jpg", "text": "red"}, 7, {"image": "b.jpg"}]'))
    assert said(rows[0])[1:] == ("red", "a.jpg")
    assert problem(rows[1]) == 'row 2: found \'7\'; expected an object such as {"image": "1.jpg"}'
    assert rows[2].name == "b.jpg"
    with pytest.raises(InputError, match="found a JSON object; expected an array of objects"):
        open_rows(write(tmp_path / "other.json", "{}"))


# --- JSON lines


def test_json_lines_are_read_from_a_file_and_from_a_stream(tmp_path: Path) -> None:
    lines = '{"image": "a.jpg", "caption": " red  dog"}\n\n{"Caption": "green"}\n{"path": "b.jpg", "caption": null}'
    file = write(tmp_path / "rows.jsonl", lines)
    assert [said(row) for row in rows_of(file)] == [
        (str(tmp_path / "a.jpg"), "red dog", "a.jpg"),
        (None, "green", None),
        (str(tmp_path / "b.jpg"), None, "b.jpg"),
    ]
    with open_rows(io.BytesIO(lines.encode()), image_root=tmp_path) as reader:
        assert reader.share() is None
        assert list(reader) == rows_of(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 1: found '{', which is not JSON ("),
        ("[1]", "row 1: found '[1]'; expected an object"),
        ('{"image": 7.5}', "row 1: found a picture that is float; expected a text"),
        ('{"image": {"path": 7.5}}', "row 1: found a picture that is dict; expected a text"),
        ('{"image": "a.jpg", "caption": [7]}', "row 1: found a caption that is int; expected a text"),
        ('{"image": "a.jpg", "captions": ["x", "y"]}', "row 1: found 2 captions; expected one"),
        ('{"image": "a.jpg", "image": "b.jpg"}', "row 1: found a key twice in one object"),
        ('{"caption": "\\ud800"}', "row 1, caption: found the character \\ud800, which is not UTF-8"),
        ('{"name": "a.jpg"}', "row 1: found name; expected a column"),
        ('{"image": "a.jpg", "Image": "b.jpg"}', "row 1: found the columns image and Image, which"),
        ("[" * 100_000, "row 1: "),
        ('{"caption": "' + "x" * MAX_ROW_BYTES + '"}', f"row 1: it has more than {MAX_ROW_BYTES} bytes"),
    ],
)
def test_a_line_that_cannot_be_read_costs_one_row(tmp_path: Path, line: str, message: str) -> None:
    rows = rows_of(write(tmp_path / "rows.jsonl", f'{line}\n{{"caption": "red"}}\n'))
    assert problem(rows[0]).startswith(message)
    assert rows[1] == Row(caption="red")


def test_keys_that_are_not_read_are_said_once(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"image": "a.jpg", "captoin": "red"}\n' * 3)
    with open_rows(file) as reader:
        assert reader.note == "not read from the input: captoin"


# --- folders


def test_a_folder_gives_its_pictures_in_the_order_of_names_with_their_sidecars(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c/d.webp", "c.gif", ".hidden.jpg", ".git/x.jpg", "notes.md", "c.txt"):
        write(tmp_path / name, "the  caption\n")
    write(tmp_path / "c/d.txt", b"\xef\xbb\xbfinner\ncaption")
    assert [said(row) for row in rows_of(tmp_path)] == [
        (str(tmp_path / "a.JPG"), None, "a.JPG"),
        (str(tmp_path / "b.png"), None, "b.png"),
        (str(tmp_path / "c/d.webp"), "inner caption", "c/d.webp"),
        (str(tmp_path / "c.gif"), "the caption", "c.gif"),
    ]


def test_a_sidecar_that_cannot_be_read_costs_one_row(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        write(tmp_path / name, "")
    write(tmp_path / "a.txt", b"\xff")
    write(tmp_path / "b.txt", "x" * (MAX_ROW_BYTES + 1))
    (tmp_path / "c.txt").mkdir()
    rows = rows_of(tmp_path)
    assert "found the byte 0xFF, which is not UTF-8" in problem(rows[0])
    assert f"has more than {MAX_ROW_BYTES} bytes" in problem(rows[1])
    assert "it is a directory" in problem(rows[2])
    assert [row.name for row in rows] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert rows[3].error is None


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no picture in .*; expected JPEG, PNG, .* or HEIC files$"):
        open_rows(tmp_path)
    write(tmp_path / "notes.md", "")
    with pytest.raises(InputError, match=r"; passed over 1 file that is not a JPEG, .* or HEIC picture: notes.md$"):
        open_rows(tmp_path)


PNG = b"\x89PNG\r\n\x1a\n"


def passed_over(folder: Path) -> str:
    with open_rows(folder) as reader:
        assert len(list(reader)) > 0
        assert reader.passed_over is not None
        return reader.passed_over()


@pytest.mark.parametrize("name", ["a.JPE", "a.jfif", "a.jif", "a.apng", "a.hif"])
def test_all_usual_endings_of_pictures_are_taken(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "broken, and so an error of its own")
    assert [row.name for row in rows_of(tmp_path)] == [name]


@pytest.mark.parametrize("name", ["IMG_1234", "photo.dat", "photo.txt", "sub/photo.jpg.1", "picture.avif"])
def test_where_the_ending_does_not_tell_the_content_does(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, PNG)
    write(tmp_path / "notes", "no picture")
    assert [row.name for row in rows_of(tmp_path)] == [name]


def test_a_picture_without_an_ending_has_its_caption_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "IMG_1234", PNG)
    write(tmp_path / "IMG_1234.txt", "a dog")
    assert [said(row)[1:] for row in rows_of(tmp_path)] == [("a dog", "IMG_1234")]
    assert passed_over(tmp_path) == ""


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.txt", ".hidden"):
        write(tmp_path / name, "")
    assert passed_over(tmp_path) == ""
    write(tmp_path / "sub/b.txt", "the caption of no picture")
    assert passed_over(tmp_path) == (
        f"passed over 1 file that is not a JPEG, PNG, WEBP, GIF, BMP, TIFF or HEIC picture: {Path('sub/b.txt')}"
    )
    for name in ("w.csv", "x\n.md", "y.mp4", "z"):
        write(tmp_path / name, "")
    assert passed_over(tmp_path) == (
        "passed over 5 files that are not JPEG, PNG, WEBP, GIF, BMP, TIFF or HEIC pictures: "
        f"{Path('sub/b.txt')}, w.csv, x .md, ..."
    )


def test_a_file_of_rows_passes_nothing_over(tmp_path: Path) -> None:
    with open_rows(write(tmp_path / "rows.csv", "image\na.jpg\n")) as reader:
        assert reader.passed_over is None


def test_a_folder_is_its_own_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave the image root out"):
        open_rows(tmp_path, image_root=tmp_path)


def test_a_link_in_a_circle_does_not_trap_the_search(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", "")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [row.name for row in rows_of(tmp_path)] == ["a.jpg"]


# --- pictures stay inside their root


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "b/../a.jpg", "b//../a.jpg", "ROOT/a.jpg", "ROOT/b/../a.jpg"])
def test_names_inside_the_root_are_found(tmp_path: Path, name: str) -> None:
    assert locate(str(tmp_path), name.replace("ROOT", str(tmp_path))) == str(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "name", ["../a.jpg", "..", "b/../../a.jpg", "/etc/passwd", "ROOT/../a.jpg", "ROOT-twin/a.jpg", "/../etc/passwd"]
)
def test_names_that_lead_out_of_the_root_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    with pytest.raises(InputError, match=r"lies outside of the image root .*: name another root"):
        locate(str(root), name.replace("ROOT", str(root)))


def test_the_default_root_is_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in/rows.csv", "image\na.jpg\n../b.jpg\n")
    monkeypatch.chdir(tmp_path)
    good, bad = rows_of(Path("in/rows.csv"))
    assert good.image == "in/a.jpg"
    assert (bad.image, bad.name) == (None, "../b.jpg")
    assert "lies outside" in problem(bad)
    with open_rows("in/rows.csv", image_root=tmp_path) as reader:
        assert next(iter(reader)).image == str(tmp_path / "a.jpg")


# --- what is asked for


def test_pictures_or_captions_can_be_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", "ImageID,Caption\na.jpg,red\n../b.jpg,green\n")
    assert [said(row) for row in rows_of(file, pictures=False)] == [(None, "red", "a.jpg"), (None, "green", "../b.jpg")]
    assert said(rows_of(file, captions=False)[0]) == (str(tmp_path / "a.jpg"), None, "a.jpg")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "cannot read the input .*missing.csv': there is no such file"),
        ("missing", "the input .*missing' is not there; expected .csv, .tsv, .*.parquet, .pq, a folder, or -"),
        ("rows.xlsx", r"the input .*rows.xlsx' has an unknown ending; expected .csv"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / "rows.xlsx", "")
    with pytest.raises(InputError, match=message):
        open_rows(tmp_path / name)


def test_parquet_names_the_extra_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: pip install 'mlic-runtime\[parquet\]'"):
        open_rows(write(tmp_path / "rows.parquet", "PAR1"))


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    """However long the file is: what has been read is little more than what has been asked for."""
    line = json.dumps({"caption": "red " * 25}) + "\n"
    file = write(tmp_path / "rows.jsonl", line * 20_000)
    with open_rows(file) as reader:
        rows = iter(reader)
        for asked in range(1, 200):
            assert next(rows).caption is not None
            share = reader.share()
            assert share is not None
            assert asked <= round(share * 20_000) <= asked + 1
        assert sum(1 for _ in rows) == 20_000 - 199
        assert reader.share() == 1


def test_the_checksum_tells_rows_apart() -> None:
    rows = [
        Row("a.jpg"), Row("b.jpg"), Row(None, "a.jpg"), Row("a.jpg", "red"), Row("a.jpg", ""), Row(b"a"), Row(b"b"),
        Row(name="a.jpg", error=InputError("x")), Row(),
    ]  # fmt: skip
    assert len({row.checksum() for row in rows}) == len(rows)
    assert Row("a.jpg").checksum(5) != Row("a.jpg").checksum(6)


def test_a_picture_is_found_by_its_name_in_the_other_normal_form(tmp_path: Path) -> None:
    one, two = "caf\u00e9", "cafe\u0301"  # NFC and NFD
    find = picture_finder(str(tmp_path))
    for written, given in ((one, two), (two, one)):
        folder = tmp_path / f"{len(written)}" / written
        folder.mkdir(parents=True)
        (folder / f"{written}.jpg").touch()
        found = find(f"{len(written)}/{given}/{given}.jpg")
        assert Path(str(found)).samefile(folder / f"{written}.jpg")
    assert find(f"{one}.jpg") == str(tmp_path / f"{one}.jpg")  # not there in any form


def test_backslashes_missing_endings_and_the_folder_of_pictures_are_found(tmp_path: Path) -> None:
    for name in ("Images/tt1.jpg", "Images/both.jpg", "Images/both.png", "sub/b.jpg"):
        write(tmp_path / name, "")
    find = picture_finder(str(tmp_path))
    assert find("sub\\b.jpg") == str(tmp_path / "sub/b.jpg")
    assert find("tt1") == find("tt1.jpg") == find("Images/tt1") == str(tmp_path / "Images/tt1.jpg")
    assert find("none") == str(tmp_path / "none")
    with pytest.raises(InputError, match=r"picture 'both' may be .*both.jpg' or .*both.png': name one of them"):
        find("both")
    with pytest.raises(InputError, match="lies outside"):
        find("..\\a.jpg")


def test_the_exact_name_comes_before_the_other_normal_form(tmp_path: Path) -> None:
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg"):
        (tmp_path / name).touch()
        assert picture_finder(str(tmp_path))(name) == str(tmp_path / name)


def test_a_label_studio_export_gives_its_pictures(tmp_path: Path) -> None:
    choice = {"type": "choices", "from_name": "a", "to_name": "b", "value": {"choices": ["dog"]}}
    tasks = [{"id": 1, "annotations": [{"result": [choice]}], "data": {"image": "/data/upload/1/abc-a.jpg"}}]
    (tmp_path / "abc-a.jpg").touch()
    file = write(tmp_path / "export.json", json.dumps(tasks).encode())
    with open_rows(file) as reader:
        assert [row.image for row in reader] == [str(tmp_path / "abc-a.jpg")]
        read, warning = reader.note.splitlines()
    assert read == "read as Label Studio export; labels are not used"
    assert warning.startswith("warning: 1 x interpreted: export.json: 1 of 1 pictures are addresses")
