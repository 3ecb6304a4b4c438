"""Sweeps whose process is killed, and sweeps of several processes."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlic_train.cli.sweep import sweep
from tests.sweep_processes import HOLD_IN_FIRST_TRIAL, KILL_IN_SECOND_TRIAL, OPTIONS, start_sweep


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


def test_a_killed_sweep_ends_like_an_undisturbed_one(colours: Path, space: Path, tmp_path: Path) -> None:
    """The process kills itself in the second epoch of the second trial."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with start_sweep(KILL_IN_SECOND_TRIAL, arguments(colours, space, killed)) as process:
        _, said = process.communicate()
    assert process.returncode == -9, said
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
    with start_sweep(HOLD_IN_FIRST_TRIAL, given) as first:
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
