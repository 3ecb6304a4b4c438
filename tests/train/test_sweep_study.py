"""The queue of trials, without any training."""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import Trial, TrialState

from mlic_train.errors import ConfigError
from mlic_train.sweep.liveness import FolderLivenessTracker
from mlic_train.sweep.space import GRIDS, Parameter, Space, Value
from mlic_train.sweep.storage import JOURNAL_NAME, open_storage, track_liveness
from mlic_train.sweep.study import Plan, SweepStudy

GRID = GRIDS["origin"]
RANGE = Space((Parameter("learning_rate", (), 0.001, 0.1, log=True),))


def plan(space: Space = GRID, sampler: str = "grid", data: str = "d", **settings: Any) -> Plan:
    return Plan(sampler, space.describe(), data, settings)


def open_grid(folder: Path, **options: Any) -> SweepStudy:
    storage = open_storage(None, folder)
    return SweepStudy(storage, "sweep", plan(), GRID.grid(), FolderLivenessTracker(folder), tracks_all=True, **options)


def open_range(folder: Path, trials: int = 3, sampler: str = "random", **options: Any) -> SweepStudy:
    points: list[Mapping[str, Value]] = [{} for _ in range(trials)]
    given = plan(RANGE, sampler)
    return SweepStudy(
        open_storage(None, folder), "sweep", given, points, FolderLivenessTracker(folder), tracks_all=True, **options
    )


def drain(study: SweepStudy, space: Space = GRID) -> list[dict[str, Value]]:
    done = []
    while (trial := study.claim()) is not None:
        done.append(space.suggest(trial))
        study.finish(trial, TrialState.COMPLETE, 0.5)
    return done


def test_a_grid_is_each_combination_once(tmp_path: Path) -> None:
    study = open_grid(tmp_path)
    assert drain(study) == GRID.grid()
    assert study.claim() is None
    assert drain(open_grid(tmp_path)) == []


def test_processes_that_start_at_once_make_one_queue_and_share_it(tmp_path: Path) -> None:
    start, done = threading.Barrier(4), []

    def work() -> None:
        start.wait()
        tracker = FolderLivenessTracker(tmp_path)
        with tracker.alive():
            study = SweepStudy(open_storage(None, tmp_path), "sweep", plan(), GRID.grid(), tracker, tracks_all=True)
            done.append(drain(study))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    together = [tuple(point.values()) for share in done for point in share]
    assert sorted(together) == sorted(tuple(point.values()) for point in GRID.grid())
    assert len(open_grid(tmp_path).trials) == 16


def test_a_queue_that_a_dead_process_wrote_in_part_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    original, calls = optuna.Study.enqueue_trial, []

    def die(self: optuna.Study, *arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        original(self, *arguments, **options)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", die)
    with pytest.raises(KeyboardInterrupt):
        open_grid(tmp_path)
    monkeypatch.undo()
    assert drain(open_grid(tmp_path)) == GRID.grid()


def test_a_journal_that_ends_in_half_a_line_goes_on(tmp_path: Path) -> None:
    study = open_grid(tmp_path)
    assert study.claim() is not None
    with (tmp_path / JOURNAL_NAME).open("a") as file:
        file.write('{"op_code": 6, "worker')
    assert len(drain(open_grid(tmp_path))) == 16  # the first one's process left its trial behind


def test_a_trial_whose_process_died_before_it_wrote_its_name_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here Optuna's heartbeat would lose the trial."""
    study = open_grid(tmp_path)

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optuna.storages.JournalStorage.set_trial_user_attr", die)
    with pytest.raises(KeyboardInterrupt):
        study.claim()
    monkeypatch.undo()
    assert [trial.state for trial in study.trials[:2]] == [TrialState.RUNNING, TrialState.WAITING]
    assert drain(open_grid(tmp_path)) == GRID.grid()


def test_a_trial_of_a_living_process_is_not_taken_and_one_of_a_dead_process_is_continued(tmp_path: Path) -> None:
    living = FolderLivenessTracker(tmp_path)
    first = SweepStudy(open_storage(None, tmp_path), "sweep", plan(), GRID.grid(), living, tracks_all=True)
    answers: list[int] = []

    def ask() -> None:  # in another thread, as locks are taken per thread
        trial = open_grid(tmp_path).claim()
        assert trial is not None
        answers.append(trial.number)

    def ask_in_thread() -> None:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    with living.alive():
        trial = first.claim()
        assert trial is not None
        GRID.suggest(trial)
        trial.report(0.25, 1)
        ask_in_thread()
        (tmp_path / "workers" / f"{living.name}.lock").touch()  # what a killed process leaves behind
    (tmp_path / "workers" / f"{living.name}.lock").touch()
    ask_in_thread()
    assert answers == [1, 0]
    assert open_grid(tmp_path).reported(trial) == {1}
    assert not first.is_mine(trial)


def test_a_machine_out_of_sight_counts_as_alive_until_the_user_says_otherwise(tmp_path: Path) -> None:
    def open_on(machine: str, take_over: bool = False) -> SweepStudy:
        storage = open_storage(str(tmp_path / "shared.journal"), tmp_path)
        tracker = FolderLivenessTracker(tmp_path / machine)
        return SweepStudy(storage, "s", plan(), GRID.grid()[:1], tracker, tracks_all=False, take_over=take_over)

    trial = open_on("a").claim()
    assert trial is not None
    other = open_on("b")
    assert other.claim() is None
    assert list(other.out_of_sight()) == [0]
    taken = open_on("b", take_over=True).claim()
    assert taken is not None
    assert taken.number == 0


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sampler_draws_the_same_after_a_kill_and_never_twice_the_same(tmp_path: Path, sampler: str) -> None:
    whole = drain(open_range(tmp_path / "a", 12, sampler), RANGE)
    assert len({point["learning_rate"] for point in whole}) == 12
    first = open_range(tmp_path / "b", 12, sampler)
    for _ in range(4):
        trial = first.claim()
        assert trial is not None
        RANGE.suggest(trial)
        first.finish(trial, TrialState.COMPLETE, 0.5)
    assert first.claim() is not None  # its process ends here, as the file of its lock is not there any more
    storage = open_storage(None, tmp_path / "b")
    rest = SweepStudy(
        storage,
        "sweep",
        plan(RANGE, sampler),
        [{}] * 12,
        FolderLivenessTracker(tmp_path / "b"),
        tracks_all=True,
        take_over=True,
    )
    assert drain(rest, RANGE) == whole[4:]
    assert drain(open_range(tmp_path / "c", 12, sampler, seed=1), RANGE) != whole


def test_a_later_call_can_have_more_trials(tmp_path: Path) -> None:
    before = drain(open_range(tmp_path, 2), RANGE)
    assert len(before) == 2
    assert len(open_range(tmp_path, 5).trials) == 5
    assert len(drain(open_range(tmp_path, 3), RANGE)) == 1
    assert len(open_range(tmp_path, 3).trials) == 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (plan(data="e"), "was started with other data"),
        (plan(name="cnn"), "was started with --model hybrid, not cnn"),
        (plan(name="hybrid", image_size=64), "was started with --image-size None, not 64"),
        (plan(RANGE, name="hybrid"), "was started with the space {'dropout'"),
        (plan(sampler="tpe", name="hybrid"), "was started with --sampler grid"),
    ],
)
def test_a_study_continues_only_with_an_equal_plan(tmp_path: Path, other: Plan, message: str) -> None:
    def start(given: Plan) -> SweepStudy:
        return SweepStudy(
            open_storage(None, tmp_path), "sweep", given, [{}, {}], FolderLivenessTracker(tmp_path), tracks_all=True
        )

    trial = start(plan(name="hybrid")).claim()
    assert trial is not None
    with pytest.raises(ConfigError) as caught:
        start(other)
    assert message in str(caught.value)
    assert "another --output" in str(caught.value)


