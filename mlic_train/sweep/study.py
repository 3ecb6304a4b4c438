"""The Optuna study of a sweep: its trials wait in a queue from the start, and any number of processes works it off.

Every trial of the sweep is in the study when it is created: with its values in a grid, empty where a sampler draws
them. So a process that takes one from the queue (the storage gives it to one process only) needs no counting, and no
two run the same. A trial whose process died stays what it is and is gone on with, instead of being repeated.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from mlic_train.errors import ConfigError

from .space import Value
from .workers import Crew

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "hyperband")

_CREATION_SECONDS = 60.0  # how long another machine may take to write the queue of a new study
_POINT, _WORKER, _PLAN, _READY = "point", "worker", "plan", "ready"
SECONDS = "seconds"  # spent on a trial so far


@dataclass(frozen=True)
class Plan:
    """What all trials of a study have in common, JSON-ready; a study goes on with the same only."""

    sampler: str
    space: Mapping[str, Any]
    data: str
    settings: Mapping[str, Any]

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """What is otherwise in the stored plan `other`, for a message; None if nothing is."""
        if other["data"] != self.data:
            return "with other data"
        for name in sorted({*self.settings, *other["settings"]}):
            before, now = (settings.get(name) for settings in (other["settings"], self.settings))
            if before != now:
                option = "--model" if name == "name" else "--" + name.replace("_", "-")
                return f"with {option} {before}, not {now}"
        if other["space"] != self.space:
            return f"with the space {other['space']}, not {self.space}"
        return f"with --sampler {other['sampler']}" if other["sampler"] != self.sampler else None


class SweepStudy:
    """The queue of trials, and what is known of them.

    Args:
        storage: see `open_storage`.
        name: the study's name in it.
        plan: what must be the same in a study that is there already.
        points: the values of every trial, or an empty mapping where the sampler draws them.
        workers: this process and those of which it can tell whether they live.
        shared: these are all processes that the study has.
        take_over: go on with the trials of processes of which nothing is known, too.
        seed: of the sampler.
        pruner: one of `PRUNERS`.
        epochs: the longest trial's, for hyperband.

    Raises:
        ConfigError: the study is there and has another plan, or is none of ours.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        plan: Plan,
        points: Sequence[Mapping[str, Value]],
        workers: Crew,
        *,
        shared: bool,
        take_over: bool = False,
        seed: int = 0,
        pruner: str = "none",
        epochs: int = 1,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the sweep says itself what it does
        self._storage, self._workers, self._shared, self._take_over = storage, workers, shared, take_over
        self._sampler, self._seed, self._size = plan.sampler, seed, len(points)
        with workers.one_at_a_time():
            self._study = self._open(name, plan, points)
        self._study.pruner = _pruner(pruner, epochs)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials of the sweep, by number: without those that wait because an earlier call asked for more."""
        trials = self._study.get_trials()
        return [trial for trial in trials if trial.number < self._size or trial.state is not TrialState.WAITING]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest score, the first of those that have the same; None without one."""
        complete = [trial for trial in self._study.get_trials() if trial.state is TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def name(self) -> str:
        """The study's name in its storage."""
        return str(self._study.study_name)

    @property
    def identity(self) -> str:
        """What tells this study from others, past ones of the same name included."""
        return str(self._study.user_attrs["identity"])

    def claim(self) -> Trial | None:
        """A trial for this process to run: one that a dead process left first, else the next one waiting."""
        with self._workers.one_at_a_time():
            trials = self.trials
            for trial in trials:
                if trial.state is TrialState.RUNNING and self._abandoned(trial):
                    return self._own(trial)
            for trial in trials:
                if trial.state is TrialState.WAITING:
                    # Optuna's own `ask` would make a new trial where none is waiting any more.
                    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                        if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                            return self._own(trial)
        return None

    def reported(self, trial: Trial) -> set[int]:
        """The epochs whose scores are in the study already, some of them from an earlier process."""
        return set(self._storage.get_trial(trial._trial_id).intermediate_values)

    def is_mine(self, trial: Trial) -> bool:
        """Whether this process still is the one that runs the trial."""
        self._workers.renew()
        now = self._storage.get_trial(trial._trial_id)
        return now.state is TrialState.RUNNING and now.user_attrs.get(_WORKER) == self._workers.name

    def give_back(self, trial: Trial) -> None:
        """Put an unfinished trial of this process back into the queue."""
        if self.is_mine(trial):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def finish(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        """Write down how a trial of this process ended.

        Raises:
            UpdateFinishedTrialError: another process took the trial over, and has written it down already.
        """
        try:
            self._study.tell(trial, value, state)
        except ValueError as error:
            if self.is_mine(trial):
                raise
            raise optuna.exceptions.UpdateFinishedTrialError(str(error)) from error

    def running_elsewhere(self) -> list[FrozenTrial]:
        """The trials that other processes run, or ran where their end cannot be seen from here."""
        return [trial for trial in self.trials if trial.state is TrialState.RUNNING]

    def out_of_sight(self) -> dict[int, str]:
        """Of those, the numbers and processes (or "?") of which nothing can be known from this folder."""
        found = ((trial.number, trial.user_attrs.get(_WORKER, "?")) for trial in self.running_elsewhere())
        return {number: worker for number, worker in found if not self._workers.knows(worker)}

    def _open(self, name: str, plan: Plan, points: Sequence[Mapping[str, Value]]) -> optuna.Study:
        study = self._create(name)
        stored = study.user_attrs.get(_PLAN)
        if stored is None and study.get_trials():
            raise ConfigError(f"the study {name!r} was not made by mlic-sweep; choose another name with --study")
        difference = None if stored is None else plan.difference(stored)
        if difference is not None:
            if any(_has_begun(trial) for trial in study.get_trials()):
                raise ConfigError(
                    f"the study {name!r} was started {difference}; give the same again, or start a new one with "
                    "another --output (or --study, where the storage is shared)"
                )
            optuna.delete_study(study_name=name, storage=self._storage)  # nothing of it has begun: a mistyped start
            study = self._create(name)
        self._fill(study, plan, points)
        return study

    def _create(self, name: str) -> optuna.Study:
        """The study of that name, new if it is not there."""
        try:
            return optuna.create_study(study_name=name, storage=self._storage, direction="maximize")
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=self._storage)
        # Another machine may be writing its queue; the processes of this folder are waiting for their turn.
        until = time.monotonic() + (0.0 if self._shared else _CREATION_SECONDS)
        while _READY not in study.user_attrs and time.monotonic() < until:
            time.sleep(0.5)
        return study

    def _fill(self, study: optuna.Study, plan: Plan, points: Sequence[Mapping[str, Value]]) -> None:
        """Put into the queue what is not there: all trials, the rest after a process died here, or additional ones."""
        if "identity" not in study.user_attrs:
            study.set_user_attr("identity", self._workers.name)
        if _PLAN not in study.user_attrs:
            study.set_user_attr(_PLAN, asdict(plan))
        there = {trial.user_attrs[_POINT] for trial in study.get_trials(deepcopy=False)}
        for index, point in enumerate(points):
            if index not in there:
                study.enqueue_trial(dict(point), user_attrs={_POINT: index})
        if study.user_attrs.get(_READY, 0) < len(points):
            study.set_user_attr(_READY, len(points))

    def _abandoned(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(_WORKER)
        if worker is not None and (worker == self._workers.name or self._workers.knows(worker)):
            return self._workers.is_dead(worker)
        # Nothing is known of it. If all processes are known, it ended, or it died before it wrote its name: had it not
        # died, it would have the lock that this one has now.
        return self._shared or self._take_over

    def _own(self, trial: FrozenTrial) -> Trial:
        self._storage.set_trial_user_attr(trial._trial_id, _WORKER, self._workers.name)
        # What a sampler draws is a function of the seed, the trial's number and the finished trials, so that a killed
        # sweep goes on as if it had not been, and two processes with the same seed do not draw the same.
        seed = (self._seed * 1_000_003 + trial.number) % 2**32
        if self._sampler == "tpe":
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
        else:
            self._study.sampler = optuna.samplers.RandomSampler(seed=seed)
        return Trial(self._study, trial._trial_id)


def _has_begun(trial: FrozenTrial) -> bool:
    return trial.state is not TrialState.WAITING or SECONDS in trial.user_attrs


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=max(1, epochs))
    return optuna.pruners.NopPruner()
