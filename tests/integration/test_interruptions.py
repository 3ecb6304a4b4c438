"""A small part of benchmarks/interruptions.py and benchmarks/soak.py, and that they notice what they look for."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlic_train.cli.train import train

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny"


def run(script: str, output: Path, *arguments: str) -> Any:
    """What a benchmark writes to its --output."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--output", str(output), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the jobs, which is no part of a package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("interruption_jobs")


def test_killed_training_and_batches_lose_nothing(tmp_path: Path) -> None:
    found = run("interruptions.py", tmp_path / "x.json", "--kills", "2", "--kind", "training", "--kind", "batch")
    assert found["kinds"].keys() == {"training", "batch"}
    for kind in found["kinds"].values():
        assert kind["kills"] == sum(kind["kills_by_moment"].values()) == 2
        assert kind["jobs_finished_and_compared"] >= 1
    assert found["kinds"]["training"]["largest_difference_of_a_weight"] == 0


def test_results_that_were_saved_and_are_gone_are_noticed(jobs: Any, tmp_path: Path) -> None:
    job = jobs.Batch(tmp_path / "job", TINY, rows=4)
    job.begin()
    job.expected = b"12345678"
    job.partial.write_bytes(b"12345")
    checksum = jobs.zlib.crc32(b"1234")
    job.journal.write_text(f"{{}}\n[2, 4, 0, {checksum}, 0]\n[3, 5, ")
    assert job.check("", "") == "between the first result and the last"
    job.partial.write_bytes(b"123")
    with pytest.raises(jobs.LostError, match="2 rows were saved"):
        job.check("", "")
    job.partial.write_bytes(b"1234x")
    with pytest.raises(jobs.LostError, match="not the beginning"):
        job.check("", "")
    job.output.write_bytes(b"1234")
    with pytest.raises(jobs.LostError, match="neither the older nor the newer"):
        job.check("", "")


def test_an_epoch_that_was_reported_and_is_gone_is_noticed(jobs: Any, tmp_path: Path) -> None:
    job = jobs.Training(tmp_path / "job", jobs.make_data(tmp_path / "data"), epochs=1)
    job.begin()
    assert CliRunner().invoke(train, job.command()[1:]).exit_code == 0
    assert job.check("", "epoch 1/1: train loss 1\n") == "calibrating and measuring"
    with pytest.raises(jobs.LostError, match="epoch 2 was reported, the last checkpoint is of epoch 1"):
        job.check("", "epoch 2/2: train loss 1\n")
    result = job.result("")
    assert jobs.difference(result, job.result("")) == 0
    name = next(iter(result["tensors"]))
    other = {**result, "tensors": {**result["tensors"], name: result["tensors"][name] + 0.5}}
    assert jobs.difference(result, other) == pytest.approx(0.5)
    with pytest.raises(jobs.LostError, match="printed differs"):
        jobs.difference(result, job.result("something else"))


def test_many_predictions_agree_and_their_memory_is_drawn(tmp_path: Path) -> None:
    plot = tmp_path / "memory.svg"
    given = ["--count", "20", "--rounds", "1", "--predictions", "200", "--warm-up", "50", "--plot", str(plot)]
    parts = run("soak.py", tmp_path / "x.json", *given)["parts"]
    assert (parts["threads"]["predictions"], parts["threads"]["answers_that_differ"]) == (320, 0)
    assert parts["processes"]["cache_entries_after_each_round"] == 1
    assert [number for number, _ in parts["memory"]["samples_mb"]][-1] == 250
    assert plot.read_text().count('id="axes_') == 1
