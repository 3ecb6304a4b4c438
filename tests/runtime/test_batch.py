import csv
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mlic_runtime.cli.infer import infer
from mlic_runtime.predict.predictor import Predictor

# What each row of the fixture `rows` comes to: its labels, or the type of its error.
OUTCOMES = [["red"], ["red", "blue"], "ImageError", [], "InputError", "ImageError", ["green"], "InputError", ["blue"]]


@pytest.fixture(autouse=True)
def _use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with red.png, grey.png, black.png and a corrupt.jpg."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("red", (255, 0, 0)), ("grey", (128, 128, 128)), ("black", (0, 0, 0))):
        Image.fromarray(np.full((6, 8, 3), colour, dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "corrupt.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return folder


@pytest.fixture
def rows(pictures: Path) -> Path:
    """Good rows and bad ones."""
    lines = [
        "red.png,", "grey.png,", "missing.png,red", "black.png,no", "../red.png,red", "corrupt.jpg,red", ",green",
        "red.png,caf\udce9", "black.png,blue blue",
    ]  # fmt: skip
    file = pictures / "rows.csv"
    file.write_text("ImageID,Caption\n" + "\n".join(lines) + "\n", "utf-8", "surrogateescape")
    return file


def run(*arguments: "str | Path", stdin: "bytes | None" = None) -> Result:
    return CliRunner().invoke(infer, [os.fspath(argument) for argument in arguments], input=stdin)


def outcomes(lines: str) -> list[object]:
    entries = [json.loads(line) for line in lines.splitlines()]
    return [entry["error"]["type"] if "error" in entry else entry["labels"] for entry in entries]


# --- what comes out


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("workers", [1, 4])
def test_every_row_has_its_result_in_its_place(rows: Path, batch_size: int, workers: int) -> None:
    result = run("--input", rows, "--batch-size", str(batch_size), "--workers", str(workers))
    assert outcomes(result.stdout) == OUTCOMES
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: 4 of 9 rows failed, the first of this run: row 3: cannot read picture '{rows.parent}/missing.png': "
        "there is no such file or folder\n"
    )


def test_a_good_row_is_what_the_api_says_and_a_bad_one_an_error_record(rows: Path) -> None:
    lines = run("--input", rows, "--top-k", "2", "--threshold", "0.1").stdout.splitlines()
    expected = Predictor.load().predict(str(rows.parent / "red.png"), top_k=2, threshold=0.1).to_dict()
    assert json.loads(lines[0]) == {**expected, "image": "red.png"}
    assert json.loads(lines[4]) == {
        "image": "../red.png",
        "error": {
            "type": "InputError",
            "message": f"picture '../red.png' lies outside of the image root '{rows.parent}': name another root",
        },
    }
    assert json.loads(lines[7])["error"]["message"].startswith(
        "row 8, caption: found the byte 0xE9, which is not UTF-8"
    )


def test_a_run_without_errors_is_silent_and_exits_0(rows: Path) -> None:
    rows.write_text("ImageID\nred.png\nblack.png\n")
    result = run("--input", rows)
    assert (result.exit_code, result.stderr) == (0, "")
    assert outcomes(result.stdout) == [["red"], []]


def test_it_can_stop_at_the_first_bad_row(rows: Path, tmp_path: Path) -> None:
    result = run("--input", rows, "--on-error", "stop", "--batch-size", "2", "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: row 3: cannot read picture ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
    assert outcomes((tmp_path / "out.jsonl.partial").read_text()) == OUTCOMES[:2]


def test_csv_has_a_column_for_errors(rows: Path) -> None:
    table = list(csv.DictReader(io.StringIO(run("--input", rows, "--format", "csv").stdout, newline="")))
    assert list(table[0]) == ["image", "caption", "model", "labels", "p_red", "p_green", "p_blue", "error"]
    assert [row["labels"] for row in table] == ["red", "red;blue", "", "", "", "", "green", "", "blue"]
    assert [bool(row["error"]) for row in table] == [isinstance(outcome, str) for outcome in OUTCOMES]
    assert table[2]["image"] == "missing.png"
    assert table[2]["error"].startswith("ImageError: cannot read picture ")
    assert 0.5 < float(table[0]["p_red"]) < 1


# --- submissions


def test_a_submission_lists_names_separated_by_semicolons(rows: Path) -> None:
    rows.write_text("ImageID,Caption\nred.png,\ngrey.png,\nblack.png,no\n")
    result = run("--input", rows, "--format", "submission")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "ImageID,Labels\nred.png,red\ngrey.png,red;blue\nblack.png,\n"


def test_a_submission_has_a_label_in_every_row_only_when_asked(rows: Path) -> None:
    rows.write_text("ImageID,Caption\ngrey.png,\nblack.png,no\n")
    result = run("--input", rows, "--format", "submission", "--at-least-one")
    assert result.stdout == "ImageID,Labels\ngrey.png,red;blue\nblack.png,red\n"


def test_a_submission_takes_ids_from_a_labels_file(rows: Path, tmp_path: Path) -> None:
    rows.write_text("ImageID,Caption\ngrey.png,\nred.png,green\n")
    ids = tmp_path / "labels.csv"
    ids.write_text("LabelID,Name\n1,blue\n19,red\n7,traffic light\n3,green\n")
    result = run("--input", rows, "--format", "submission", "--label-ids", ids, "--threshold", "0.3")
    assert result.stdout == "ImageID,Labels\ngrey.png,19 3 1\nred.png,19 3\n"


def test_a_submission_tells_its_errors_on_stderr(rows: Path) -> None:
    result = run("--input", rows, "--format", "submission")
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + len(OUTCOMES)
    assert lines[3] == "missing.png,"
    assert result.stderr.splitlines()[0].startswith("Row 3: cannot read picture ")
    assert "Row 7: found no name of a picture; a submission needs one in every row\n" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: 5 of 9 rows failed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("LabelID,Name\n1,red\n2,green\n", "has no id for 'blue': it must list all 3 labels"),
        ("LabelID,Name\n1,red\n1,green\n3,blue\n", "row 2: found '1', 'green' again; expected each once"),
        ("LabelID,Name\n1,red\n2,red\n3,blue\n", "row 2: found '2', 'red' again"),
        ("LabelID,Name\n1 2,red\n", "row 1: found the id '1 2'; expected a text without spaces"),
        ("LabelID,Name\n,red\n", "row 1: found the id ''"),
        ("Id,Label\n1,red\n", "has the columns 'Id,Label'; expected LabelID,Name"),
        ("LabelID,Name\n1,red,x\n", "expected LabelID,Name in every row"),
        ("", "has the columns ''"),
        ('LabelID,Name\n"', "is not CSV in UTF-8"),
    ],
)
def test_label_ids_that_do_not_fit_the_model_are_refused(
    rows: Path, tmp_path: Path, content: str, message: str
) -> None:
    ids = tmp_path / "labels.csv"
    ids.write_text(content)
    result = run("--input", rows, "--format", "submission", "--label-ids", ids)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_label_ids_that_are_too_long_are_refused_and_not_cut(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tmp_path / "labels.csv"
    ids.write_text("LabelID,Name\n1,red\n2,green\n3,blue\n4,black\n")
    monkeypatch.setattr(
        "mlic_runtime.batch.label_ids.MAX_LABEL_IDS_BYTES", len("LabelID,Name\n1,red\n2,green\n3,blue\n")
    )
    result = run("--input", rows, "--format", "submission", "--label-ids", ids)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("labels.csv' has more than 34 bytes, which no file of label ids has\n")


# --- where rows come from


def test_rows_come_from_standard_input(rows: Path) -> None:
    lines = b'{"image": "red.png"}\n{"caption": "green"}\n{"image": "nothing.png"}\n'
    result = run("--input", "-", "--image-root", rows.parent, stdin=lines)
    assert outcomes(result.stdout) == [["red"], ["green"], "ImageError"]


def test_rows_come_from_a_folder_with_sidecars(pictures: Path) -> None:
    (pictures / "corrupt.jpg").unlink()
    (pictures / "black.txt").write_text("green\n")
    result = run("--input", pictures)
    assert result.exit_code == 0
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(entry["image"], entry["caption"], entry["labels"]) for entry in entries] == [
        ("black.png", "green", ["green"]),
        ("grey.png", None, ["red", "blue"]),
        ("red.png", None, ["red"]),
    ]


