"""Two processes on the CPU, started by torchrun, against one; this file is also the program that torchrun starts."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mlic_runtime.errors import MlicError
from mlic_train.base.stopwatch import Stopwatch
from mlic_train.batches.dataset import Examples, plan_epoch, share_out
from mlic_train.config import DataOptions, ModelConfig, TrainConfig, resolve
from mlic_train.config.options import changed_options
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import ConfigError
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, State, load_checkpoint
from mlic_train.training.optimizer import set_learning_rate
from mlic_train.training.parallel import average_statistics, create_fabric
from mlic_train.training.run import resume_run, start_run, train_run
from tests.processes import torchrun
from tests.unknown_labels import forget

MODEL = ModelConfig(
    image_size=16, width=16, num_layers=1, num_heads=2, hidden=16, vocab_size=60, dropout=0.0, encoder_dropout=0.0
)
# 36 pictures make 4 batches of 7 rows and one of 8, 18 captions alone one batch of 17 rows and one of a single row.
TRAIN = TrainConfig(
    epochs=2,
    batch_size=7,
    text_batch_size=17,
    learning_rate=0.01,
    schedule="cosine",
    patience=0,
    ema_decay=0.9,
    auxiliary_weight=0.5,
    balance=0.5,
    drop_caption=0.25,
    drop_picture=0.7,
)
RUNS = {
    "plain": TRAIN,
    "accumulated": dataclasses.replace(TRAIN, accumulate=3),
    "cached": dataclasses.replace(TRAIN, freeze_backbone=True, cache_features=True),
    "unknown": TRAIN,  # some labels are unknown, not as many in the rows of one process as in those of the other
}
STOPPED = 13  # batches before the interruption, in the second epoch
TOLERANCE = 1e-3  # weights, after 20 steps at rate 0.01: sums in another order, and Adam divides small by small


def splits_of(name: str, splits: Splits) -> Splits:
    """The data of one of RUNS."""
    return forget(splits) if name == "unknown" else splits


def work(data: Path, output: Path) -> None:
    """What each of the two processes does; what it sees goes to OUTPUT/NAME-RANK.json. The second fails in the end."""
    splits, rank = load_splits(DataOptions(data)), int(os.environ["RANK"])

    def note(name: str, value: Any) -> None:
        (output / f"{name}-{rank}.json").write_text(json.dumps(value))

    for name, config in RUNS.items():
        lines: list[str] = []
        state = train_run(output / name / "run", MODEL, config, splits_of(name, splits), device="cpu", log=lines.append)
        note(name, {"state": vars(state), "lines": lines})

    seeds: list[int] = []

    def interrupt(*arguments: Any) -> None:
        seeds.append(torch.initial_seed())
        if len(seeds) == STOPPED and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        set_learning_rate(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlic_train.training.fit.set_learning_rate", interrupt)
        note("stopped", vars(train_run(output / "parts" / "run", MODEL, TRAIN, splits, device="cpu")))
    note("seeds", seeds)
    if rank == 0:
        shutil.copytree(output / "parts", output / "moved")
    note("parts", vars(resume_run(output / "parts" / "run", splits, device="cpu")))

    given = {**changed_options(MODEL, dataclasses.replace(TRAIN, epochs=10)), "time_limit": "200s", "device": "cpu"}
    lines = []
    stopwatch = Stopwatch(itertools.count(0, 1 - rank).__next__)  # the clock of the second stands still
    state = start_run(resolve(given), output / "limited" / "run", splits, log=lines.append, stopwatch=stopwatch)
    note("limited", {"state": vars(state), "lines": lines})

    try:
        train_run(output / "plain" / "run", MODEL, TRAIN, splits, device="cpu")
    except MlicError as error:
        note("refused", [type(error).__name__, str(error)])

    learned, frozen = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2).eval()
    layers = torch.nn.Sequential(learned, frozen)
    for _, statistic in layers.named_buffers():
        statistic.fill_(3 + 2 * rank)
    average_statistics(create_fabric("cpu"), layers)
    note("statistics", [layer.state_dict()["running_var"].tolist() for layer in layers])

    def fail(*arguments: Any) -> None:
        if rank == 1:
            raise OSError("a disk went away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlic_train.training.fit.set_learning_rate", fail)
        train_run(output / "failed" / "run", MODEL, TRAIN, splits, device="cpu")


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture(scope="module")
def ended(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """What two processes left, a folder per run and what each process saw, and how they ended."""
    output = tmp_path_factory.mktemp("two")
    return output, torchrun(__file__, colours, output)


@pytest.fixture(scope="module")
def two(ended: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    output, done = ended
    assert "a disk went away" in done.stderr, done.stderr  # the last thing that they do
    return output


@pytest.fixture(scope="module")
def one(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, State]]:
    """The same runs in this process alone."""
    output = tmp_path_factory.mktemp("one")
    return {
        name: (folder, train_run(folder, MODEL, config, splits_of(name, splits), device="cpu"))
        for name, config in RUNS.items()
        for folder in (output / name / "run",)
    }


def noted(folder: Path, name: str) -> list[Any]:
    """What each of the two processes saw."""
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)]


def assert_close(first: Path, second: Path, tolerance: float) -> None:
    """Compare weights and averaged weights of two checkpoints."""
    here, there = load_checkpoint(first), load_checkpoint(second)
    for ours, theirs in ((here.model, there.model), (here.average, there.average)):
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=tolerance, msg=name)


def test_a_batch_is_shared_out_so_that_weighted_means_make_its_mean() -> None:
    values = {(0, index): float(index**2) for index in range(7)}
    for rows in (7, 3, 2, 1):
        batch = list(values)[:rows]
        shares = [share_out(batch, rank, 3) for rank in range(3)]
        means = [weight * sum(values[key] for key in keys) / len(keys) for keys, weight in shares]
        assert sum(means) / 3 == pytest.approx(sum(values[key] for key in batch) / rows)
        assert sorted(key for keys, weight in shares if weight for key in keys) == batch
    assert share_out(batch, 0, 1) == (batch, 1.0)


def test_the_runs_have_empty_shares_and_shares_without_pictures(splits: Splits) -> None:
    """Otherwise the comparisons below would say less than they should."""
    plan = [*plan_epoch(splits.train.records, TRAIN, 0), *plan_epoch(splits.train.records, TRAIN, 1)]
    assert any(len(batch) == 1 for batch in plan)
    examples = Examples(splits.train.records, 3, MODEL.image_spec, TRAIN)
    seen = [[any(examples[key].pixels is not None for key in batch[rank::2]) for rank in range(2)] for batch in plan]
    assert [True, False] in seen or [False, True] in seen
    assert [False, False] in seen


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_reach_what_one_reaches(two: Path, one: dict[str, tuple[Path, State]], name: str) -> None:
    folder, state = one[name]
    assert_close(two / name / "run" / LAST_NAME, folder / LAST_NAME, TOLERANCE)
    for seen in noted(two, name):
        history = seen["state"]["history"]
        assert len(history) == len(state.history) == 2
        for ours, theirs in zip(history, state.history, strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
            assert ours["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-3)


def test_both_processes_come_to_the_same_end(two: Path) -> None:
    for name in RUNS:
        first, second = noted(two, name)
        assert first["state"] == second["state"]
        assert first["state"]["metrics"]["test"]["rows"] == 9


def test_the_first_process_measures_plans_and_ends_a_run_with_a_time_limit(two: Path) -> None:
    first, second = noted(two, "limited")
    assert first["state"] == second["state"]
    assert first["state"]["finished"]
    assert first["state"]["metrics"]["test"]["rows"] > 0
    assert 0 < first["state"]["time"]["spent"] <= 200
    assert second["lines"] == []
    assert any(line.startswith("planned ") for line in first["lines"])
    assert "of --time-limit 200s" in first["lines"][-1]


def test_only_the_first_process_logs_and_writes(two: Path) -> None:
    first, second = noted(two, "cached")
    assert sum(line.startswith("epoch ") for line in first["lines"]) == 2
    assert second["lines"] == []
    files = {path.name for path in (two / "cached" / "run").iterdir()}
    assert files == {"config.json", "options.toml", "tokenizer.json", BEST_NAME, LAST_NAME}
    assert len(list((two / "cached" / "feature-cache").iterdir())) == 2


def test_an_interruption_of_one_process_stops_both_at_the_same_step(two: Path) -> None:
    first, second = noted(two, "stopped")
    assert first == second
    assert not first["finished"]
    assert first["global_step"] == STOPPED


def test_the_first_process_draws_what_one_alone_would_and_the_second_something_else(two: Path) -> None:
    first, second = noted(two, "seeds")
    assert first == list(range(STOPPED))
    assert len({*first, *second}) == 2 * STOPPED


def test_two_processes_resume_bit_for_bit(two: Path) -> None:
    assert all(state["finished"] for state in noted(two, "parts"))
    for name in (LAST_NAME, BEST_NAME):
        assert_close(two / "parts" / "run" / name, two / "plain" / "run" / name, 0.0)


def test_one_process_goes_on_where_two_stopped(
    two: Path, one: dict[str, tuple[Path, State]], splits: Splits, tmp_path: Path
) -> None:
    shutil.copytree(two / "moved", tmp_path / "moved")
    assert resume_run(tmp_path / "moved" / "run", splits, device="cpu").finished
    assert_close(tmp_path / "moved" / "run" / LAST_NAME, one["plain"][0] / LAST_NAME, TOLERANCE)


def test_an_error_of_the_first_process_ends_the_others(two: Path) -> None:
    first, second = noted(two, "refused")
    assert first[0] == "CheckpointError"
    assert "holds a run already" in first[1]
    assert second == ["TrainError", "stopped, because the first process failed; its message says why"]


def test_running_statistics_become_the_mean_over_processes_where_they_are_learned(two: Path) -> None:
    for rank, (learned, frozen) in enumerate(noted(two, "statistics")):
        assert learned == [4.0, 4.0]
        assert frozen == [3.0 + 2 * rank] * 2


def test_a_process_that_fails_takes_the_others_with_it(
    ended: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The other one waits for its gradients at that moment."""
    output, done = ended
    assert done.returncode == 1
    assert "OSError: a disk went away" in done.stderr
    assert load_checkpoint(output / "failed" / "run" / LAST_NAME).state.global_step == 0


