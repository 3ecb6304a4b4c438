import json
import math
import os
import random
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mlic_runtime.batch.label_studio import LOCAL_FILES, LabelStudio, PictureAddresses, require_files
from mlic_runtime.batch.uncertainty import Margins, Uncertain, choose_uncertain
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import InputError
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.rows.reader import Row, RowError

THRESHOLDS = {"red": 0.5, "green": 0.6, "blue": 0.4}  # of the tiny model


@pytest.fixture(autouse=True)
def _use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Nine pictures of one colour each, some in a subfolder; one has a caption."""
    folder = tmp_path / "my pictures"
    (folder / "sub").mkdir(parents=True)
    shades = np.random.default_rng(3).integers(0, 256, (9, 3))
    for number, shade in enumerate(shades):
        name = f"sub/{number} #é.png" if number % 3 else f"{number}.png"
        Image.fromarray(np.full((6, 8, 3), shade, dtype=np.uint8)).save(folder / name)
    (folder / "0.txt").write_text("bright", "utf-8")
    return folder


def run(*arguments: "str | Path", stdin: "bytes | None" = None) -> Result:
    return CliRunner().invoke(infer, [os.fspath(argument) for argument in arguments], input=stdin)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def logit(number: float) -> float:
    return math.log(number / (1 - number))


def margin(probabilities: dict[str, float]) -> float:
    return min(abs(logit(probabilities[label]) - logit(threshold)) for label, threshold in THRESHOLDS.items())


def prediction(*probabilities: float, caption: "str | None" = None) -> Prediction:
    return Prediction(None, caption, (), dict(zip("abc", probabilities, strict=False)), "m@1")


# --- which rows


def test_the_margin_is_the_least_distance_in_logits() -> None:
    margins = Margins(("a", "b"), [0.5, 0.01])
    assert margins.margin(prediction(0.9, 0.02)) == pytest.approx(logit(0.02) - logit(0.01))
    assert margins.margin(prediction(0.6, 0.9)) == pytest.approx(logit(0.6))


@pytest.mark.parametrize("threshold", [0.0, 1.0])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_label_that_is_always_or_never_predicted_is_in_no_doubt(threshold: float, probability: float) -> None:
    assert Margins(("a", "b"), [threshold, 0.5]).margin(prediction(probability, 0.6)) == pytest.approx(logit(0.6))
    assert Margins(("a",), [threshold]).margin(prediction(probability)) == math.inf


def test_probabilities_that_are_rounded_to_0_or_1_have_a_margin() -> None:
    margins = Margins(("a",), [0.5])
    assert logit(0.999_999) < margins.margin(prediction(1.0)) < math.inf
    assert margins.margin(prediction(0.0)) == pytest.approx(margins.margin(prediction(1.0)))


def test_confidence_begins_at_a_half() -> None:
    assert Uncertain(1, prediction(0.5), 0.0).confidence == 0.5
    assert Uncertain(1, prediction(0.9), logit(0.9)).confidence == pytest.approx(0.9)
    assert Uncertain(1, prediction(0.9), math.inf).confidence == 1.0


@pytest.mark.parametrize("count", [1, 7, 50, 1000])
def test_the_rows_are_those_that_sorting_all_of_them_gives(count: int) -> None:
    numbers = random.Random(5)
    levels = [numbers.choice([0.1, 0.3, 0.45, 0.6, 0.8]) for _ in range(200)]  # many are equal
    choice = choose_uncertain(map(prediction, levels), Margins(("a",), [0.5]), count)
    by_margin = sorted(range(1, 201), key=lambda number: round(abs(logit(levels[number - 1])), 9))
    assert [row.number for row in choice.chosen] == by_margin[:count]
    assert choice.rows == 200


def test_only_the_chosen_rows_are_held() -> None:
    alive: list[weakref.ref[Prediction]] = []
    most = 0

    def results() -> Iterator[Prediction]:
        nonlocal most, alive
        numbers = random.Random(1)
        for _ in range(2000):
            made = prediction(numbers.random())
            alive = [*(each for each in alive if each() is not None), weakref.ref(made)]
            most = max(most, len(alive))
            yield made

    choose_uncertain(results(), Margins(("a",), [0.5]), 10)
    assert most <= 12


def test_rows_that_fail_are_counted_and_never_chosen() -> None:
    failed = RowError("x.png", InputError("it is broken"))
    seen: list[tuple[int, RowError]] = []
    results: list[Prediction | RowError] = [failed, prediction(0.9), failed]
    choice = choose_uncertain(results, Margins(("a",), [0.5]), 5, report=lambda number, row: seen.append((number, row)))
    assert [row.number for row in choice.chosen] == [2]
    assert (choice.rows, choice.errors, seen) == (3, 2, [(1, failed), (3, failed)])
    with pytest.raises(InputError, match="row 1: it is broken"):
        choose_uncertain(results, Margins(("a",), [0.5]), 5, on_error="stop")


# --- mlic-infer --uncertain


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_the_records_are_those_without_the_option_the_least_certain_first(pictures: Path, batch_size: str) -> None:
    every = records(run("--input", pictures, "--batch-size", batch_size).stdout)
    result = run("--input", pictures, "--batch-size", batch_size, "--uncertain", "4")
    assert result.exit_code == 0
    expected = sorted(every, key=lambda record: margin(record["probabilities"]))[:4]
    assert records(result.stdout) == expected


def test_top_k_shortens_the_records_and_changes_no_choice(pictures: Path) -> None:
    every = records(run("--input", pictures, "--uncertain", "5").stdout)
    short = records(run("--input", pictures, "--uncertain", "5", "--top-k", "1").stdout)
    assert [record["image"] for record in short] == [record["image"] for record in every]
    assert [list(record["probabilities"].items()) for record in short] == [
        list(record["probabilities"].items())[:1] for record in every
    ]


def test_a_threshold_replaces_those_of_the_model(pictures: Path) -> None:
    every = records(run("--input", pictures).stdout)
    chosen = records(run("--input", pictures, "--uncertain", "1", "--threshold", "0.9").stdout)
    distances = [min(abs(logit(p) - logit(0.9)) for p in record["probabilities"].values()) for record in every]
    assert chosen[0]["image"] == every[int(np.argmin(distances))]["image"]


@pytest.mark.parametrize("format_", ["csv", "submission"])
def test_other_formats_have_their_header_and_a_record_for_each(pictures: Path, format_: str) -> None:
    every = run("--input", pictures, "--format", format_).stdout.splitlines()
    chosen = run("--input", pictures, "--format", format_, "--uncertain", "3").stdout.splitlines()
    assert chosen[0] == every[0]
    assert len(chosen) == 4
    assert set(chosen[1:]) < set(every[1:])


def test_rows_that_fail_are_shown_and_the_others_written(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("--input", pictures, "--uncertain", "3", "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "Row 4: cannot read picture" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: 1 of 10 rows failed, the first of this run: row 4: ")
    assert len(records((tmp_path / "out.jsonl").read_text("utf-8"))) == 3


def test_an_output_is_replaced_as_a_whole_or_not_at_all(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("older\n")
    (pictures / "z.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("--input", pictures, "--uncertain", "3", "--output", output, "--on-error", "stop")
    assert (result.exit_code, output.read_text()) == (1, "older\n")
    assert result.stderr.startswith("Error: row 10: cannot read picture")
    (pictures / "z.png").unlink()
    assert run("--input", pictures, "--uncertain", "3", "--output", output).exit_code == 0
    assert len(records(output.read_text("utf-8"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my pictures", "out.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "label-studio"], "'--format label-studio' needs '--uncertain', the number of rows to label."),
        (
            ["--uncertain", "3", "--resume", "--output", "o"],
            "'--uncertain' and '--resume' exclude each other: before the last row nothing is written.",
        ),
        (["--uncertain", "3", "--engine", "ray", "--output", "o"], "'--uncertain' needs '--engine local'."),
    ],
)
def test_what_does_not_go_together_is_refused(pictures: Path, arguments: list[str], message: str) -> None:
    result = run("--input", pictures, *arguments)
    assert result.exit_code == 2
    assert f"Error: {message}" in result.stderr


def test_one_picture_has_nothing_to_choose_from(pictures: Path) -> None:
    assert "'--uncertain' needs '--input'." in run(pictures / "0.png", "--uncertain", "3").stderr
    assert "'--format label-studio' needs '--input'." in run(pictures / "0.png", "--format", "label-studio").stderr


def test_an_output_that_cannot_be_written_is_refused_before_the_first_row(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # it would be reported
    result = run("--input", pictures, "--uncertain", "3", "--output", tmp_path / "none" / "out.json")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot write '{tmp_path / 'none' / 'out.json'}': there is no folder")


# --- Label Studio


def tasks_of(output: Path) -> list[dict[str, Any]]:
    return list(json.loads(output.read_text("utf-8")))


def test_tasks_have_the_prediction_to_correct(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "tasks.json"
    result = run("--input", pictures, "--uncertain", "9", "--format", "label-studio", "--output", output)
    assert (result.exit_code, result.stdout) == (0, "")
    expected = records(run("--input", pictures, "--uncertain", "9").stdout)
    tasks = tasks_of(output)
    assert len(tasks) == 9
    for task, record in zip(tasks, expected, strict=True):
        address = task["data"]["image"]
        assert address.startswith("/data/local-files/?d=my%20pictures/")
        assert unquote(address.removeprefix(LOCAL_FILES)) == f"my pictures/{record['image']}"
        assert task["data"]["caption"] == (record["caption"] or "")
        (made,) = task["predictions"]
        assert made["model_version"] == "tiny@1.0.0"
        assert made["score"] == pytest.approx(1 / (1 + math.exp(-margin(record["probabilities"]))), abs=1e-5)
        found = [choice for part in made["result"] for choice in part["value"]["choices"]]
        assert found == record["labels"]
        for part in made["result"]:
            assert (part["from_name"], part["to_name"], part["type"]) == ("labels", "image", "choices")
    scores = [task["predictions"][0]["score"] for task in tasks]
    assert scores == sorted(scores)


def test_the_labelling_configuration_lies_beside_the_tasks(pictures: Path, tmp_path: Path) -> None:
    result = run("--input", pictures, "--uncertain", "9", "--format", "label-studio", "--output", tmp_path / "t.json")
    view = ElementTree.parse(tmp_path / "t.xml").getroot()  # the command has written it
    assert [(tag.tag, tag.get("name"), tag.get("value")) for tag in view] == [
        ("Image", "image", "$image"),
        ("Text", "caption", "$caption"),
        ("Choices", "labels", None),
    ]
    assert (view[2].get("toName"), view[2].get("choice")) == ("image", "multiple")
    assert [choice.get("value") for choice in view[2]] == ["red", "green", "blue"]
    assert result.stderr == (
        f"Note: wrote 9 of 9 rows, those nearest to their thresholds; '{tmp_path / 't.xml'}' is their labelling "
        "configuration\n"
        "Note: Label Studio shows the pictures if it is started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}, and the project has the local storage {pictures}\n"
        f"Note: when they are corrected, export them as JSON into {tmp_path}, where its pictures are found, and train "
        "with mlic-train --data DATA --also EXPORT.json\n"
    )


def test_another_file_beside_the_tasks_stays(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "t.xml").write_text("mine")
    result = run("--input", pictures, "--uncertain", "2", "--format", "label-studio", "--output", tmp_path / "t.json")
    assert result.exit_code == 0
    assert (tmp_path / "t.xml").read_text() == "mine"
    assert "t.xml' is another file and stays; their labelling configuration follows" in result.stderr
    assert '<Choice value="red"/>' in result.stderr


def test_the_configuration_of_an_earlier_run_is_replaced(pictures: Path, tmp_path: Path) -> None:
    older = LabelStudio.of([Uncertain(1, prediction(0.5, caption="words"), 0.0)], ('an "old" <one>', "two"), None)
    (tmp_path / "t.xml").write_text(older.configuration)
    run("--input", pictures, "--uncertain", "2", "--format", "label-studio", "--output", tmp_path / "t.json")
    view = ElementTree.parse(tmp_path / "t.xml").getroot()
    assert [choice.get("value") for choice in view.iter("Choice")] == ["red", "green", "blue"]
    changed = (tmp_path / "t.xml").read_text().replace("<View>", '<View className="mine">')
    (tmp_path / "t.xml").write_text(changed)
    run("--input", pictures, "--uncertain", "2", "--format", "label-studio", "--output", tmp_path / "t.json")
    assert (tmp_path / "t.xml").read_text() == changed


def test_without_a_file_the_configuration_goes_to_stderr(pictures: Path) -> None:
    result = run("--input", pictures, "--uncertain", "2", "--format", "label-studio")
    assert len(json.loads(result.stdout)) == 2
    assert result.stderr.endswith("</View>\n")


def test_captions_alone_are_labelled_as_texts(tmp_path: Path) -> None:
    result = run(
        "--input", "-", "--uncertain", "2", "--format", "label-studio", "--output", tmp_path / "t.json",
        stdin=b'{"caption": "red"}\n{"caption": "no"}\n',
    )  # fmt: skip
    assert "LOCAL_FILES" not in result.stderr
    assert [list(task["data"]) for task in tasks_of(tmp_path / "t.json")] == [["caption"], ["caption"]]
    view = ElementTree.parse(tmp_path / "t.xml").getroot()  # the command has written it
    assert [(tag.tag, tag.get("toName")) for tag in view] == [("Text", None), ("Choices", "caption")]


def test_all_tasks_have_the_same_data() -> None:
    rows = [
        Uncertain(1, Prediction("a.png", None, ("x",), {}, "m@1"), 0.0),
        Uncertain(2, Prediction(None, "words", (), {}, "m@1"), 0.1),
    ]
    made = LabelStudio.of(rows, ("x",), PictureAddresses("/some/pictures"))
    assert [task["data"] for task in json.loads(made.tasks)] == [
        {"image": "/data/local-files/?d=pictures/a.png", "caption": ""},
        {"image": "", "caption": "words"},
    ]


def test_labels_are_escaped_in_the_configuration() -> None:
    labels = ('a "b"', "<c> & d", "é;f")
    view = ElementTree.fromstring(LabelStudio.of([], labels, None).configuration)
    assert [choice.get("value") for choice in view.iter("Choice")] == list(labels)


def test_no_rows_are_a_list_without_tasks() -> None:
    assert json.loads(LabelStudio.of([], ("x",), None).tasks) == []


def test_pictures_are_addressed_below_the_parent_of_their_folder(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    for root in (".", str(pictures), "../my pictures"):
        addresses = PictureAddresses(root)
        assert addresses.address("sub/1.png") == "/data/local-files/?d=my%20pictures/sub/1.png"
        assert addresses.folder == pictures
    assert PictureAddresses(".").address(str(pictures / "0.png")) == "/data/local-files/?d=my%20pictures/0.png"
    assert PictureAddresses("/").address("a/0.png") == "/data/local-files/?d=a/0.png"
    with pytest.raises(InputError, match="outside of the image root"):
        PictureAddresses(".").address("../0.png")


def test_a_picture_inside_the_file_of_rows_cannot_be_shown() -> None:
    rows = list(require_files(iter([Row(image=b"bytes", name="a.png"), Row(image="b.png")])))
    assert "pictures that are files of their own" in str(rows[0].error)
    assert rows[1].error is None
