import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlic_runtime.annotations.formats.competition import unquote
from mlic_train.data import LabelSet, Split, read_labels, read_split
from mlic_train.errors import DataError

LABELS = LabelSet(("1", "2", "3"), ("1", "2", "3"))


def read(folder: Path, text: str, *, skip: bool = False) -> Split:
    file = folder / "train.csv"
    file.write_bytes(text.encode())
    return read_split([file], LABELS, data_format="competition", pictures=False, skip_bad_rows=skip)


def captions(split: Split) -> list[str]:
    return [record.captions[0] for record in split.records]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("A man.", "A man."),
        ("A man, a dog, a cat.", "A man, a dog, a cat."),
        ('"A man, a dog."', "A man, a dog."),
        ('"A sign that reads ""stop""."', 'A sign that reads "stop".'),
        ('"""Stop"" is on the sign."', '"Stop" is on the sign.'),
        ('A "stop" sign.', 'A "stop" sign.'),
        ('A 6" pipe.', 'A 6" pipe.'),
        ('"A "stop" sign."', 'A "stop" sign.'),
        ('"Stop" is on the "sign"', '"Stop" is on the "sign"'),
        ('"Stop is on the sign.', '"Stop is on the sign.'),
        ('"', '"'),
        ('"A man\rand a dog."', "A man and a dog."),
        ("A man\n\nand a dog.", "A man and a dog."),
        ("A man\n  and 2.jpg, a dog.\n", "A man and 2.jpg, a dog."),
        ('A man\r\n,,"\r\nand a dog', 'A man ,," and a dog'),
    ],
)
def test_a_caption_is_read_whole(tmp_path: Path, written: str, meant: str, end: str) -> None:
    split = read(tmp_path, f"ImageID,Labels,Caption{end}0.jpg,1,{written}{end}1.jpg,2 3,Next.{end}")
    assert captions(split) == [meant, "Next."]
    assert [(r.image_id, r.labels, r.number) for r in split.records] == [("0.jpg", (0,), 1), ("1.jpg", (1, 2), 2)]


def test_records_are_counted_not_lines(tmp_path: Path) -> None:
    split = read(tmp_path, "ImageID,Labels,Caption\n0.jpg,1,A\nman\n1.jpg,9,B\n2.jpg,2,C\n", skip=True)
    assert [(p.number, p.kind) for p in split.skipped] == [(2, "unknown-label")]
    assert [r.number for r in split.records] == [1, 3]


def test_a_file_without_labels_is_not_labelled(tmp_path: Path) -> None:
    (record,) = read(tmp_path, "ImageID,Caption\r\n7.jpg,A man, a dog.\r\n").records
    assert record.labels is None
    assert record.captions == ("A man, a dog.",)


def test_a_file_of_captions_and_a_file_of_labels_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("ImageID,Caption\n7.jpg,A man.\n8.jpg,A dog.\n")
    (tmp_path / "test_labels.csv").write_text("ImageID,Labels\n8.jpg,3\n")
    files = [tmp_path / "test.csv", tmp_path / "test_labels.csv"]
    split = read_split(files, LABELS, data_format="competition", pictures=False)
    assert [(r.captions, r.labels) for r in split.records] == [(("A man.",), None), (("A dog.",), (2,))]
    assert split.warnings == ()


def test_without_pictures_a_record_without_caption_is_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"record 2: bad-row: found no caption for '1\.jpg'"):
        read(tmp_path, "ImageID,Labels,Caption\n0.jpg,1,A man.\n1.jpg,2,\n")


def test_too_few_columns_are_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 2: bad-row: found 2 columns; expected 3"):
        read(tmp_path, "ImageID,Labels,Caption\n0.jpg,1,A man.\n1.jpg,A man.\n")


def test_text_before_the_first_record_is_reported(tmp_path: Path) -> None:
    split = read(tmp_path, "ImageID,Labels,Caption\na.png,1,A man.\n0.jpg,1,A dog.\n", skip=True)
    assert captions(split) == ["A dog."]
    assert split.skipped[0].number is None
    assert "before the first record" in split.skipped[0].message


@pytest.mark.parametrize("header", ["", "ImageID", "Labels,Caption", "ImageID,Caption,Labels", "id,Labels,Caption"])
def test_another_header_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match="expected ImageID,Labels,Caption"):
        read(tmp_path, f"{header}\n0.jpg,1,A man.\n")


def test_labels_can_be_inferred(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text('ImageID,Labels,Caption\n0.jpg,10 2,A "man"\nrunning\n1.jpg,3,A dog\n')
    assert read_labels([file], "competition").names == ("2", "3", "10")


text = st.text(string.ascii_letters + string.digits + " .,;'\"\n\r|-éß", max_size=60)
kept = text.filter(lambda caption: caption.strip() != "" and "\n" not in caption.strip()[:1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from("123")), kept), min_size=1, max_size=8))
def test_escaped_captions_come_back_whole(records: list[tuple[set[str], str]]) -> None:
    lines = []
    for number, (labels, caption) in enumerate(records):
        escaped = caption.replace('"', '""')
        lines.append(f'{number}.jpg,{" ".join(labels)},"{escaped}"\r\n')
    with tempfile.TemporaryDirectory() as folder:
        split = read(Path(folder), "ImageID,Labels,Caption\r\n" + "".join(lines))
    assert captions(split) == [" ".join(caption.split()) for _, caption in records]
    assert [r.labels for r in split.records] == [tuple(sorted(int(x) - 1 for x in labels)) for labels, _ in records]


@settings(deadline=None)
@given(st.lists(kept.filter(lambda caption: not caption.strip().startswith('"')), min_size=1, max_size=8))
def test_unescaped_captions_come_back_whole(written: list[str]) -> None:
    lines = "".join(f"{number}.jpg,1,{caption}\n" for number, caption in enumerate(written))
    with tempfile.TemporaryDirectory() as folder:
        split = read(Path(folder), "ImageID,Labels,Caption\n" + lines)
    assert captions(split) == [" ".join(caption.split()) for caption in written]


@settings(deadline=None)
@given(text)
def test_unquote_undoes_quoting(caption: str) -> None:
    assert unquote('"' + caption.replace('"', '""') + '"') == caption
