import csv
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mlic_train.cli.report import report
from mlic_train.config import DataOptions
from mlic_train.data import LabelSet, Record, Split
from mlic_train.data.near_duplicates import MAX_BITS
from mlic_train.data.picture_info import read_pictures
from mlic_train.data.splits import check_data
from mlic_train.report.captions import find_repeated
from mlic_train.report.data import write_data_report
from mlic_train.report.duplicates import NEAR, SAME_BYTES, SAME_ID, find_duplicates, rows_of
from mlic_train.report.words import label_words

SECTIONS = [
    "Summary",
    "Skipped rows and warnings",
    "Label counts",
    "Labels per row",
    "Labels that occur together",
    "Picture sizes",
    "Caption lengths",
    "Words of each label",
    "Word clouds",
    "Overlap and leakage",
    "Sample pictures",
]
ROOT = Path(__file__).parents[2]
LABEL = "<b>$5 & $6"
CAPTION = "A dog <script>alert('$x$')</script> for $5 & $6."


def scene(file: Path, seed: int, size: tuple[int, int] = (64, 48)) -> Path:
    """A picture of large soft spots: unlike noise, it is still itself when it is made smaller."""
    file.parent.mkdir(parents=True, exist_ok=True)
    spots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC).save(file)
    return file


def write(file: Path, *rows: tuple[str, ...]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits that share a name, bytes, a likeness and a caption, with hostile text."""
    root = tmp_path_factory.mktemp("planted")
    images = root / "images"
    for seed, name in enumerate(("a", "b", "c", "d", "e", "f")):
        scene(images / f"{name}.png", seed)
    shutil.copy(images / "a.png", images / "copy.png")
    Image.open(images / "c.png").resize((50, 40)).save(images / "near.jpg", quality=60)
    write(root / "labels.csv", ("LabelID", "Name"), ("1", "dog"), ("2", "cat"), ("3", LABEL))
    header = ("ImageID", "Labels", "Caption")
    train = [
        ("a.png", "1 3", CAPTION),
        ("b.png", "1 2", "A dog and a cat."),
        ("c.png", "2", ""),
        ("d.png", "", "A sofa."),
    ]
    write(root / "train.csv", header, *train)
    write(root / "captions.csv", ("Labels", "Caption"), ("1", "a dog and a cat"), ("3", "money, money"))
    write(root / "val.csv", header, ("b.png", "1 2", "Pets."), ("e.png", "1", "One dog."))
    test = [("copy.png", "1", "a dog and a CAT"), ("near.jpg", "2", "A cat."), ("f.png", "", "a dog and a cat")]
    write(root / "test.csv", header, *test)
    return root


def make(output: Path, options: DataOptions) -> str:
    write_data_report(options, output)
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("report") / "data.html", DataOptions(folder=planted))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(report, ["data", *map(str, arguments)])


def parts(document: str) -> dict[str, str]:
    """The HTML of each section by its heading."""
    pieces = re.split(r"<h2>(.*?)</h2>", document)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def rows(part: str, table: int = 0) -> list[list[str]]:
    """The cells of one table of a section, without its header."""
    body = re.findall(r"<tbody>(.*?)</tbody>", part, re.DOTALL)[table]
    return [list(map(unescape, re.findall(r"<td>(.*?)</td>", row))) for row in body.splitlines() if row]


def words(part: str) -> str:
    """The text of a section in one line."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", part)).split())


def test_every_section_is_there_with_its_plots(document: str) -> None:
    found = parts(document)
    assert list(found) == SECTIONS
    for name in ("Label counts", "Labels per row", "Labels that occur together", "Picture sizes", "Caption lengths"):
        assert found[name].count("data:image/png") == 1, name
    assert found["Words of each label"].count("data:image/png") == 1
    assert found["Word clouds"].count("data:image/png") == 3
    assert found["Sample pictures"].count("data:image/jpeg") == 6  # dog 2, cat 2, the third label 1, none 1
    assert "Left out" not in document


def test_the_summary_is_what_one_counts_by_hand(document: str) -> None:
    assert rows(parts(document)["Summary"]) == [
        ["train", "6", "4", "5", "2", "1", "0", "3", "0"],
        ["val", "2", "2", "2", "0", "0", "0", "2", "0"],
        ["test", "3", "3", "3", "0", "1", "0", "2", "0"],
    ]
    files = [["train.csv", "train", "4"], ["captions.csv", "train", "2"], ["val.csv", "val", "2"]]
    assert rows(parts(document)["Summary"], 1) == [*files, ["test.csv", "test", "3"]]