def test_captions_alone_or_pictures_alone_can_be_asked_for(rows: Path) -> None:
    rows.write_text("ImageID,Caption\nnot/there.png,green\nred.png,\n")
    result = run("--input", rows, "--no-pictures")
    assert outcomes(result.stdout) == [["green"], "InputError"]
    assert json.loads(result.stdout.splitlines()[0])["image"] == "not/there.png"
    rows.write_text("ImageID,Caption\nred.png,green green\n")
    assert outcomes(run("--input", rows, "--no-captions").stdout) == [["red"]]


def test_columns_that_are_not_read_are_said_on_stderr(rows: Path) -> None:
    rows.write_text("ImageID,Labels\nred.png,1\n")
    result = run("--input", rows)
    assert (result.exit_code, result.stderr) == (0, "Note: not read from the input: Labels\n")


# --- usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg", "--input", "-"], "IMAGE and '--input' exclude each other"),
        (["a.jpg", "--output", "x"], "'--output' needs '--input'"),
        (["a.jpg", "--batch-size", "32"], "'--batch-size' needs '--input'"),
        (["a.jpg", "--no-pictures"], "'--pictures/--no-pictures' needs '--input'"),
        (["a.jpg", "--format", "submission"], "'--format submission' needs '--input'"),
        (
            ["--input", "-", "--format", "table"],
            "'--input' needs '--format' jsonl, csv, submission or label-studio; found table",
        ),
        (["--input", "-", "--resume"], "'--resume' needs '--output'"),
        (["--input", "-", "--label-ids", "x"], "'--label-ids' needs '--format submission'"),
        (["--input", "-", "--no-pictures", "--no-captions"], "exclude each other"),
        (["--input", "-", "--workers", "0"], "0 is not in the range x>=1"),
        (["--input", "-", "--on-error", "ignore"], "'ignore' is not one of"),
        ([], "Missing argument 'IMAGE', or '--input' for many"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())


