import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train
from mlic_train.config import Options
from mlic_train.errors import TrainError
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, State
from mlic_train.training import fit
from mlic_train.training.run import start_run

TINY = ["--image-size", "16", "--width", "16", "--num-layers", "1", "--calibration", "none", "--device", "cpu"]
NO_PRESET = ["--preset", "none"]
SMALL = ["--", *TINY, "--num-heads", "2", "--batch-size", "36", "--text-batch-size", "18"]
QUICK = [*SMALL, "--epochs", "1"]
DROPOUTS = "[dropout]\nchoices = [0.1, 0.2, 0.3]\n"


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def grid(colours: Path, tmp_path: Path) -> Callable[..., Result]:
    """Sweep over the grid of a TOML text into the folder "sweep"; options of mlic-train follow `--`."""

    def start(text: str, *arguments: object) -> Result:
        space = tmp_path / "space.toml"
        space.write_text(text)
        given = [*NO_PRESET, "--data", colours, "--space", space, "--output", tmp_path / "sweep", "--sampler", "grid"]
        return run(sweep, *given, *arguments)

    return start


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of each trial that is trained from the start, in order."""
    calls: list[Options] = []

    def record(options: Options, *arguments: Any, **more: Any) -> State:
        calls.append(options)
        return start_run(options, *arguments, **more)

    monkeypatch.setattr("mlic_train.sweep.runner.start_run", record)
    return calls


def test_the_best_command_line_trains_the_best_trial_again(grid: Callable[..., Result], tmp_path: Path) -> None:
    space = "[learning_rate]\nchoices = [0.001, 0.02]\n[horizontal_flip]\nchoices = [true, false]\n"
    result = grid(space, *SMALL, "--epochs", "2", "--seed", "3")
    assert result.exit_code == 0, result.output
    header, *rows, empty, command = result.stdout.splitlines()
    names = [
        "trial",
        "state",
        "learning_rate",
        "horizontal_flip",
        "train_loss",
        "val_loss",
        "val_samples_f1",
        "seconds",
    ]
    assert header.split() == names
    scores = [float(row.split()[-2]) for row in rows]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert empty == ""
    assert "--seed 3" in command
    name, *arguments = shlex.split(command)
    assert name == "mlic-train"
    again = run(train, *arguments, "--format", "json")
    assert again.exit_code == 0, again.output
    metrics = json.loads(again.stdout)["metrics"]
    table = json.loads(grid(space, "--format", "json", *SMALL, "--epochs", "2", "--seed", "3").stdout)
    assert table["best"]["command"] == command
    assert table["best"]["val_samples_f1"] == metrics["val"]["samples_f1"]
    assert table["trials"][0]["metrics"] == metrics
    kept = tmp_path / "sweep" / f"trial-{table['best']['trial']:04d}"
    assert json.loads((kept / "metrics.json").read_text())["metrics"] == metrics


def test_the_preset_trains_the_16_combinations_of_the_origin(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []

    def pretend(options: Options, *arguments: Any, **more: Any) -> State:
        model, config = options.model, options.train
        trained = (config.batch_size, config.epochs, config.learning_rate)
        calls.append((model.name, model.image_size, model.dropout, *trained))
        score = len(calls) % 7 / 7
        row = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.6, "val_samples_f1": score, "val_map": 0.5}
        return State(finished=True, history=[row], metrics={"val": {"samples_f1": score}})

    monkeypatch.setattr("mlic_train.sweep.runner.start_run", pretend)
    given = ["--model", "cnn", "--data", colours, "--preset", "origin", "--output", tmp_path / "sweep"]
    result = run(sweep, *given, "--format", "json", "--", "--image-size", "16")
    assert result.exit_code == 0, result.output
    trials = json.loads(result.stdout)["trials"]
    assert {trial["state"] for trial in trials} == {"complete"}
    assert [trial["val_samples_f1"] for trial in trials] == sorted((n % 7 / 7 for n in range(1, 17)), reverse=True)
    combinations = {(d, b, e, r) for d in (0.5, 0.7) for b in (30, 50) for e in (1, 3) for r in (0.001, 0.01)}
    assert {tuple(trial["parameters"].values()) for trial in trials} == combinations
    assert len(trials) == len(calls) == 16
    assert set(calls) == {("cnn", 16, *combination) for combination in combinations}


def test_only_the_best_trial_keeps_its_weights_unless_asked(grid: Callable[..., Result], tmp_path: Path) -> None:
    result = grid(DROPOUTS, "--format", "csv", *QUICK)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0])[:3] == ["trial", "state", "dropout"]
    assert "mlic-train --model hybrid" in result.stderr
    folders = [tmp_path / "sweep" / f"trial-{number:04d}" for number in range(3)]
    best = folders[int(rows[0]["trial"])]
    for folder in folders:
        assert (folder / "config.json").is_file()
        assert (folder / "metrics.json").is_file()
        assert (folder / BEST_NAME).is_file() == (folder / LAST_NAME).is_file() == (folder == best)
    kept = grid(DROPOUTS, "--keep", "--output", tmp_path / "all", *QUICK)
    assert kept.exit_code == 0, kept.output
    assert len(list((tmp_path / "all").glob(f"*/{BEST_NAME}"))) == 3


def test_a_hopeless_trial_is_pruned(grid: Callable[..., Result], tmp_path: Path) -> None:
    """A learning rate of 0 stays where the others start from."""
    space = "[learning_rate]\nchoices = [0.01, 0.011, 0.012, 0.013, 0.014, 0.0]\n"
    more = ["--num-heads", "2", "--batch-size", "6", "--text-batch-size", "18", "--epochs", "2"]
    result = grid(space, "--pruner", "median", "--format", "json", "--", *TINY, *more)
    assert result.exit_code == 0, result.output
    trials = json.loads(result.stdout)["trials"]
    assert [trial["state"] for trial in trials] == [*["complete"] * 5, "pruned"]
    pruned = trials[-1]
    assert pruned["parameters"] == {"learning_rate": 0.0}
    assert pruned["val_samples_f1"] < trials[0]["val_samples_f1"]
    assert "pruned at samples F1" in result.stderr
    history = json.loads((Path(pruned["run"]) / "metrics.json").read_text())["history"]
    assert [row["epoch"] for row in history] == [1]
    assert not (Path(pruned["run"]) / BEST_NAME).exists()


def test_a_trial_that_fails_is_written_down_and_the_next_follows(
    grid: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(options: Options, *arguments: Any, **more: Any) -> State:
        if options.model.dropout < 0.25:
            raise TrainError("the loss is nan")
        return start_run(options, *arguments, **more)

    monkeypatch.setattr("mlic_train.sweep.runner.start_run", explode)
    result = grid(DROPOUTS, "--format", "json", *QUICK)
    assert result.exit_code == 0, result.output
    trials = json.loads(result.stdout)["trials"]
    assert [(trial["trial"], trial["state"]) for trial in trials] == [(2, "complete"), (0, "failed"), (1, "failed")]
    assert trials[1]["message"] == "the loss is nan"
    assert "trial 1 failed: the loss is nan" in result.stderr


def test_combinations_that_do_not_go_together_fail_and_the_others_do_not(grid: Callable[..., Result]) -> None:
    result = grid("[num_heads]\nchoices = [3, 2]\n", "--format", "json", "--", *TINY, "--epochs", "1")
    assert result.exit_code == 0, result.output
    trials = json.loads(result.stdout)["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "failed"]
    assert "must be a multiple of 2 x num_heads" in trials[1]["message"]


def test_where_every_trial_fails_the_sweep_does(grid: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any, **options: Any) -> State:
        raise TrainError("the loss is nan")

    monkeypatch.setattr("mlic_train.sweep.runner.start_run", explode)
    result = grid(DROPOUTS, *QUICK)
    assert result.exit_code == 1
    assert "none of the 3 trials could be trained; the first says: the loss is nan" in result.stderr


def test_a_mistake_in_the_options_stops_at_once_and_can_be_corrected(
    grid: Callable[..., Result], started: list[Options]
) -> None:
    wrong = grid(DROPOUTS, *QUICK, "--backbone", "nonsense", "--backbone-weights", "none")
    assert wrong.exit_code == 1
    assert "neither 'conv3' nor a timm model" in wrong.stderr
    assert len(started) == 1
    right = grid(DROPOUTS, *QUICK)
    assert right.exit_code == 0, right.output
    other = grid(DROPOUTS, *QUICK, "--max-length", 32)
    assert other.exit_code == 1
    assert "'sweep' was started with --max-length 64, not 32; give the same again" in other.stderr
    assert sum(line.startswith("Error") for line in other.stderr.splitlines()) == 1


def interrupt_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Send Ctrl-C to this process in that call of a function of `fit`, as a user would."""
    original, calls = getattr(fit, name), []

    def count(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(fit, name, count)


@pytest.mark.parametrize(
    ("where", "call", "states"),
    [
        ("set_learning_rate", 4, ["complete", "waiting", "waiting"]),  # in an epoch: the trial goes on from there
        ("compute_metrics", 2, ["complete", "complete", "waiting"]),  # in its last validation: the trial is done
    ],
)
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(
    grid: Callable[..., Result],
    started: list[Options],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    call: int,
    states: list[str],
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, where, call)
        stopped = grid(DROPOUTS, "--format", "json", *QUICK)
    assert stopped.exit_code == 130, stopped.output
    assert sorted(trial["state"] for trial in json.loads(stopped.stdout)["trials"]) == states
    assert "interrupted; go on with the same command" in stopped.stderr
    result = grid(DROPOUTS, "--format", "json", *QUICK)
    assert result.exit_code == 0, result.output
    assert [trial["state"] for trial in json.loads(result.stdout)["trials"]] == ["complete"] * 3
    assert [options.model.dropout for options in started] == [0.1, 0.2, 0.3]  # none twice: what was begun was resumed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "{data}"], 2, "give what to search: either --grid origin or --space FILE"),
        (["--data", "{data}", "--grid", "origin", "--space", "{space}"], 2, "either --grid origin or --space FILE"),
        (["--preset", "origin"], 1, "no training data: give --data FOLDER"),
        (["--data", "{data}", "--preset", "origin", "--trials", "3"], 2, "the grid has 16 trials; leave --trials out"),
        (
            ["--data", "{data}", "--preset", "origin", "--epochs", "3"],
            2,
            "--epochs is an option of mlic-train: give it",
        ),
        (["--data", "{data}", "--preset", "origin", "--", "--epochs", "3"], 2, "--epochs behind -- is searched"),
        (
            ["--data", "{data}", "--preset", "origin", "--", "--output", "x"],
            2,
            "--output behind -- is not for a single",
        ),
        (
            ["--data", "{data}", "--preset", "origin", "--", "--data", "{data}"],
            2,
            "--data behind -- is not for a single",
        ),
        (["--data", "{data}", "--preset", "origin", "--", "--wide", "3"], 2, "--wide"),
        (["--data", "{data}", "--preset", "origin", "--", "--cache-features"], 1, "--cache-features needs"),
        (["--data", "{data}", "--space", "{space}"], 1, "space.toml: [dropout] dropout must be float, found 'x'"),
        (["--data", "{data}", "--preset", "origin", "--storage", "no://where"], 1, "no://where cannot be opened"),
    ],
)
def test_wrong_use_is_one_clear_line(
    colours: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[dropout]\nchoices = ['x']\n")
    filled = [argument.format(space=space, data=colours) for argument in arguments]
    result = run(sweep, "--output", tmp_path / "sweep", *filled)
    assert result.exit_code == code, result.output
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom mlic_train.cli.sweep import sweep\n"
        "try:\n    sweep(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'optuna', 'timm', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--preset" in done.stdout


@pytest.mark.parametrize(("trials", "said"), [("2", False), ("9", True), (None, True)])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_choices_that_can_all_be_tried_are_tried_once(
    sampler: str,
    trials: str | None,
    said: bool,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[float] = []

    def pretend(options: Options, *arguments: Any, **more: Any) -> State:
        calls.append(options.model.dropout)
        row = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.6, "val_samples_f1": 0.5, "val_map": 0.5}
        return State(finished=True, history=[row], metrics={"val": {"samples_f1": 0.5}})

    monkeypatch.setattr("mlic_train.sweep.runner.start_run", pretend)
    space = tmp_path / "space.toml"
    space.write_text("[dropout]\nchoices = [0.1, 0.3]\n")
    given = [*NO_PRESET, "--data", colours, "--space", space, "--output", tmp_path / "sweep", "--sampler", sampler]
    result = run(sweep, *given, *(["--trials", trials] if trials else []), *QUICK)
    assert result.exit_code == 0, result.output
    assert calls == [0.1, 0.3]
    assert ("the space has 2 combinations: each is tried once, instead of" in result.stderr) == said
