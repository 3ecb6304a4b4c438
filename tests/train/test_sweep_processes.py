"""Sweeps of which a process is killed, and of several processes at once."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlic_train.sweep.cli import sweep

OPTIONS = ["--", "--image-size", "16", "--width", "16", "--num-layers", "1", "--num-heads", "2", "--device", "cpu"]
OPTIONS += ["--batch-size", "36", "--text-batch-size", "18", "--calibration", "none", "--epochs", "2"]

# Calls a function before every optimizer step with the number of trials begun and whether it is in its second epoch.
PROGRAM = """
import os, signal, sys
import mlic_train.fit as fit
original, begun = fit.set_learning_rate, []
def watch(optimizer, config, step, total):
    if step == 0:
        begun.append(1)
    at(len(begun), step == total // 2)
    original(optimizer, config, step, total)
def at(trial, second_epoch):
    {at}
fit.set_learning_rate = watch
from mlic_train.sweep.cli import sweep
sweep(sys.argv[1:])
"""
KILL = "trial == 2 and second_epoch and os.kill(os.getpid(), signal.SIGKILL)"
HOLD = "trial == 1 and (print('held', file=sys.stderr, flush=True), sys.stdin.readline())"


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.toml"
    file.write_text("[learning_rate]\nlow = 0.001\nhigh = 0.03\nlog = true\n[dropout]\nchoices = [0.1, 0.3]\n")
    return file


def arguments(data: Path, space: Path, output: Path, *more: str) -> list[str]:
    given = ["--data", str(data), "--space", str(space), "--output", str(output), "--format", "json"]
    return [*given, "--trials", "3", "--pruner", "none", *more, *OPTIONS]


def without_times(text: str, folder: Path) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads(text.replace(str(folder), "FOLDER"))["trials"]
    for trial in trials:
        assert trial.pop("seconds") >= 0
    return trials


def test_a_killed_sweep_goes_on_as_if_it_had_not_been(colours: Path, space: Path, tmp_path: Path) -> None:
    """The process kills itself in the second epoch of the second trial."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = [sys.executable, "-c", PROGRAM.format(at=KILL), *arguments(colours, space, killed)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == -9, ended.stderr
    result = CliRunner().invoke(sweep, arguments(colours, space, killed))
    assert result.exit_code == 0, result.output
    assert "trial 0" not in result.stderr.replace("best so far: trial 0", "")
    assert "trial 1: epoch 1/2" not in result.stderr
    assert "trial 1: epoch 2/2" in result.stderr
    reference = CliRunner().invoke(sweep, arguments(colours, space, whole))
    assert without_times(result.stdout, killed) == without_times(reference.stdout, whole)


def test_two_processes_share_a_study(colours: Path, space: Path, tmp_path: Path) -> None:
    """The first is held in its first trial until the second has found nothing more to do."""
    given = arguments(colours, space, tmp_path / "sweep", "--storage", str(tmp_path / "shared.journal"))
    program = [sys.executable, "-c", PROGRAM.format(at=HOLD), *given]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as first:
        assert first.stdin is not None
        assert first.stderr is not None
        before = list(itertools.takewhile(lambda line: line != "held\n", first.stderr))
        second = CliRunner().invoke(sweep, given)
        out, _ = first.communicate("\n")
    assert first.returncode == 0, before
    assert second.exit_code == 0, second.output
    states = {trial["trial"]: trial["state"] for trial in json.loads(second.stdout)["trials"]}
    assert states == {0: "running", 1: "complete", 2: "complete"}
    assert "other processes run trial 0; give the command again" in second.stderr
    assert "out of sight" not in second.stderr
    assert {trial["state"] for trial in json.loads(out)["trials"]} == {"complete"}
    assert [line[:12] for line in before if " of 3: " in line] == ["trial 0 of 3"]
    assert [line[:12] for line in second.stderr.splitlines() if " of 3: " in line] == ["trial 1 of 3", "trial 2 of 3"]