def test_label_counts_are_what_one_counts_by_hand(document: str) -> None:
    cells = [[cell.replace("\u00a0", " ") for cell in row] for row in rows(parts(document)["Label counts"])]
    assert cells == [
        ["dog", "3", "50.0 %", "2", "100 %", "+1.3", "1", "33.3 %", "-0.5"],
        ["cat", "2", "33.3 %", "1", "50.0 %", "+0.4", "1", "33.3 %", "+0.0"],
        [LABEL, "2", "33.3 %", "0", "0 %", "-0.9", "0", "0 %", "-1.1"],
    ]
    assert [row[:3] for row in rows(parts(document)["Labels per row"])] == [
        ["train", "1.17", "2"],
        ["val", "1.50", "2"],
        ["test", "0.67", "1"],
    ]


def test_a_caption_is_text_and_nothing_is_fetched(document: str) -> None:
    assert "<script" not in document
    assert "<b>" not in document
    assert CAPTION in words(parts(document)["Sample pictures"])
    assert "http://" not in document
    assert "https://" not in document
    assert document.count('src="') == document.count('src="data:image/') > 0
    assert "url(" not in document


def test_leakage_is_found_by_name_by_bytes_and_by_likeness(document: str) -> None:
    part = parts(document)["Overlap and leakage"]
    # Columns: train and val, train and test, val and test, within train, within val, within test.
    assert rows(part) == [
        ["same image ID", "1", "0", "0", "", "", ""],
        ["identical bytes", "1", "1", "0", "0", "0", "0"],
        ["near-identical", "0", "1", "0", "0", "0", "0"],
        ["identical captions", "0", "2", "0", "1", "0", "1"],
    ]
    assert ["rows with a picture of an earlier split", "1 of 2 in val, 1 of 3 in test"] in rows(document)
    assert ["rows with a near copy of one", "0 of 2 in val, 1 of 3 in test"] in rows(document)
    assert rows(part, 2) == [["A dog and a cat.", "2", "0", "2"]]
    pairs = part.split('<div class="pair">')[1:]
    shown = [re.findall(r"(\w+\.\w+) \((\w+)\)", words(one)) for one in pairs]
    assert shown == [
        [("b.png", "train"), ("b.png", "val")],
        [("b.png", "train"), ("b.png", "val")],
        [("a.png", "train"), ("copy.png", "test")],
        [("c.png", "train"), ("near.jpg", "test")],
    ]
    assert [one.count("data:image/jpeg") for one in pairs] == [2, 2, 2, 2]
    assert "the labels differ" in words(pairs[2])
    assert f"at most {MAX_BITS} of 64 bits" in words(part)


def test_check_and_report_agree_on_what_overlaps(planted: Path) -> None:
    (found,) = [one for one in check_data(DataOptions(folder=planted)).problems if one.kind == "split-overlap"]
    assert found.count == 2
    places = (f"{name}:record 1:" for name in ("val.csv", "test.csv"))
    assert all(example.startswith(place) for example, place in zip(found.examples, places, strict=True))


def test_the_same_data_gives_the_same_bytes_wherever_it_lies(planted: Path, document: str, tmp_path: Path) -> None:
    # As a process, to see what it prints, and in another order of hash tables.
    moved = Path(shutil.copytree(planted, tmp_path / "elsewhere"))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mlic_train.cli.report import report; report()"
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    command += ["data", "--data", str(moved), "--output", "out.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.html\n", "")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == document