def test_a_study_without_a_trial_that_has_begun_is_replaced(tmp_path: Path) -> None:
    assert len(open_grid(tmp_path).trials) == 16
    assert len(open_range(tmp_path, 2).trials) == 2


def test_a_study_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    import optuna

    foreign = optuna.create_study(storage=open_storage(None, tmp_path), study_name="sweep")
    foreign.enqueue_trial({"x": 1})
    with pytest.raises(ConfigError, match="'sweep' was not made by mlic-sweep; choose another name with --study"):
        open_grid(tmp_path)


def test_a_database_shares_a_study_too(tmp_path: Path) -> None:
    def start() -> SweepStudy:
        storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}", tmp_path)
        return SweepStudy(storage, "sweep", plan(), GRID.grid(), FolderLivenessTracker(tmp_path), tracks_all=False)

    def claim(study: SweepStudy) -> Trial:
        trial = study.claim()
        assert trial is not None
        GRID.suggest(trial)
        return trial

    first, second = start(), start()
    trials = [claim(first), claim(second), claim(first)]
    assert [trial.number for trial in trials] == [0, 1, 2]
    second.give_back(trials[1])
    assert claim(first).number == 1
    first.finish(trials[0], TrialState.COMPLETE, 0.5)
    assert second.best is not None
    assert second.best.params == GRID.grid()[0]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nonsense://somewhere", "the storage nonsense://somewhere cannot be opened: NoSuchModuleError"),
        ("mysql+nodriver://me:secret@host/db", "the storage mysql+nodriver://host/db cannot be opened"),
        ("sqlite:////no/such/folder/studies.db", "cannot be opened: OperationalError"),
        ("postgresql+none://me@host/db?password=secret", "the storage postgresql+none://host/db cannot be opened"),
        ("postgresql://me:first@secret@host/db", "the storage postgresql://host/db is not a URL that can be read"),
        (
            "postgresql://me:secret/db",
            "the storage postgresql://... is not a URL that can be read; expected SCHEME://USER",
        ),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_storage(where, tmp_path)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_postgresql_without_its_driver_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for open_it in (
        lambda where: track_liveness(where, tmp_path).__enter__(),
        lambda where: open_storage(where, tmp_path),
    ):
        with pytest.raises(ConfigError) as caught:
            open_it("postgresql://me:secret@127.0.0.1:1/db")
        assert "the storage postgresql://127.0.0.1:1/db cannot be opened: " in str(caught.value)
        assert str(caught.value).endswith("; pip install 'mlic-train[postgres]'")


def test_a_broken_journal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).write_text("no\nstudy\n")
    with pytest.raises(ConfigError, match=r"study\.journal cannot be opened: JSONDecodeError"):
        open_storage(None, tmp_path)
