"""Shards, read by two processes with two workers each, of which one is interrupted and one is killed.

This file is also the program that torchrun starts.
"""

import collections
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import get_worker_info

from mlic_train.batches.dataset import Example, Examples, Key
from mlic_train.cli.train import train
from mlic_train.config import DataOptions
from mlic_train.data.shard_writer import write_shards
from mlic_train.data.splits import load_splits
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, load_checkpoint
from mlic_train.training.optimizer import set_learning_rate
from tests.processes import torchrun

PATTERN = "train-{000000..000005}.tar"
# 36 pictures make 6 batches and 18 captions alone 3: no process is ever without a row.
STEPS = 9  # of an epoch
STOPPED = STEPS + 4  # batches before the second process is interrupted, or killed
OPTIONS = [
    "--preset",
    "none",
    "--image-size",
    "16",
    "--width",
    "16",
    "--num-layers",
    "1",
    "--num-heads",
    "2",
    "--vocab-size",
    "60",
]
OPTIONS += [
    "--preset",
    "none",
    "--dropout",
    "0",
    "--encoder-dropout",
    "0",
    "--learning-rate",
    "0.01",
    "--device",
    "cpu",
]
OPTIONS += ["--epochs", "2", "--batch-size", "6", "--text-batch-size", "6"]
TOLERANCE = 1e-3  # as in test_parallel


def run(data: object, folder: Path, *more: object) -> Any:
    """`mlic-train`; what it would exit with."""
    arguments = ["--data", data, "--output", folder, *OPTIONS, *more]
    return train([str(argument) for argument in arguments], standalone_mode=False)


def work(data: Path, output: Path) -> None:
    """What each of the two processes does when torchrun starts it, and when it starts it again."""
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])

    class Watched(Examples):
        def __getitem__(self, key: Key) -> Example:
            worker = get_worker_info()
            if self.config is not None and worker is not None:
                with (output / f"read-{rank}-{worker.id}").open("a") as file:
                    file.write(json.dumps(key) + "\n")
            return super().__getitem__(key)

    def at_step(do: Callable[[int], object]) -> Callable[..., None]:
        def watch(optimizer: Any, config: Any, step: int, total: int) -> None:
            do(step)
            set_learning_rate(optimizer, config, step, total)

        return watch

    def interrupt(step: int) -> None:
        if step == STOPPED - 1 and rank == 1:  # this step is still finished
            os.kill(os.getpid(), signal.SIGTERM)

    def die(step: int) -> None:
        with (output / f"steps-{attempt}-{rank}").open("a") as file:
            file.write(f"{step}\n")
        if step == STOPPED and rank == 1 and attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if attempt == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlic_train.training.run.Examples", Watched)
            run(data, output / "whole", "--workers", 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlic_train.training.fit.set_learning_rate", at_step(interrupt))
            code = run(data, output / "interrupted", "--workers", 2)
        state = load_checkpoint(output / "interrupted" / LAST_NAME).state
        (output / f"interrupted-{rank}").write_text(f"{code} {state.global_step}")
        run(data, output / "interrupted", "--resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mlic_train.training.fit.CHECKPOINT_SECONDS", 0.0
        )  # after every step, so that there is one inside the epoch
        patch.setattr("mlic_train.training.fit.set_learning_rate", at_step(die))
        run(data, output / "killed", "--auto-resume")


@pytest.fixture(scope="module")
def output(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    folder = tmp_path_factory.mktemp("processes")
    write_shards(load_splits(DataOptions(colours)).named(), folder / "shards", samples=10)
    done = torchrun(__file__, folder / "shards" / PATTERN, folder, restarts=1)
    assert done.returncode == 0, done.stderr
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr, done.stderr
    return folder


def assert_close(first: Path, second: Path, tolerance: float) -> None:
    for name in (LAST_NAME, BEST_NAME):
        here, there = load_checkpoint(first / name).model, load_checkpoint(second / name).model
        assert all(((here[key] - there[key]).abs() <= tolerance).all() for key in here.keys() | there.keys())


def test_every_row_is_read_once_an_epoch(output: Path) -> None:
    read = {
        file.name: [tuple(json.loads(line)) for line in file.read_text().splitlines()] for file in output.glob("read-*")
    }
    assert sorted(read) == ["read-0-0", "read-0-1", "read-1-0", "read-1-1"]
    for epoch in range(2):
        assert all(any(key[0] == epoch for key in keys) for keys in read.values())
    counts = collections.Counter(key for keys in read.values() for key in keys)
    assert counts == {(epoch, index): 1 for epoch in range(2) for index in range(54)}


def test_they_reach_what_one_process_reaches_without_shards(output: Path, colours: Path, tmp_path: Path) -> None:
    run(colours, tmp_path / "run")
    here, there = (load_checkpoint(folder / LAST_NAME).model for folder in (output / "whole", tmp_path / "run"))
    assert all(((here[key] - there[key]).abs() <= TOLERANCE).all() for key in here.keys() | there.keys())


def test_a_run_that_is_resumed_inside_an_epoch_equals_an_uninterrupted_one(output: Path) -> None:
    assert [(output / f"interrupted-{rank}").read_text() for rank in range(2)] == [f"130 {STOPPED}"] * 2
    assert_close(output / "interrupted", output / "whole", 0.0)


def test_a_run_of_which_a_process_was_killed_goes_on_from_the_last_checkpoint(output: Path) -> None:
    before, after = ([(output / f"steps-{n}-{rank}").read_text().split() for rank in range(2)] for n in range(2))
    assert before[1] == [str(step) for step in range(STOPPED + 1)]
    # The process that lives may be stopped before it has saved the last step.
    assert after[0] == after[1]
    assert STEPS < int(after[0][0]) <= STOPPED
    assert after[0][-1] == str(2 * STEPS - 1)
    assert_close(output / "killed", output / "whole", 0.0)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