def test_without_pictures_their_sections_say_so(planted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(planted, folder, ignore=shutil.ignore_patterns("images"))
    # Without pictures, a row needs a caption.
    (folder / "train.csv").write_text((folder / "train.csv").read_text().replace("c.png,2,", "c.png,2,A cat."))
    result = run("--data", folder, "--no-pictures", "--output", tmp_path / "out.html")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out.html'}\n"), result.output
    found = parts((tmp_path / "out.html").read_text())
    assert list(found) == SECTIONS
    for name in ("Picture sizes", "Sample pictures"):
        assert words(found[name]).startswith("Left out: pictures were not read, because of --no-pictures."), name
    assert [row[0] for row in rows(found["Overlap and leakage"])] == ["same image ID", "identical captions"]
    assert rows(found["Overlap and leakage"], 2) == [["b.png", "train", "val"]]
    assert ["compared", "names only: no picture was read"] in rows(found["Overlap and leakage"], 1)


def test_without_captions_their_sections_say_so(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        scene(tmp_path / "images" / f"{name}.png", seed)
    write(tmp_path / "train.csv", ("ImageID", "Labels"), ("a.png", "dog"), ("b.png", "cat"))
    write(tmp_path / "val.csv", ("ImageID", "Labels"), ("c.png", "dog"))
    document = make(tmp_path / "out.html", DataOptions(folder=tmp_path))
    found = parts(document)
    assert list(found) == SECTIONS
    for name in ("Caption lengths", "Words of each label", "Word clouds"):
        assert words(found[name]).startswith("Left out: "), name
    assert ["splits that are missing", "test"] in rows(document)
    assert ["rows with a picture of an earlier split", "0 of 1 in val"] in rows(document)
    assert ["rows with a near copy of one", "0 of 1 in val"] in rows(document)


def test_train_alone_is_enough_even_if_not_labelled(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", ("LabelID", "Name"), ("1", "dog"), ("2", "cat"))
    write(tmp_path / "train.csv", ("ImageID", "Caption"), ("a.png", "a dog"), ("b.png", "a cat"))
    document = make(tmp_path / "out.html", DataOptions(folder=tmp_path, pictures=False))
    found = parts(document)
    assert ["splits that are missing", "val, test"] in rows(document)
    assert rows(found["Summary"])[0] == ["train", "2", "0", "2", "2", "0", "2", "0", "0"]
    assert ["rows with a picture of an earlier split", "there is one split only"] in rows(document)
    for name in ("Label counts", "Labels per row", "Labels that occur together", "Words of each label"):
        assert words(found[name]).startswith("Left out: "), name


def test_skipped_rows_and_broken_pictures_are_listed(planted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(planted, tmp_path / "data"))
    (folder / "images" / "d.png").write_bytes(b"no picture")
    with (folder / "val.csv").open("a", encoding="utf-8") as file:
        file.write("gone.png,1,Gone.\n")
    refused = run("--data", folder, "--output", tmp_path / "out.html")
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {folder / 'val.csv'}:record 3: missing-picture: ")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out.html").exists()
    accepted = run("--data", folder, "--skip-bad-rows", "--output", tmp_path / "out.html")
    assert accepted.exit_code == 0, accepted.output
    found = parts((tmp_path / "out.html").read_text())
    assert [[row[0].split(":")[0], *row[1:]] for row in rows(found["Skipped rows and warnings"])] == [
        ["missing-picture", "row skipped", "1"],
        ["undecodable-picture", "counted above, in no section below; training stops at it", "1"],
        ["empty-caption", "warning", "1"],
    ]
    assert [row[1:] for row in rows(found["Skipped rows and warnings"], 1)] == [
        ["missing-picture", "val.csv", "3"],
        ["undecodable-picture", "train.csv", "4"],
        ["empty-caption", "train.csv", "3"],
    ]
    assert str(folder) not in (tmp_path / "out.html").read_text()
    assert rows(found["Summary"])[1][-1] == "1"


def test_a_broken_picture_in_two_splits_is_listed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    scene(tmp_path / "images" / "b.png", 1)
    write(tmp_path / "train.csv", ("ImageID", "Labels"), ("a.png", "dog"), ("b.png", "dog"))
    write(tmp_path / "val.csv", ("ImageID", "Labels"), ("a.png", "dog"))
    part = parts(make(tmp_path / "out.html", DataOptions(folder=tmp_path)))["Overlap and leakage"]
    assert rows(part, 2) == [["a.png", "train", "val"]]


def test_an_output_that_cannot_be_written_is_one_line(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--data", planted, "--no-pictures", "--skip-bad-rows", "--output", tmp_path / "file" / "out.html")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / 'file' / 'out.html'}: cannot be written: File exists; choose another --output\n"
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, atexit; from mlic_train.cli.report import report; "
        "heavy = {'torch', 'matplotlib', 'sklearn', 'numpy', 'PIL'}; "
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)))); "
        "report(['data', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--output" in done.stdout


def split_of(*files: Path, start: int = 1) -> Split:
    records = [Record(file.name, file, (), (0,), file.parent / "rows.csv", start + k) for k, file in enumerate(files)]
    return Split(tuple(records), LabelSet(("dog",), ("dog",)))