def test_the_help_names_the_columns() -> None:
    text = " ".join(run("--help").stdout.split())
    assert (
        "a column for pictures (ImageID, image, file_name, image_path, ...), for captions (Caption, text, sentence"
        in text
    )


def test_an_output_that_is_no_regular_file_or_is_the_input_is_refused(rows: Path) -> None:
    for output, message in (("/dev/null", "is not a regular file"), (str(rows), "is the input")):
        before = rows.read_bytes()
        result = run("--input", rows, "--output", output)
        assert result.exit_code == 1
        assert message in result.stderr
        assert rows.read_bytes() == before


def test_the_output_replaces_an_older_one_when_it_is_complete(rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("older\n")
    link = tmp_path / "link.jsonl"
    link.symlink_to(output)
    assert run("--input", rows, "--output", link).stdout == ""
    assert outcomes(output.read_text()) == OUTCOMES
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.jsonl", "out.jsonl", "pictures"]


def test_shards_by_name_are_predicted_and_never_written_to(tmp_path: Path, pictures: Path) -> None:
    for number, name in enumerate(("red", "grey")):
        with tarfile.open(tmp_path / f"train-{number}.tar", "w") as archive:
            archive.add(pictures / f"{name}.png", f"{name}.png")
    source, output = tmp_path / "train-{0..1}.tar", tmp_path / "out.jsonl"
    for _ in range(2):  # the second time, the output is there
        result = run("--input", source, "--output", output)
        assert result.exit_code == 0, result.output
    assert [json.loads(line)["image"] for line in output.read_text().splitlines()] == ["red.png", "grey.png"]
    shard = tmp_path / "train-1.tar"
    before = shard.read_bytes()
    refused = run("--input", source, "--output", shard)
    assert refused.exit_code == 1
    assert "is the input: choose another output" in refused.stderr
    assert shard.read_bytes() == before
