import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.annotations.formats.registry import find_format
from mlic_runtime.annotations.formats.sidecars import are_boxes, judge
from mlic_train.cli.train import train
from mlic_train.data import LabelSet, find_splits, read_labels, read_split
from mlic_train.errors import DataError

Draw = Callable[..., Path]
Make = Callable[[Mapping[str, str]], Path]
TAGS = {"1.txt": "dog, red  sofa, indoors", "2.txt": "dog, outdoors", "3.txt": "cat,indoors,", "4.txt": "\n"}
CAPTIONS = {"1.txt": "A dog sleeps on a red sofa.", "2.txt": "Two dogs run, and a third one looks.", "3.txt": "A cat"}


@pytest.fixture
def make(tmp_path: Path, draw: Draw) -> Make:
    """Write texts into a folder, with the picture of each beside it."""

    def write(texts: Mapping[str, str]) -> Path:
        for seed, (name, text) in enumerate(texts.items()):
            file = tmp_path / "data" / name
            picture = file.with_suffix("")
            draw(picture if picture.suffix == ".jpg" else file.with_suffix(".jpg"), seed)
            file.write_text(text)
        return tmp_path / "data"

    return write


def read(folder: Path, data_format: str = "auto") -> list[tuple[str | None, tuple[str, ...] | None, tuple[str, ...]]]:
    files = find_splits(folder, data_format).train
    labels = read_labels(files, data_format)
    records = read_split(files, labels, data_format=data_format).records
    return [
        (r.image_id, None if r.labels is None else tuple(labels.names[i] for i in r.labels), r.captions)
        for r in records
    ]


@pytest.mark.parametrize("suffix", [".txt", ".jpg.txt", ".caption", ".jpg.tags"])
def test_tags_beside_pictures_are_labels(make: Make, suffix: str) -> None:
    folder = make({name.replace(".txt", suffix): text for name, text in TAGS.items()})
    assert find_format(folder).name == "tags"
    assert read(folder) == [
        ("1.jpg", ("dog", "indoors", "red sofa"), ()),
        ("2.jpg", ("dog", "outdoors"), ()),
        ("3.jpg", ("cat", "indoors"), ()),
        ("4.jpg", (), ()),
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"1.txt": "dog\nred sofa, old", "2.txt": "dog\n"}, [("dog", "red sofa, old"), ("dog",)]),
        (
            {"1.txt": "1girl solo long_hair", "2.txt": "solo blue_eyes"},
            [("1girl", "long_hair", "solo"), ("blue_eyes", "solo")],
        ),
        ({"1.txt": "dog", "2.txt": "cat"}, [("dog",), ("cat",)]),
        ({"1.txt": "dog, cat,\nsofa", "2.txt": "cat, dog"}, [("cat", "dog", "sofa"), ("cat", "dog")]),
    ],
)
def test_the_separator_is_found_for_all_texts(
    make: Make, texts: dict[str, str], expected: list[tuple[str, ...]]
) -> None:
    assert [labels for _, labels, _ in read(make(texts))] == expected


def test_what_the_texts_are_is_said_with_counts(make: Make) -> None:
    folder = make(TAGS)
    (folder / "4.txt").unlink()
    (folder / "README.md").write_text("About.")
    split = read_split([folder], read_labels([folder]))
    assert [problem.message for problem in split.warnings] == [
        "the .txt files are read as tags separated by commas (3 of 3 texts look like tags)",
        "found 1 pictures without a text beside them, left out: '4.jpg'",
        "found 1 files that belong to no picture, not read: 'README.md'",
    ]
    assert find_format(folder).describe(folder) == (
        "tags beside pictures: 3 of 4 pictures; .txt files as tags separated by commas (3 of 3 texts look like tags)"
    )


def test_captions_beside_pictures_are_captions_without_labels(make: Make) -> None:
    folder = make(CAPTIONS)
    assert find_format(folder).name == "captions"
    files = find_splits(folder).train
    split = read_split(files, LabelSet(("dog",), ("dog",)))
    assert [(r.labels, r.captions) for r in split.records] == [(None, (text,)) for text in CAPTIONS.values()]
    with pytest.raises(DataError, match=r"found [0-9]+ rows and no labels"):
        read_labels(files)


def test_the_user_can_say_what_the_texts_are(make: Make) -> None:
    folder = make({**CAPTIONS})
    assert read(folder, "tags")[0][1] == ("A dog sleeps on a red sofa.",)
    tags = make(TAGS)
    split = read_split(find_splits(tags, "captions").train, LabelSet(("a",), ("a",)), data_format="captions")
    assert split.records[0].captions == ("dog, red sofa, indoors",)