def test_a_near_copy_is_found_and_another_picture_is_not(tmp_path: Path) -> None:
    originals = [scene(tmp_path / f"{seed}.png", seed, (256, 192)) for seed in range(12)]
    copies = []
    for file in originals[:4]:
        copies.append(tmp_path / f"copy{file.stem}.jpg")
        Image.open(file).resize((120, 130)).save(copies[-1], quality=40)
    flat = [tmp_path / f"flat{shade}.png" for shade in (100, 101)]
    for shade, file in zip((100, 101), flat, strict=True):
        Image.new("RGB", (20, 20), (shade, shade, shade)).save(file)
    splits = {"train": split_of(*originals, flat[0]), "val": split_of(*copies, flat[1])}
    pictures, broken = read_pictures(splits, lambda done, total: None)
    assert not broken
    found = find_duplicates(rows_of(splits, pictures))
    assert not found[SAME_ID].pairs
    assert not found[SAME_BYTES].pairs
    assert found[NEAR].counts == {("train", "val"): 4}
    names = [(pair.first.record.image_id, pair.second.record.image_id) for pair in found[NEAR].pairs]
    assert names == [(f"{seed}.png", f"copy{seed}.jpg") for seed in range(4)]


def test_each_row_counts_once_however_many_copies_there_are(tmp_path: Path) -> None:
    first = scene(tmp_path / "a.png", 1)
    copies = [Path(shutil.copy(first, tmp_path / f"{name}.png")) for name in "bcd"]
    splits = {"train": split_of(first, copies[0]), "val": split_of(*copies[1:])}
    pictures, _ = read_pictures(splits, lambda done, total: None)
    found = find_duplicates(rows_of(splits, pictures))
    assert found[SAME_BYTES].counts == {("train", "train"): 1, ("train", "val"): 2, ("val", "val"): 1}
    assert not found[NEAR].pairs


def test_one_name_for_two_pictures_in_two_folders_is_shown_but_no_leakage(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val")):
        scene(tmp_path / split / "images" / "1.png", seed)
        write(tmp_path / split / "rows.csv", ("ImageID", "Labels"), ("1.png", "dog"))
    options = DataOptions(train=(tmp_path / "train" / "rows.csv",), val=(tmp_path / "val" / "rows.csv",))
    document = make(tmp_path / "out.html", options)
    assert ["rows with a picture of an earlier split", "0 of 1 in val"] in rows(document)
    assert ["rows with a near copy of one", "0 of 1 in val"] in rows(document)
    assert "same image ID, but other bytes" in words(parts(document)["Overlap and leakage"])


def test_a_turned_picture_has_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (400, 200), 90).save(tmp_path / "a.jpg", exif=exif)
    pictures, _ = read_pictures({"train": split_of(tmp_path / "a.jpg")}, lambda done, total: None)
    info = pictures[tmp_path / "a.jpg"]
    assert (info.width, info.height, info.colour, info.grey.shape) == (200, 400, False, (8, 9))


def test_captions_are_the_same_but_for_case_and_their_end() -> None:
    found = find_repeated({"train": ["A dog.", "a dog", "A cat"], "val": ["A DOG!", "A cats"]})
    assert found.texts == [("A dog.", {"train": 2, "val": 1})]
    assert found.counts == {("train", "train"): 1, ("train", "val"): 1}


def test_the_words_of_a_label_are_those_that_its_captions_have_and_others_do_not(tmp_path: Path) -> None:
    texts = [
        ("a dog barks loudly", (0,)),
        ("the dog sleeps", (0,)),
        ("a cat sleeps", (1,)),
        ("a sofa", ()),
        ("?", (1,)),
    ]
    records = [Record(None, None, (text,), labels, tmp_path, k) for k, (text, labels) in enumerate(texts, start=1)]
    found = label_words(Split(tuple(records), LabelSet(("dog", "cat", "bird"), ("1", "2", "3"))))
    assert [(label.name, label.rows, [word for word, _ in label.words]) for label in found] == [
        ("dog", 2, ["dog", "barks", "loudly", "sleeps"]),
        ("cat", 2, ["cat", "sleeps"]),
        ("bird", 0, []),
    ]
    only_marks = Split((Record(None, None, ("? !",), (0,), tmp_path, 1),), LabelSet(("dog",), ("1",)))
    assert label_words(only_marks) == []
