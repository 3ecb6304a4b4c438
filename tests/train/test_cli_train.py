import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch.utils.data import get_worker_info

from mlic_train.base.progress import log_line
from mlic_train.batches.dataset import Example, Examples, Key
from mlic_train.cli.export import export
from mlic_train.cli.train import train
from mlic_train.runs.checkpoint import TrainedModel, load_trained

SMALL = ["--image-size", "16", "--epochs", "2", "--batch-size", "8", "--text-batch-size", "8"]
SMALL += ["--learning-rate", "0.01", "--device", "cpu", "--preset", "none"]


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type] # a command


@pytest.fixture
def data(colours: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colours, tmp_path / "data"))


def test_training_prints_metrics_as_data(colours: Path, tmp_path: Path) -> None:
    result = run(
        train, "--data", colours, "--output", tmp_path / "run", *SMALL, "--format", "json", "--note", "made up"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["run"] == str(tmp_path / "run")
    assert 0 <= report["metrics"]["test"]["samples_f1"] <= 1
    assert len(report["history"]) == 2
    assert set(report["thresholds"]) == {"red", "green", "blue"}
    assert "epoch 2/2" in result.stderr
    assert "made up" in (tmp_path / "run" / "config.json").read_text()


def test_a_table_has_one_row_per_split_and_mode(colours: Path, tmp_path: Path) -> None:
    result = run(train, "--data", colours, "--output", tmp_path / "run", *SMALL)
    assert result.exit_code == 0, result.output
    rows = [line.split()[0] for line in result.stdout.splitlines()]
    assert rows[:7] == [
        "split",
        "val",
        "val-picture-only",
        "val-caption-only",
        "test",
        "test-picture-only",
        "test-caption-only",
    ]


def test_resume_goes_on_and_refuses_other_options(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(train, "--data", colours, "--output", folder, *SMALL).exit_code == 0
    again = run(train, "--data", colours, "--output", folder, *SMALL)
    assert again.exit_code == 1
    assert "holds a run already; continue with --resume" in again.stderr
    longer = run(train, "--data", colours, "--output", folder, "--resume", "--epochs", "3", "--format", "json")
    assert longer.exit_code == 0, longer.output
    assert len(json.loads(longer.stdout)["history"]) == 3
    other = run(train, "--data", colours, "--output", folder, "--resume", "--dropout", "0.7")
    assert other.exit_code == 1
    assert "started with dropout 0.5, not 0.7" in other.stderr


def test_check_reports_file_and_record_and_does_not_train(data: Path, tmp_path: Path) -> None:
    (data / "images" / "train3.png").unlink()
    (data / "images" / "val2.png").write_text("not a picture")
    with (data / "train.csv").open("a") as file:
        file.write("train0.png,9,again\n")
    result = run(train, "--data", data, "--check", "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert f"{data / 'train.csv'}:record 4: missing-picture" in result.stdout
    assert f"{data / 'val.csv'}:record 3: undecodable-picture" in result.stdout
    assert f"{data / 'train.csv'}:record 37: unknown-label" in result.stdout
    assert "3 errors" in result.stderr
    assert not (tmp_path / "run").exists()


def test_check_of_good_data_exits_0(colours: Path) -> None:
    result = run(train, "--data", colours, "--check")
    assert result.exit_code == 0, result.output
    assert "0 errors" in result.stderr


def test_a_bad_row_stops_training_by_name_unless_skipped(data: Path, tmp_path: Path) -> None:
    with (data / "train.csv").open("a") as file:
        file.write("train0.png,purple,again\n")
    stopped = run(train, "--data", data, "--output", tmp_path / "run", *SMALL)
    assert stopped.exit_code == 1
    assert "train.csv:record 37" in stopped.stderr
    assert "purple" in stopped.stderr
    assert stopped.stderr.count("\n") == 1
    (data / "images" / "train0.png").write_text("no picture")
    skipped = run(train, "--data", data, "--output", tmp_path / "run", *SMALL, "--skip-bad-rows")
    assert skipped.exit_code == 0, skipped.output
    assert "record 37" in skipped.stderr
    assert "skipped 2 bad rows" in skipped.stderr
    assert "record 1: undecodable-picture" in skipped.stderr


@pytest.mark.usefixtures("at_most_a_minute")
def test_a_reading_process_that_dies_ends_training_in_one_line(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_in_a_worker(self: Examples, keys: list[Key]) -> list[Example]:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return [self[key] for key in keys]

    monkeypatch.setattr(Examples, "__getitems__", die_in_a_worker)
    result = run(train, "--data", colours, "--output", tmp_path / "run", *SMALL, "--workers", "2")
    assert result.exit_code == 1, result.output
    assert result.stderr.count("Error: ") == 1
    last = result.stderr.splitlines()[-1]
    assert "/dev/shm" in last
    assert "--workers" in last
    assert "Traceback" not in result.output


def test_what_is_not_read_on_purpose_is_said(data: Path, tmp_path: Path) -> None:
    header, *rows = (data / "train.csv").read_text().splitlines()
    lines = [f",{header}", *(f"{number},{row}" for number, row in enumerate(rows))]
    (data / "train.csv").write_text("\n".join(lines))
    result = run(train, "--data", data, "--output", tmp_path / "run", *SMALL)
    assert result.exit_code == 0, result.output
    assert "train.csv: ignored: found the column ''; its row numbers are not read\n" in result.stderr
    assert run(train, "--data", data, "--check").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "no training data: give --data FOLDER"),
        (["--data", "{tmp}"], 1, "no training split"),
        (["--data", "{tmp}/nowhere"], 2, "does not exist"),
        (["--model", "gpt"], 2, "'gpt' is not one of 'cnn', 'hybrid'"),
        (["--data", "{data}", "--loss", "hinge"], 2, "is not one of"),
        (["--data", "{data}", "--preset", "none", "--cache-features"], 1, "--cache-features needs --freeze-backbone"),
        (["--data", "{data}", "--backbone", "nonsense", "--backbone-weights", "none"], 1, "'conv3' nor a timm model"),
        (
            ["--data", "{data}", "--backbone", "resnet18"],
            1,
            "resnet18 would start from random weights: give",
        ),
        (["--data", "{data}", "--preset", "quick"], 2, "'quick' is not one of 'balanced', 'best'"),
        (["--data", "{data}", "--dropout", "2"], 2, "--dropout"),
        (["--data", "{data}", "--resume"], 1, "not a run folder"),
    ],
)
def test_wrong_use_is_one_clear_line(
    colours: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    filled = [argument.format(tmp=tmp_path, data=colours) for argument in arguments]
    result = run(train, *filled, "--output", tmp_path / "run")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("option", "value"), [("--vocab-size", "500"), ("--word-dropout", "0.1")])
def test_an_option_that_the_text_encoder_would_not_read_is_refused(
    colours: Path, tmp_path: Path, option: str, value: str
) -> None:
    given = ["--data", colours, "--output", tmp_path / "run", "--text-encoder", "some/encoder", option, value]
    refused = run(train, *given)
    assert refused.exit_code == 1
    assert f"{option} is for lstm and mean, the text encoder some/encoder has its own: leave it out" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_captions_alone_train_without_their_pictures(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "images")
    for split in ("train", "val", "test"):
        rows = (data / f"{split}.csv").read_text().splitlines()
        (data / f"{split}.csv").write_text("\n".join(row for row in rows if not row.endswith(",")) + "\n")
    result = run(train, "--data", data, "--output", tmp_path / "run", *SMALL, "--no-pictures", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["test"]["rows"] > 0


def test_export_takes_the_newest_run(colours: Path, tmp_path: Path) -> None:
    assert run(train, "--data", colours, "--output", tmp_path / "runs" / "a", *SMALL).exit_code == 0
    result = run(export, "--runs", tmp_path / "runs", "--output", tmp_path / "package")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("precision  check                   rows  max |difference|  equal decisions\n")
    assert result.stdout.count("100.000%") == 1
    assert f"exporting {tmp_path / 'runs' / 'a'}" in result.stderr
    wrong = run(export, "--model", "cnn", "--run", tmp_path / "runs" / "a", "--output", tmp_path / "other")
    assert wrong.exit_code == 2
    assert "holds a hybrid, not a cnn; leave --model out" in wrong.stderr


def test_export_learns_the_model_from_the_run(cnn: TrainedModel, tmp_path: Path) -> None:
    result = run(export, "--run", cnn.folder, "--output", tmp_path / "package")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "package" / "manifest.json").read_text())["text"] is None


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom mlic_train.cli.train import train\n"
        "try:\n    train(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'timm', 'onnx', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--learning-rate" in done.stdout


