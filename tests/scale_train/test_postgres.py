"""Sweeps that share a study in PostgreSQL, in one folder or in several; some of their processes are killed."""

import itertools
import json
import multiprocessing
import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import CliRunner
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from mlic_train.cli.sweep import sweep
from mlic_train.errors import ConfigError, TrainError
from mlic_train.sweep.database import DatabaseLivenessTracker
from mlic_train.sweep.storage import open_storage, shared_storage, track_liveness
from mlic_train.sweep.study import Plan, SweepStudy
from tests.sweep_processes import HOLD_IN_SECOND_EPOCH, OPTIONS, start_sweep, work_off

from .conftest import Server, admin

GRID = "[learning_rate]\nchoices = [0.001, 0.003, 0.01, 0.03]\n[dropout]\nchoices = [0.1, 0.3]\n"
BEGUN = re.compile(r"^trial (\d+) of \d+: ", re.MULTILINE)


def arguments(colours: Path, space: Path, output: Path, storage: str) -> list[str]:
    given = ["--data", str(colours), "--space", str(space), "--output", str(output), "--storage", storage]
    return [*given, "--sampler", "grid", "--format", "json", *OPTIONS]


def test_four_processes_share_a_grid_and_one_is_killed_in_the_middle_of_a_trial(
    colours: Path, database: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four are held in the second epoch of their first trials; one dies there, and the others go on."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # otherwise each of the four processes has a thread for each CPU
    (tmp_path / "space.toml").write_text(GRID)
    given = arguments(colours, tmp_path / "space.toml", tmp_path / "sweep", database)
    with ExitStack() as stack:
        processes = [stack.enter_context(start_sweep(HOLD_IN_SECOND_EPOCH, given)) for _ in range(4)]
        said = []
        for process in processes:
            assert process.stderr is not None
            said.append("".join(itertools.takewhile(lambda line: line != "held\n", process.stderr)))
            assert process.poll() is None, said[-1]
        processes[0].kill()
        processes[0].wait()
        for process in processes[1:]:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        results = [process.communicate() for process in processes[1:]]
    everything = [before + after for before, (_, after) in zip(said, [("", ""), *results], strict=True)]
    assert [process.returncode for process in processes] == [-9, 0, 0, 0], everything
    (lost,) = BEGUN.findall(said[0])
    begun = Counter(itertools.chain.from_iterable(BEGUN.findall(text) for text in everything))
    assert begun == Counter({str(number): 1 + (str(number) == lost) for number in range(8)})
    after = "".join(everything[1:])
    assert f"trial {lost}: epoch 2/2" in after  # from its last checkpoint
    assert f"trial {lost}: epoch 1/2" not in after
    finished = CliRunner().invoke(sweep, given)
    trials = json.loads(finished.stdout)["trials"]
    assert sorted(trial["trial"] for trial in trials) == list(range(8))
    assert {trial["state"] for trial in trials} == {"complete"}
    assert len({tuple(trial["parameters"].values()) for trial in trials}) == 8
    everything += [finished.output, *(out for out, _ in results)]
    written = [path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    assert not any(server.password in text for text in everything)
    assert not any(server.password.encode() in content for content in written)


def test_a_trial_whose_folder_is_out_of_reach_is_run_again(colours: Path, database: str, tmp_path: Path) -> None:
    """The machines share the database only."""
    (tmp_path / "space.toml").write_text("[dropout]\nchoices = [0.1, 0.3]\n")
    first, second = (arguments(colours, tmp_path / "space.toml", tmp_path / name, database) for name in "ab")
    with start_sweep(HOLD_IN_SECOND_EPOCH, first) as process:
        assert process.stderr is not None
        assert "held\n" in process.stderr
        seen = CliRunner().invoke(sweep, second)
        process.kill()
    states = {trial["trial"]: trial["state"] for trial in json.loads(seen.stdout)["trials"]}
    assert states == {0: "running", 1: "complete"}
    assert "other processes run trial 0; give the command again for their results" in seen.stderr
    assert "out of sight" not in seen.stderr
    again = CliRunner().invoke(sweep, second)
    assert again.exit_code == 0, again.output
    assert BEGUN.findall(again.stderr) == ["0"]
    assert "trial 0: epoch 1/2" in again.stderr
    assert {trial["state"] for trial in json.loads(again.stdout)["trials"]} == {"complete"}


def test_a_queue_loses_and_repeats_nothing_however_often_processes_are_killed(database: str, tmp_path: Path) -> None:
    """Without training: four processes claim and finish trials; 12 times, the one that reported last is killed."""
    trials, kills = 48, 12
    chance = random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlic_train.sweep.storage", "mlic_train.sweep.study", "psycopg"])
    claims: dict[int, list[int]] = defaultdict(list)
    finished: Counter[int] = Counter()
    killed: set[int] = set()
    running: dict[Connection, multiprocessing.context.ForkServerProcess] = {}

    def start() -> None:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work_off, args=(database, tmp_path, trials, there))
        process.start()
        there.close()
        running[here] = process

    for _ in range(4):
        start()
    patience = chance.randint(1, 6)
    while running:
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            process = running[connection]
            try:
                what, number = connection.recv()
            except EOFError:
                process.join()
                del running[connection]
                continue
            assert process.pid is not None
            if what == "claimed":
                assert set(claims[number]) <= killed, f"trial {number} was taken from a process that lives"
                claims[number].append(process.pid)
            else:
                finished[number] += 1
            patience -= 1
            if patience == 0 and len(killed) < kills:
                killed.add(process.pid)
                process.kill()
                patience = chance.randint(1, 6)
                start()
    assert len(killed) == kills
    assert set(claims) == set(range(trials))
    assert max(finished.values()) == 1
    with queue(database, tmp_path, trials) as (study, _):
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * trials


@contextmanager
def queue(database: str, folder: Path, trials: int) -> Iterator[tuple[SweepStudy, DatabaseLivenessTracker]]:
    """Open the study as one process does."""
    with track_liveness(database, folder) as tracker, shared_storage(database, folder, tracker) as opened:
        assert isinstance(tracker, DatabaseLivenessTracker)
        plan = Plan("random", {}, "data", {})
        yield SweepStudy(opened, "queue", plan, [{}] * trials, tracker, tracks_all=True), tracker


def test_a_database_that_starts_again_is_waited_for(database: str, server: Server, tmp_path: Path) -> None:
    with queue(database, tmp_path, 2) as (study, _), queue(database, tmp_path, 2) as (other, _):
        trial = study.claim()
        assert trial is not None
        server.restart()
        assert study.is_mine(trial)
        second = other.claim()
        assert second is not None
        assert second.number != trial.number
        study.finish(trial, TrialState.COMPLETE, 0.5)


def test_one_process_has_its_turn_at_a_time(database: str, server: Server, tmp_path: Path) -> None:
    entered: list[str] = []

    def enter() -> None:
        with queue(database, tmp_path, 1):
            entered.append("second")

    second = threading.Thread(target=enter)
    with queue(database, tmp_path, 1) as (_, tracker), admin(server) as connection:
        with tracker.exclusive():
            second.start()
            waiting = sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            while not entered and not connection.execute(waiting).scalar():
                pass
            entered.append("first")
        second.join()
    assert entered == ["first", "second"]


def test_a_process_that_lost_its_trial_cannot_finish_it(database: str, server: Server, tmp_path: Path) -> None:
    """A living process that lost its connection to the database counts as dead."""
    with queue(database, tmp_path, 1) as (study, tracker), queue(database, tmp_path, 1) as (other, _):
        trial = study.claim()
        assert trial is not None
        end_connections_of(server, tracker)
        taken = other.claim()
        assert taken is not None
        assert taken.number == trial.number
        assert not study.is_mine(trial)
        other.finish(taken, TrialState.COMPLETE, 0.5)
        with pytest.raises(UpdateFinishedTrialError):
            study.finish(trial, TrialState.COMPLETE, 0.1)
        assert [trial.value for trial in study.trials] == [0.5]


def test_a_database_that_stays_away_is_one_line(
    database: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlic_train.sweep.database._PATIENCE_SECONDS", 0.0)

    def work_until_it_is_gone() -> None:
        with queue(database, tmp_path, 1) as (study, _):
            trial = study.claim()
            assert trial is not None
            with admin(server) as connection:
                connection.execute(sqlalchemy.text(f"DROP DATABASE {database.rpartition('/')[2]} WITH (FORCE)"))
            study.is_mine(trial)

    with pytest.raises(TrainError) as caught:
        work_until_it_is_gone()
    assert f"the storage postgresql://{server.address}/" in str(caught.value)
    assert "give the same command again when it is there: nothing that was finished is lost" in str(caught.value)
    assert server.password not in str(caught.value)
    assert "\n" not in str(caught.value)


def end_connections_of(server: Server, tracker: DatabaseLivenessTracker) -> None:
    """Cut them, as a broken network would."""
    end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = left(:name, 63)"
    with admin(server) as connection:
        assert connection.execute(sqlalchemy.text(end), {"name": f"mlic-sweep {tracker.name}"}).scalar()


def test_an_error_on_opening_is_one_line_without_the_password(database: str, server: Server, tmp_path: Path) -> None:
    wrong = database.replace(server.password, "not-the-password")
    for where, secret, message in (
        (wrong, "not-the-password", 'password authentication failed for user "sweeper"'),
        (f"{database}-none", server.password, "does not exist"),
        (database.replace("postgresql://", "postgresql+pg8000://"), server.password, "cannot be opened"),
    ):
        with pytest.raises(ConfigError) as caught, track_liveness(where, tmp_path):
            open_storage(where, tmp_path)
        assert message in str(caught.value)
        assert secret not in str(caught.value)
        assert "\n" not in str(caught.value)