def test_torchrun_starts_the_command_and_its_output_comes_once(colours: Path, tmp_path: Path) -> None:
    arguments = ["--data", colours, "--output", tmp_path / "run", "--image-size", 16, "--epochs", 1, "--device", "cpu"]
    done = torchrun("-m", "mlic_train", *arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["history"]) == 1
    assert done.stderr.count("epoch 1/1: train loss") == 1


@pytest.mark.parametrize(
    ("variables", "device", "message"),
    [
        ({"WORLD_SIZE": "two"}, "cpu", "environment variable WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"}, "cpu", "machines need equal numbers"),
        ({"WORLD_SIZE": "2"}, "mps", "--device mps: it is not available, or several processes cannot share it"),
        ({"WORLD_SIZE": "1000"}, "cuda", r"--device cuda: \d+ GPUs found, 1000 needed"),
    ],
)
def test_processes_that_cannot_work_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], device: str, message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        create_fabric(device)


def test_what_an_earlier_start_left_with_torchrun_is_not_taken_for_this_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, met = dist.HashStore(), []  # type: ignore[attr-defined] # torch documents it there
    monkeypatch.setattr("mlic_train.training.parallel.rendezvous", lambda *_, **__: iter([(kept, 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, store, **_: met.append(store))
    monkeypatch.setattr("mlic_train.training.parallel.Fabric.launch", lambda _: None)
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }.items():
        monkeypatch.setenv(name, value)
    for start in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", start)
        create_fabric("cpu")
        assert not met[-1].check(["address"])
        met[-1].set("address", "of a process that will be gone")
    assert len(met) == 2


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