INTERRUPTED = """
import os, signal, sys
import mlic_train.training.fit as fit
original, seen = fit.set_learning_rate, []
def count(*arguments):
    seen.append(1)
    if len(seen) == 12:
        os.kill(os.getpid(), signal.{signal})
    original(*arguments)
fit.set_learning_rate = count
from mlic_train.cli.train import train
train(sys.argv[1:])
"""


@pytest.mark.parametrize(("signal", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 130)])
def test_an_interrupted_process_leaves_a_run_that_resumes(
    colours: Path, tmp_path: Path, signal: str, code: int
) -> None:
    """The process sends itself the signal in the middle of the second epoch."""
    arguments = ["--data", str(colours), "--output", str(tmp_path / "run"), *SMALL]
    program = [sys.executable, "-c", INTERRUPTED.format(signal=signal), *arguments]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert ("go on with the same command and --resume" in ended.stderr) == (code == 130)
    result = run(train, *arguments, "--resume", "--format", "json")
    assert result.exit_code == 0, result.output
    assert [row["epoch"] for row in json.loads(result.stdout)["history"]] == [1, 2]


def test_a_finished_run_can_be_calibrated_anew(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(train, "--data", colours, "--output", folder, *SMALL).exit_code == 0
    before = load_trained(folder)
    result = run(train, "--data", colours, "--output", folder, "--resume", "--empty-odds", "0.25")
    assert result.exit_code == 0, result.output
    after = load_trained(folder)
    assert after.config.train.empty_odds == after.model.calibration.empty_odds.item() == 0.25
    for name, tensor in before.model.state_dict().items():
        if not name.startswith("calibration."):
            torch.testing.assert_close(after.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_teacher_labels_rows_that_have_no_labels(data: Path, tmp_path: Path) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert run(train, "--data", data, "--output", teacher, *SMALL).exit_code == 0
    unlabelled = data / "unlabelled.csv"
    (data / "images" / "new.png").write_bytes((data / "images" / "train0.png").read_bytes() + b"\0")
    unlabelled.write_text("ImageID,Caption\nnew.png,a wall in red\nnew.png,something blue\n")
    given = ["--data", data, "--output", student, *SMALL, "--pseudo-label", unlabelled]
    alone = run(train, *given)
    assert alone.exit_code == 1
    assert alone.stderr.strip().endswith(f"nothing can label the rows of {unlabelled}: give --teacher RUN")
    result = run(train, *given, "--teacher", teacher, "--teacher-sees", "caption")
    assert result.exit_code == 0, result.output
    assert "soft labels of 1 training records" in result.stderr
    assert "unlabelled.csv (1 records)" in (student / "config.json").read_text()


@pytest.mark.parametrize(("rank", "lines"), [("0", ["once"]), ("1", [])])
def test_of_several_processes_one_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, lines: list[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    log_line("once")
    assert capsys.readouterr().err.splitlines() == lines
