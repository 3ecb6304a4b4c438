import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlic_train.base.stopwatch import Stopwatch
from mlic_train.batches.features import build_cache
from mlic_train.config import DataOptions, Options, resolve
from mlic_train.config.duration import parse_duration
from mlic_train.data import Split
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import ConfigError
from mlic_train.runs.folder import LAST_NAME, State, load_checkpoint, load_trained
from mlic_train.training.optimizer import set_learning_rate
from mlic_train.training.run import resume_run, start_run

BATCHES = 8  # an epoch: 5 of pictures, 3 of captions alone
SMALL: dict[str, object] = {
    "image_size": 16,
    "width": 16,
    "num_layers": 1,
    "num_heads": 2,
    "hidden": 16,
    "vocab_size": 60,
}
SMALL |= {"batch_size": 8, "text_batch_size": 8, "learning_rate": 0.01, "device": "cpu", "patience": 0}


class Clock:
    """A clock that only training, validation and the final measurement move, by given seconds each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: float = 1.0, row: float = 0.05) -> None:
        self.now, self.step, self.row = 1000.0, step, row
        self.totals: list[int] = []
        self.interrupt_after: int | None = None
        self.slower_after, self.slower, self.slower_rows = 1e9, 1.0, 1.0

        def factor(of_rows: float) -> float:
            return self.slower * of_rows if self.now - 1000.0 >= self.slower_after else 1.0

        def set_rate(optimizer: Any, config: Any, step: int, total: int) -> None:
            assert step < total
            self.now += self.step * factor(1.0)
            self.totals.append(total)
            if len(self.totals) == self.interrupt_after:
                os.kill(os.getpid(), signal.SIGINT)
            set_learning_rate(optimizer, config, step, total)

        def rows(original: Callable[..., Any]) -> Callable[..., Any]:
            def predict(run: Any, examples: Any, *arguments: Any, **named: Any) -> Any:
                last, progress = 0, named.pop("progress", lambda done, total: None)

                def tick(done: int, total: int) -> None:
                    nonlocal last
                    self.now += self.row * (done - last) * factor(self.slower_rows)
                    last = done
                    progress(done, total)

                return original(run, examples, *arguments, progress=tick, **named)

            return predict

        monkeypatch.setattr("mlic_train.training.fit.set_learning_rate", set_rate)
        for module in ("training.fit", "training.time_limit", "measure.collect"):
            name = f"mlic_train.{module}.predict_modes"
            monkeypatch.setattr(name, rows(__import__(f"mlic_train.{module}", fromlist=["x"]).predict_modes))

    def __call__(self) -> float:
        return self.now

    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self, lambda: self.now)


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def options(**more: object) -> Options:
    return resolve({**SMALL, **more})


def test_durations_are_read() -> None:
    found = [parse_duration(text) for text in ("90s", "20m", "1h30m", "1.5h", "1h 5s")]
    assert found == [90, 1200, 5400, 5400, 3605]


@pytest.mark.parametrize("text", ["", "20", "m", "-3m", "0s", "0h0m", "1m2h", "inf", "nan", "1d", "5 minutes"])
def test_other_durations_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="give hours, minutes and seconds, such as 90s, 20m or 1h30m"):
        resolve({"time_limit": text})


def test_a_limit_changes_defaults_and_no_given_option() -> None:
    train = resolve({"time_limit": "20m"}).train
    assert (train.schedule, train.patience) == ("cosine", 0)
    assert train.epochs > 1000
    train = resolve({"time_limit": "20m", "epochs": 4, "schedule": "constant", "patience": 2}).train
    assert (train.epochs, train.schedule, train.patience) == (4, "constant", 2)
    train = resolve({"preset": "none"}).train
    assert (train.epochs, train.schedule, train.patience, train.limit_seconds) == (10, "constant", 3, None)


@pytest.mark.parametrize("limit", [60, 100, 333])
def test_a_run_ends_within_its_limit_and_uses_it(tmp_path: Path, splits: Splits, clock: Clock, limit: int) -> None:
    lines: list[str] = []
    stopwatch = clock.stopwatch()
    state = start_run(options(time_limit=f"{limit}s"), tmp_path / "run", splits, log=lines.append, stopwatch=stopwatch)
    assert state.finished
    assert 0.9 * limit <= stopwatch.seconds() <= limit
    assert {"val", "test"} <= state.metrics.keys()
    (plan,) = [line for line in lines if line.startswith("planned")]
    # An epoch takes 8 s and its validation 12 * 0.05 s; 12 rows of val and 9 of test are measured at the end.
    assert ": 9 s an epoch, 1 s for calibration and measurement, ends at " in plan
    # All but the first few steps, for which there is no plan yet, have the learning rate of the whole.
    assert len(set(clock.totals[8:])) == 1
    assert clock.totals[-1] == len(clock.totals)
    left = [line.rsplit(", ", 1)[1] for line in lines if line.startswith("epoch ")]
    assert all(text.endswith(" left") for text in left)


def test_epochs_are_an_upper_bound(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    lines: list[str] = []
    run = options(time_limit="10m", epochs=2)
    state = start_run(run, tmp_path / "run", splits, log=lines.append, stopwatch=clock.stopwatch())
    assert state.finished
    assert len(state.history) == 2
    assert any(line.startswith("planned 2.0 epochs, as --epochs says: ") for line in lines)
    assert clock.totals[-1] == 2 * BATCHES


def test_a_part_of_an_epoch_gives_a_model(tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = Clock(monkeypatch, step=10.0), list[str]()
    stopwatch = clock.stopwatch()
    state = start_run(options(time_limit="60s"), tmp_path / "run", splits, log=lines.append, stopwatch=stopwatch)
    assert state.finished
    assert stopwatch.seconds() <= 60
    assert 0 < len(clock.totals) < BATCHES
    assert any("epochs, as --time-limit 60s is too short for a whole one: 81 s an epoch" in line for line in lines)
    assert load_trained(tmp_path / "run").state.metrics["test"]["rows"] > 0


def test_time_for_nothing_is_refused_in_one_line(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, row=1.0)
    with pytest.raises(ConfigError, match=r"leaves no time for training: .*; go on with --resume --time-limit 2m"):
        start_run(options(time_limit="30s"), tmp_path / "run", splits, stopwatch=clock.stopwatch())
    assert clock.totals == []
    assert resume_run(
        tmp_path / "run", splits, wanted={"time_limit": "4m"}, device="cpu", stopwatch=clock.stopwatch()
    ).finished


def test_a_machine_that_becomes_slower_stops_early_and_is_measured(
    tmp_path: Path, splits: Splits, clock: Clock
) -> None:
    lines: list[str] = []

    def slow_down(state: State) -> bool:
        clock.step = 6.0
        return True

    stopwatch = clock.stopwatch()
    run = options(time_limit="60s")
    state = start_run(run, tmp_path / "run", splits, log=lines.append, keep_going=slow_down, stopwatch=stopwatch)
    assert state.finished
    assert stopwatch.seconds() <= 60
    (said,) = [line for line in lines if " fit instead of " in line]
    assert re.match(r"epoch 2/2: .*, 2 epochs fit instead of [5-7], \d+:\d\d left$", said)
    assert sum(line.startswith("planned") for line in lines) == 1
    assert state.metrics["test"]["rows"] > 0


def many_rows(splits: Splits) -> Splits:
    """Return the same rows, but 240 of val and 180 of test."""
    assert splits.test is not None
    val, test = (replace(split, records=split.records * 20) for split in (splits.val, splits.test))
    return replace(splits, val=val, test=test)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_machine_that_becomes_sixteen_times_slower_ends_in_time(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    clock, lines = Clock(monkeypatch, row=0.02), list[str]()
    clock.slower_after, clock.slower = share * 300, 16.0
    stopwatch, rows = clock.stopwatch(), many_rows(splits)
    state = start_run(options(time_limit="300s"), tmp_path / "run", rows, log=lines.append, stopwatch=stopwatch)
    assert state.finished
    assert 0.9 * 300 <= stopwatch.seconds() <= 1.05 * 300
    read = state.metrics["test"]["rows"] + state.metrics["test"].get("negatives", 0)
    assert 32 <= read < 180
    assert any("is near: " in line and " of 180 rows of test are read, drawn at " in line for line in lines)
    # With time, every row is read.
    again = resume_run(tmp_path / "run", rows, device="cpu", stopwatch=Clock(monkeypatch).stopwatch())
    assert again.metrics["test"]["rows"] + again.metrics["test"].get("negatives", 0) == 180


def test_a_long_measurement_leaves_time_for_training(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lines = Clock(monkeypatch, row=0.2), list[str]()
    assert splits.test is not None
    rows = replace(splits, test=replace(splits.test, records=splits.test.records * 60))
    stopwatch = clock.stopwatch()
    state = start_run(options(time_limit="300s"), tmp_path / "run", rows, log=lines.append, stopwatch=stopwatch)
    assert state.finished
    assert 0.9 * 300 <= stopwatch.seconds() <= 300
    # All rows would take 552 * 0.2 s, a third of the limit: 18 % of it, less a margin, is reserved.
    (said,) = [line for line in lines if line.startswith("calibration and measurement of all rows would take about")]
    assert "; 0:47 of --time-limit 300s are reserved for them" in said
    assert any(", 47 s for calibration and measurement, ends at " in line for line in lines)
    read = state.metrics["test"]["rows"] + state.metrics["test"].get("negatives", 0)
    assert 32 <= read < 540
    assert any(f" {read:.0f} of 540 rows of test are read, drawn at " in line for line in lines)


def test_a_slower_machine_ends_the_schedule_too(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    clock.slower_after, clock.slower = 100.0, 4.0
    stopwatch = clock.stopwatch()
    assert start_run(options(time_limit="300s"), tmp_path / "run", splits, stopwatch=stopwatch).finished
    assert 0.9 * 300 <= stopwatch.seconds() <= 300
    assert clock.totals[-1] - len(clock.totals) <= 2  # the learning rate came down to about 0


def test_an_epoch_whose_validation_takes_too_long_is_given_up(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lines = Clock(monkeypatch, row=0.02), list[str]()
    clock.slower_after, clock.slower_rows = 270.0, 30.0
    stopwatch, rows = clock.stopwatch(), many_rows(splits)
    folder = tmp_path / "run"
    state = start_run(options(time_limit="300s"), folder, rows, log=lines.append, stopwatch=stopwatch)
    assert state.finished
    assert stopwatch.seconds() <= 1.1 * 300
    epochs = len(state.history)
    assert any(f"epoch {epochs + 1} is given up during its validation; the best of {epochs}" in line for line in lines)
    assert state.metrics["test"]["rows"] > 0
    # What was trained is not lost: a longer limit goes on there.
    clock.slower_rows, steps = 1.0, len(clock.totals)
    again = resume_run(folder, rows, wanted={"time_limit": "400s"}, device="cpu", stopwatch=clock.stopwatch())
    assert again.finished
    assert [row["epoch"] for row in again.history] == list(range(1, len(again.history) + 1))
    assert len(again.history) > epochs
    assert len(clock.totals) - steps < BATCHES * (len(again.history) - epochs)  # one of them only had to be validated


def test_a_machine_that_becomes_faster_is_used(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    lines: list[str] = []

    def speed_up(state: State) -> bool:
        clock.step = 0.5
        return True

    stopwatch = clock.stopwatch()
    run = options(time_limit="90s")
    start_run(run, tmp_path / "run", splits, log=lines.append, keep_going=speed_up, stopwatch=stopwatch)
    assert 80 <= stopwatch.seconds() <= 90
    assert any(re.search(r", \d+ epochs fit instead of \d+, ", line) for line in lines)
    assert sum(line.startswith("planned") for line in lines) == 1


def test_a_resumed_run_keeps_its_plan_and_its_time(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    folder, lines = tmp_path / "run", list[str]()
    clock.interrupt_after = 2 * BATCHES + 3
    state = start_run(options(time_limit="100s"), folder, splits, stopwatch=clock.stopwatch())
    assert not state.finished
    saved = load_checkpoint(folder / LAST_NAME).state.time
    planned, first = saved["batches"], len(clock.totals)
    assert saved["spent"] == pytest.approx(clock.now - 1000.0)
    clock.now += 5000  # nobody worked
    again = clock.stopwatch()
    state = resume_run(folder, splits, device="cpu", log=lines.append, stopwatch=again)
    assert state.finished
    assert not any(line.startswith("planned") for line in lines)
    assert clock.totals[first] == clock.totals[first - 1] == planned
    assert 85 <= saved["spent"] + again.seconds() <= 100
    # It has come to its end: a second resumption only measures.
    steps = len(clock.totals)
    assert resume_run(folder, splits, device="cpu", stopwatch=clock.stopwatch()).finished
    assert len(clock.totals) == steps
    # A longer limit makes a new plan.
    assert resume_run(
        folder, splits, wanted={"time_limit": "150s"}, device="cpu", log=lines.append, stopwatch=clock.stopwatch()
    ).finished
    assert len(clock.totals) > steps
    assert any(line.startswith("planned ") for line in lines)


def test_a_resumed_run_without_time_left_is_measured(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    folder, lines = tmp_path / "run", list[str]()
    clock.interrupt_after = 2 * BATCHES + 3
    assert not start_run(options(time_limit="100s"), folder, splits, stopwatch=clock.stopwatch()).finished
    state = resume_run(
        folder, splits, wanted={"time_limit": "20s"}, device="cpu", log=lines.append, stopwatch=clock.stopwatch()
    )
    assert state.finished
    assert any("leaves no time for training" in line and "for the best of 2 epochs" in line for line in lines)
    assert state.metrics["test"]["rows"] > 0


def slow_caching(monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float, asked: list[int]) -> None:
    """Let every four pictures of train whose features are computed take so many seconds; later attempts twice."""

    def slow(model: Any, records: Any, spec: Any, variants: Any, folder: Path, progress: Any = None) -> Any:
        total = sum(record.image is not None for record in records)
        if len(variants) > 1 and progress is not None:  # val has no flips
            asked.append(total)
            for done in range(4, total + 1, 4):
                clock.now += seconds * min(2, len(asked))
                progress(done, total)
        return build_cache(model, records, spec, variants, folder)

    monkeypatch.setattr("mlic_train.training.run.build_cache", slow)


def test_pictures_whose_features_take_too_long_are_left_out(
    tmp_path: Path, splits: Splits, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    slow_caching(monkeypatch, clock, 7, asked)
    monkeypatch.setattr("mlic_train.training.run._FEWEST_PICTURES", 4)
    lines: list[str] = []
    folder, stopwatch = tmp_path / "run", clock.stopwatch()
    clock.interrupt_after = 2 * BATCHES + 3
    run = options(time_limit="100s", freeze_backbone=True, horizontal_flip=True)
    start_run(run, folder, splits, log=lines.append, stopwatch=stopwatch)
    total, more, kept = asked
    assert kept < more < total
    assert any(f"features of all {total} pictures of train would take" in line for line in lines)
    note = next(line for line in lines if line.startswith(f"train: {kept} of {total} pictures are used"))
    assert load_checkpoint(folder / LAST_NAME).state.time["pictures"] == kept
    # A resumed run has the same rows.
    lines.clear()
    assert resume_run(folder, splits, device="cpu", log=lines.append, stopwatch=clock.stopwatch()).finished
    assert note in lines
    assert asked[3:] == [kept]


def test_features_are_not_cached_where_hardly_any_would_fit(
    tmp_path: Path, splits: Splits, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    slow_caching(monkeypatch, clock, 20, asked)
    lines: list[str] = []
    stopwatch = clock.stopwatch()
    run = options(time_limit="100s", freeze_backbone=True, horizontal_flip=True)
    state = start_run(run, tmp_path / "run", splits, log=lines.append, stopwatch=stopwatch)
    assert state.finished
    assert stopwatch.seconds() <= 100
    assert len(asked) == 1
    assert any("the backbone computes features anew in every epoch" in line for line in lines)


def test_accumulated_batches_end_with_a_whole_step(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    stopwatch = clock.stopwatch()
    state = start_run(options(time_limit="60s", accumulate=3), tmp_path / "run", splits, stopwatch=stopwatch)
    assert state.finished
    assert 50 <= stopwatch.seconds() <= 60
    assert max(clock.totals[8:]) <= len(clock.totals) // 3 + 3


def test_unknown_labels_do_not_hinder_a_plan(tmp_path: Path, splits: Splits, clock: Clock) -> None:
    def less_known(split: Split) -> Split:
        rows = (replace(row, labels=row.labels[:1], unknown=row.labels[1:]) for row in split.records if row.labels)
        return replace(split, records=tuple(rows))

    unknown = replace(splits, train=less_known(splits.train), val=less_known(splits.val))
    stopwatch = clock.stopwatch()
    assert start_run(options(time_limit="60s"), tmp_path / "run", unknown, stopwatch=stopwatch).finished
    assert 50 <= stopwatch.seconds() <= 60


def test_the_state_of_a_run_without_limit_says_nothing_of_time(tmp_path: Path, splits: Splits) -> None:
    start_run(options(epochs=1), tmp_path / "run", splits)
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).state.time == {}