@pytest.mark.parametrize(
    ("texts", "is_tags"),
    [
        (["a red car", "two cats", "a dog running"], False),
        (["a dog", "a dog", "a cat"], True),
        (["A dog, a cat and a very long sofa in a room, seen from above."] * 3, False),
        (["", " "], False),
        (["1girl, solo, looking at viewer, hair between eyes, hand on own hip, sky, sea, sun, sand, hat, bag"], True),
    ],
)
def test_tags_and_captions_are_told_apart(texts: list[str], is_tags: bool) -> None:
    assert (judge(texts).separator is not None) == is_tags


def test_train_and_val_are_judged_together(make: Make) -> None:
    tags = {f"train/{number}{name}": text for name, text in TAGS.items() for number in range(3)}
    folder = make({**tags, "val/1.txt": "a red car on a road"})
    found = find_splits(folder)
    assert [find_format(files[0]).name for files in (found.train, found.val)] == ["tags", "tags"]
    result = CliRunner().invoke(train, ["--data", str(folder), "--check"])
    assert "'a red car on a road'" in result.output


def test_tags_and_captions_can_lie_beside_one_picture(make: Make) -> None:
    folder = make({**TAGS, **{name.replace("txt", "caption"): text for name, text in CAPTIONS.items()}})
    assert read(folder)[0] == ("1.jpg", ("dog", "indoors", "red sofa"), (CAPTIONS["1.txt"],))


@pytest.mark.parametrize(
    ("content", "labels", "captions"),
    [
        ({"tags": ["dog", "red sofa"], "rating": "s"}, ("dog", "red sofa"), ()),
        ({"tags": "dog red_sofa"}, ("dog", "red_sofa"), ()),
        ({"tags": {"general": ["dog"], "artist": []}, "caption": "A dog."}, ("dog",), ("A dog.",)),
        ({"version": "5.5.0", "flags": {"old": True, "new": False}, "shapes": [{"label": "dog"}]}, ("dog", "old"), ()),
    ],
)
@pytest.mark.parametrize("name", ["1.json", "1.jpg.json"])
def test_json_beside_pictures_goes_by_its_keys(
    make: Make, name: str, content: object, labels: tuple[str, ...], captions: tuple[str, ...]
) -> None:
    assert read(make({name: json.dumps(content)})) == [("1.jpg", labels, captions)]


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "{",
        '{"tags": [1]}',
        '{"tags": [""]}',
        '{"shapes": [3]}',
        "{}",
        '{"caption": 3}',
        '{"tags":' + "[" * 100_000,
    ],
)
def test_broken_json_is_a_problem_of_its_row(make: Make, content: str) -> None:
    folder = make({"1.json": '{"tags": ["dog"]}', "2.json": content})
    split = read_split([folder], read_labels([folder]), skip_bad_rows=True)
    assert [r.image_id for r in split.records] == ["1.jpg"]
    assert [(p.kind, p.number) for p in split.skipped] == [("bad-row", 2)]
    assert "2.json" in split.skipped[0].message


def test_texts_that_cannot_be_read_are_problems_of_their_rows(make: Make) -> None:
    folder = make({**TAGS, "5.txt": "x", "6.txt": "x"})
    (folder / "5.txt").write_bytes(b"dog, caf\xe9")
    (folder / "6.txt").write_bytes(b"dog," * 300_000)
    split = read_split([folder], read_labels([folder]), skip_bad_rows=True)
    assert len(split.records) == 4
    assert ["not UTF-8" in p.message or "more than 1048576 bytes" in p.message for p in split.skipped] == [True, True]


def test_one_text_about_two_pictures_belongs_to_none(make: Make, draw: Draw) -> None:
    folder = make(TAGS)
    draw(folder / "1.png", 9)
    assert [name for name, _, _ in read(folder)] == ["2.jpg", "3.jpg", "4.jpg"]


def test_boxes_are_no_tags(make: Make) -> None:
    assert are_boxes(["0 0.5 0.5 1e-1 .25\n\n", "17 1 1 1 1"])
    assert not are_boxes(["0 0.5 0.5"])
    assert not are_boxes(["", ""])
    assert not are_boxes(["1 " + "1" * 10_000 + " 1 1 x"])


def test_a_few_notes_beside_many_pictures_are_not_tags(make: Make, draw: Draw) -> None:
    folder = make({"1.txt": "dog, cat"})
    for seed in range(5):
        draw(folder / f"more{seed}.jpg", seed)
    with pytest.raises(DataError, match="no training split"):
        find_splits(folder)
