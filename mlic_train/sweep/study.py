"""The Optuna study of a sweep: all its trials wait in a queue from the start, for any number of processes.

The study has every trial of the sweep when it is created: with its values for a grid, without values where a sampler
draws them. So processes need not count, and no two of them run the same trial: the storage gives a waiting trial to one
process only. A trial whose process died keeps its number, and another process continues it instead of repeating it.
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

from .liveness import LivenessTracker
from .space import Value

_CREATION_SECONDS = 60.0  # how long another machine may take to write the queue of a new study
# Names of attributes of a study and of its trials.
_POINT, _WORKER, _PLAN, _READY, _IDENTITY = "point", "worker", "plan", "ready", "identity"
SECONDS = "seconds"  # of work on a trial so far


@dataclass(frozen=True)
class Plan:
    """What all trials of a study share, ready for JSON. A study can only continue with an equal plan."""

    sampler: str
    space: Mapping[str, Any]
    data: str
    settings: Mapping[str, Any]

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """Return the first difference of the stored plan `other`, in words for a message; None if they are equal."""
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
    """The queue of trials and their results.

    Args:
        storage: see `open_storage`.
        name: the study's name in the storage.
        plan: what must be equal in a study that exists already.
        points: the values of every trial; an empty mapping where the sampler draws them.
        tracker: tells which processes are alive.
        tracks_all: `tracker` knows every process of this study.
        take_over: also continue the trials of processes that `tracker` does not know.
        seed: the sampler's.
        pruner: "none", "median" or "hyperband".
        epochs: the number of epochs of the longest trial, for hyperband.

    Raises:
        ConfigError: the study exists and has another plan, or was not made by mlic-sweep.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        plan: Plan,
        points: Sequence[Mapping[str, Value]],
        tracker: LivenessTracker,
        *,
        tracks_all: bool,
        take_over: bool = False,
        seed: int = 0,
        pruner: str = "none",
        epochs: int = 1,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the sweep has log lines of its own
        self._storage, self._tracker, self._tracks_all, self._take_over = storage, tracker, tracks_all, take_over
        self._sampler, self._seed, self._size = plan.sampler, seed, len(points)
        with tracker.exclusive():
            self._study = self._open(name, plan, points)
        self._study.pruner = _pruner(pruner, epochs)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials of the sweep, by number, without waiting ones that an earlier call with more trials left."""
        trials = self._study.get_trials()
        return [trial for trial in trials if trial.number < self._size or trial.state is not TrialState.WAITING]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest score (of equal ones the first), or None."""
        complete = [trial for trial in self._study.get_trials() if trial.state is TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def name(self) -> str:
        """The study's name in its storage."""
        return str(self._study.study_name)

    @property
    def identity(self) -> str:
        """A name that no other study has, not even an earlier one with the same name."""
        return str(self._study.user_attrs[_IDENTITY])

    def claim(self) -> Trial | None:
        """Take a trial for this process: first one that a dead process left, else the next waiting one, else None."""
        with self._tracker.exclusive():
            trials = self.trials
            for trial in trials:
                if trial.state is TrialState.RUNNING and self._abandoned(trial):
                    return self._take(trial)
            for trial in trials:
                if trial.state is TrialState.WAITING:
                    # Optuna's own `ask` would create a new trial if none were waiting any more.
                    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                        if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                            return self._take(trial)
        return None

    def reported(self, trial: Trial) -> set[int]:
        """Return the epochs whose scores are in the study already, also those from an earlier process."""
        return set(self._storage.get_trial(trial._trial_id).intermediate_values)

    def is_mine(self, trial: Trial) -> bool:
        """Return whether this process still is the one that runs the trial."""
        self._tracker.renew()
        now = self._storage.get_trial(trial._trial_id)
        return now.state is TrialState.RUNNING and now.user_attrs.get(_WORKER) == self._tracker.name

    def give_back(self, trial: Trial) -> None:
        """Put an unfinished trial of this process back into the queue."""
        if self.is_mine(trial):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def finish(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        """Record how a trial of this process ended.

        Raises:
            UpdateFinishedTrialError: another process took over the trial and has finished it already.
        """
        try:
            self._study.tell(trial, value, state)
        except ValueError as error:
            if self.is_mine(trial):
                raise
            raise optuna.exceptions.UpdateFinishedTrialError(str(error)) from error

    def out_of_sight(self) -> dict[int, str]:
        """Return number and process (or "?") of the running trials whose process may or may not be alive."""
        running = [trial for trial in self.trials if trial.state is TrialState.RUNNING]
        workers = {trial.number: trial.user_attrs.get(_WORKER, "?") for trial in running}
        return {number: worker for number, worker in workers.items() if not self._tracker.knows(worker)}

    def _open(self, name: str, plan: Plan, points: Sequence[Mapping[str, Value]]) -> optuna.Study:
        study = self._create_or_load(name)
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
            # No trial has begun: the first command was probably mistyped.
            optuna.delete_study(study_name=name, storage=self._storage)
            study = self._create_or_load(name)
        self._fill_queue(study, plan, points)
        return study

    def _create_or_load(self, name: str) -> optuna.Study:
        try:
            return optuna.create_study(study_name=name, storage=self._storage, direction="maximize")
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=self._storage)
        # Another machine may be writing the queue. The processes of this folder wait for `exclusive` instead.
        deadline = time.monotonic() + (0.0 if self._tracks_all else _CREATION_SECONDS)
        while _READY not in study.user_attrs and time.monotonic() < deadline:
            time.sleep(0.5)
        return study

    def _fill_queue(self, study: optuna.Study, plan: Plan, points: Sequence[Mapping[str, Value]]) -> None:
        """Add the trials that are missing: all, the rest after a process died here, or those that are new."""
        if _IDENTITY not in study.user_attrs:
            study.set_user_attr(_IDENTITY, self._tracker.name)
        if _PLAN not in study.user_attrs:
            study.set_user_attr(_PLAN, asdict(plan))
        queued = {trial.user_attrs[_POINT] for trial in study.get_trials(deepcopy=False)}
        for index, point in enumerate(points):
            if index not in queued:
                study.enqueue_trial(dict(point), user_attrs={_POINT: index})
        if study.user_attrs.get(_READY, 0) < len(points):
            study.set_user_attr(_READY, len(points))

    def _abandoned(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(_WORKER)
        if worker is not None and (worker == self._tracker.name or self._tracker.knows(worker)):
            return self._tracker.is_dead(worker)
        # The tracker does not know the process. If it knows all living ones, this one is dead. It may have died before
        # it wrote its name: a living process would still be in `exclusive`, where this one is now.
        return self._tracks_all or self._take_over

    def _take(self, trial: FrozenTrial) -> Trial:
        self._storage.set_trial_user_attr(trial._trial_id, _WORKER, self._tracker.name)
        # What a sampler draws depends only on the seed, the trial's number and the finished trials. So a killed sweep
        # continues like an undisturbed one, and two processes with the same seed do not draw the same values.
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
