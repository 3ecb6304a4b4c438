import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch.utils.data import get_worker_info

import mlic_train
from mlic_runtime.base.progress import log_line
from mlic_train.api import Run
from mlic_train.batches.dataset import Example, Examples, Key
from mlic_train.cli.export import export
from mlic_train.cli.train import train
from mlic_train.cli.train_summary import next_commands
from mlic_train.config import DataOptions, ModelConfig
from mlic_train.data import Record
from mlic_train.data.splits import load_splits
from mlic_train.runs.find import default_package, newest_run, released_run
from mlic_train.runs.folder import TrainedModel, load_trained

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
    lines = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert lines[0][:7] == ["split", "mode", "rows", "samples F1", "micro F1", "macro F1", "mAP"]
    modes = ["both", "picture only", "caption only"]
    assert [line[:2] for line in lines[1:]] == [[split, mode] for split in ("val", "test") for mode in modes]
    assert lines[1][2] == "12"
    assert len(lines) == 7  # stdout has nothing else
    assert f"run folder: {tmp_path / 'run'} (best checkpoint: best.safetensors)\n" in result.stderr


def test_every_phase_has_a_line_with_the_time_left_in_a_pipe(colours: Path, tmp_path: Path) -> None:
    result = run(train, "--data", colours, "--output", tmp_path / "run", *SMALL, "--freeze-backbone")
    assert result.exit_code == 0, result.output
    # How the files are read, and what the rows have, is said by other tests.
    about_rows = ("read /", "train: ", "rows without a label", "warning: ")
    lines = [line for line in result.stderr.splitlines() if not line.startswith(about_rows)]
    beginnings = [
        "read the data in 0:",
        "caching features of val: 12 pictures, 100%",
        "caching features of train: 36 pictures, 100%",
        "epoch 1/2: ",
        "epoch 2/2: ",
        "calibrating the best epoch, ",
        "measuring it on 9 rows of test",
        "run folder: ",
        "to export it",
        "    mlic-export",
        "    mlic-infer",
    ]
    assert [line[: len(start)] for line, start in zip(lines, beginnings, strict=True)] == beginnings
    assert "3 labels, rows: train 54, val 12, test 9" in lines[0]
    assert re.search(r", \d+:\d\d left$", lines[3])
    assert not any(line.endswith("left") for line in (*lines[1:3], lines[4]))
    assert re.fullmatch("calibrating the best epoch, [12] of 2, on 12 rows of val", lines[5])


@pytest.mark.parametrize("cached", [True, False])
def test_a_picture_that_cannot_be_decoded_is_named_with_its_row(colours: Path, tmp_path: Path, cached: bool) -> None:
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    picture = data / "images" / "test0.png"
    picture.unlink()
    picture.write_bytes((colours / "images" / "test0.png").read_bytes()[:60])
    test = (data / "test.csv").rename(data / "more.csv")
    options = ["--data", data, "--train", test, "--output", tmp_path / "run", *SMALL]
    result = run(train, *options, *(["--freeze-backbone"] if cached else []))
    assert result.exit_code == 1
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"Error: cannot read picture '{picture}'")
    assert f"({test}:record 1); mend it, or leave such rows out with --skip-bad-rows" in said


def test_the_next_two_commands_run_as_they_are_printed(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(train, "--data", colours, "--output", "runs/my first run", *SMALL, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"] == "runs/my first run"
    exporting, predicting = result.stderr.splitlines()[-2:]
    assert exporting == "    mlic-export --run 'runs/my first run'"
    assert re.fullmatch(
        rf"    mlic-infer {colours}/images/test\d.png 'a wall in .*' --model 'runs/my first run/package'", predicting
    )
    entries = {"mlic-export": "mlic_train.cli.export:export", "mlic-infer": "mlic_runtime.cli.infer:infer"}
    script = []
    for name, entry in entries.items():
        module, function = entry.split(":")
        code = f"import sys; sys.argv[0] = {name!r}; from {module} import {function}; {function}()"
        script.append(f'{name}() {{ {shlex.join([sys.executable, "-c", code])} "$@"; }}')
    done = subprocess.run(
        ["bash", "-ec", "\n".join([*script, exporting, predicting])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "exporting runs/my first run (hybrid) to runs/my first run/package\n" in done.stderr
    assert {"red", "green", "blue"} <= set(done.stdout.split())


def test_rows_that_cannot_be_typed_are_not_suggested(colours: Path) -> None:
    splits = load_splits(DataOptions(colours))
    model = ModelConfig(labels=splits.labels.names)
    first = splits.val.records[0]
    assert first.captions
    assert isinstance(first.image, Path)
    records = [dataclasses.replace(first, image=image) for image in (Path("-a.png"), Path("a\0.png"), None)]
    alone = [dataclasses.replace(first, captions=(text,)) for text in ("-x", "a\0", "a" * 101)]
    nowhere = dataclasses.replace(first, image=None, file=Path("shards/train-000000.tar"))

    def predicting(rows: list[Record]) -> str:
        split = dataclasses.replace(splits.val, records=tuple(rows))
        return next_commands(Path("runs/x"), model, dataclasses.replace(splits, val=split, test=None))[1]

    assert predicting([*records, *alone, first]) == (
        f"mlic-infer {first.image} '{first.captions[0]}' --model runs/x/package"
    )
    for record in alone:
        assert predicting([*records, record]) == f"mlic-infer {first.image} --model runs/x/package"
    assert predicting(records) == f"mlic-infer --input {first.file} --model runs/x/package"
    assert predicting([nowhere]) == "mlic-infer PICTURE --model runs/x/package"
    cnn = next_commands(Path("runs/x"), dataclasses.replace(model, name="cnn"), splits)[1]
    assert cnn.split()[2:] == ["--model", "runs/x/package"]


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
    assert "error: 1 x missing-picture: train.csv:record 4: " in result.stdout
    assert "error: 1 x undecodable-picture: val.csv:record 3: " in result.stdout
    assert "error: 1 x unknown-label: train.csv:record 37: " in result.stdout
    assert f"3 errors, 9 warnings; mend them, or leave these rows out: mlic-train --data {data}" in result.stderr
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
    assert f"skipped: 1 x undecodable-picture: {data / 'train.csv'}:record 1: " in skipped.stderr


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
    assert f"warning: 1 x ignored: {data / 'train.csv'}: " in result.stderr
    assert "its row numbers are not read" in result.stderr
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
    runs = tmp_path / "runs"
    assert f"exporting {runs / 'a'} (hybrid, the newest run in {runs}) to {tmp_path / 'package'}" in result.stderr
    wrong = run(export, "--model", "cnn", "--run", tmp_path / "runs" / "a", "--output", tmp_path / "other")
    assert wrong.exit_code == 2
    assert "holds a hybrid, not a cnn; leave --model out" in wrong.stderr


def test_a_package_lies_inside_its_run_unless_something_else_is_said(
    cnn: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second replaces the first
        assert run(export, "--run", cnn.folder).exit_code == 0
    assert (cnn.folder / "package" / "manifest.json").is_file()
    assert newest_run(cnn.folder.parent) == cnn.folder
    assert not (tmp_path / "exported").exists()


def test_the_package_of_a_released_checkpoint_lies_in_the_working_directory() -> None:
    """The checkpoint is a part of the installation, into which nothing is written."""
    released = released_run("hybrid")
    assert released is not None
    assert default_package(released) == Path("package")
    assert default_package(Path("runs/hybrid")) == Path("runs/hybrid/package")


def test_export_learns_the_model_from_the_run(cnn: TrainedModel, tmp_path: Path) -> None:
    result = run(export, "--run", cnn.folder, "--output", tmp_path / "package")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "package" / "manifest.json").read_text())["text"] is None


def test_a_plain_export_takes_the_newest_run_of_any_model(
    cnn: TrainedModel, trained: TrainedModel, tmp_path: Path
) -> None:
    os.utime(trained.folder / "best.safetensors", ns=(1, 1))
    result = run(export, "--runs", tmp_path, "--output", tmp_path / "package")
    assert result.exit_code == 0, result.output
    assert f"exporting {cnn.folder} (cnn, the newest run in {tmp_path}) to {tmp_path / 'package'}" in result.stderr
    older = run(export, "--runs", tmp_path, "--model", "hybrid", "--output", tmp_path / "package")
    assert f"exporting {trained.folder} (hybrid, the newest run in {tmp_path})" in older.stderr


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


def test_a_run_keeps_what_was_divided_and_every_command_measures_the_same_rows(data: Path, tmp_path: Path) -> None:
    (data / "val.csv").unlink()
    folder, package = tmp_path / "run", tmp_path / "package"
    given = ["--data", data, "--output", folder, *SMALL]
    started = run(train, *given, "--split-seed", "3", "--val-fraction", "0.25")
    assert started.exit_code == 0, started.output
    assert "val: 9 of 36 rows, chosen by --split-seed 3, stratified by label" in started.stderr
    with (folder / "splits.csv").open(newline="") as file:
        val = {row["image_id"] for row in csv.DictReader(file) if row["split"] == "val"}
    assert len(val) == 9

    # Neither of the later commands is told the seed: they find the rows in the run.
    resumed = run(train, *given, "--resume", "--epochs", "3")
    assert resumed.exit_code == 0, resumed.output
    assert f"val: 9 of 36 rows, as in {folder / 'splits.csv'}" in resumed.stderr
    exported = run(export, "--run", folder, "--data", data, "--output", package)
    assert exported.exit_code == 0, exported.output
    metrics = json.loads((package / "manifest.json").read_text())["metrics"]["fp32"]
    opened = Run.open(folder)
    assert metrics["val"]["rows"] == opened.metrics["val"]["rows"]
    assert metrics["val"]["samples_f1"] == pytest.approx(opened.metrics["val"]["samples_f1"])
    assert opened.evaluate(data)["val"] == pytest.approx(dict(opened.metrics["val"]))
    assert {record.image_id for record in load_splits(DataOptions(data), runs=[folder]).val.records} == val
    assert load_trained(folder).config.provenance["division"] in started.stderr.splitlines()

    (data / "train.csv").write_text("ImageID,Labels,Caption\ntrain0.png,1,other\n")
    other = run(export, "--run", folder, "--data", data, "--output", package)
    assert other.exit_code == 1
    assert f"rows that {folder / 'splits.csv'} names for val" in other.stderr


def test_check_counts_each_kind_once_and_all_lists_them(data: Path) -> None:
    with (data / "train.csv").open("a") as file:
        file.writelines(f"gone{n}.png,1,again\n" for n in range(10_000))
    short = run(train, "--data", data, "--check")
    assert short.exit_code == 1
    (line,) = [line for line in short.stdout.splitlines() if "missing-picture" in line]
    assert line.startswith("error: 10,000 x missing-picture: train.csv:record 37: ")
    assert line.count(":record ") == 3
    assert line.endswith("; ... 9,997 more")
    assert len(short.stdout.splitlines()) < 30
    listed = run(train, "--data", data, "--check", "--all")
    assert sum(line.startswith("error: missing-picture: ") for line in listed.stdout.splitlines()) == 10_000
    skipped = run(
        train,
        "--data",
        data,
        "--skip-bad-rows",
        "--backbone",
        "nonsense",
        "--backbone-weights",
        "none",
        "--output",
        data / "run",
    )
    assert sum("missing-picture" in line for line in skipped.stderr.splitlines()) == 1
    assert "skipped 10,000 bad rows" in skipped.stderr


def test_check_says_what_training_would_do(data: Path) -> None:
    (data / "val.csv").unlink()
    result = run(train, "--data", data, "--check")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    names = ", ".join(str(data / f"{name}.csv") for name in ("train", "test"))
    columns = "captions in 'Caption', labels in 'Labels'"
    assert f"read {names} as CSV: picture in 'ImageID', {columns}" in lines
    assert f"read {data / 'captions.csv'} as CSV: {columns}" in lines
    table = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert table["split"] == ["rows", "pictures", "captions", "labelled"]
    assert table["label"] == ["train", "val", "test"]
    assert int(table["train"][0]) + int(table["val"][0]) == 36 + 18  # with the rows of captions.csv
    assert int(table["red"][1]) > 0
    assert any(line.startswith("val: ") and "of 36 rows, chosen by --split-seed 0" in line for line in lines)
    assert result.stderr.splitlines()[-1].endswith(f"warnings; next: mlic-train --data {data}")


def test_check_as_json_is_what_python_returns(data: Path) -> None:
    (data / "images" / "train3.png").unlink()
    result = run(train, "--data", data, "--check", "--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert list(found) == ["read_as", "labels", "splits", "problems"]
    assert set(found["read_as"]) == {str(data / f"{split}.csv") for split in ("train", "captions", "val", "test")}
    assert found["read_as"][str(data / "val.csv")].startswith("CSV: picture in 'ImageID', captions in 'Caption'")
    assert found["labels"] == ["red", "green", "blue"]
    assert found["splits"]["val"] == {"rows": 12, "pictures": 12, "captions": 10, "labelled": 12}
    first = found["problems"][0]
    assert list(first) == ["severity", "kind", "count", "examples"]
    assert (first["severity"], first["kind"], first["count"]) == ("error", "missing-picture", 1)
    assert first["examples"][0].startswith("train.csv:record 4: no picture at ")
    checked = mlic_train.check(data)
    assert checked.to_json() == found
    assert checked.errors == 1
