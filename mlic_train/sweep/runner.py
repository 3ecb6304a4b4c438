"""Run the trials of a study one after the other, each in a run folder of its own."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from mlic_runtime.base.output_files import write_bytes
from mlic_train.config import read_json
from mlic_train.data.splits import Splits
from mlic_train.errors import CheckpointError, ConfigError, TrainError
from mlic_train.runs.folder import BEST_NAME, CONFIG_NAME, LAST_NAME, State
from mlic_train.training.adapt import adapt
from mlic_train.training.run import resume_run, start_run

from .liveness import LivenessTracker
from .options import Training
from .space import Space, Value
from .study import SECONDS, SweepStudy
from .table import Row

TRIAL_NAME = "trial.json"  # which trial of which study a run folder belongs to
METRICS_NAME = "metrics.json"  # metrics, thresholds and history; it stays when the weights go
RESULT, MESSAGE = "result", "message"


class Runner:
    """A worker that takes trials from the queue and trains them.

    Args:
        study: the queue.
        space: the parameters that trials differ in.
        training: the options that they share.
        splits: the data.
        folder: where the run folders are.
        workers: the processes that share the study.
        keep: leave the weights of all trials in place, not only those of the best.
        log: called with lines of progress.
    """

    def __init__(
        self,
        study: SweepStudy,
        space: Space,
        training: Training,
        splits: Splits,
        folder: Path,
        workers: LivenessTracker,
        *,
        keep: bool,
        log: Callable[[str], None],
    ) -> None:
        self._study, self._space, self._training, self._splits = study, space, training, splits
        self._folder, self._workers, self._keep, self._log = folder, workers, keep, log

    def run(self, stopped: Callable[[], bool]) -> None:
        """Train trials until none is left for this process, or until `stopped` returns True between two of them.

        A trial whose training fails is recorded as failed, and the next one follows.

        Raises:
            MlicError: an error that every trial would have; the trial is back in the queue.
        """
        self._delete_weights()
        while not stopped() and (trial := self._study.claim()) is not None:
            try:
                self._run(trial)
            except UpdateFinishedTrialError:
                self._log_taken_over(trial)
            except BaseException:
                self._study.give_back(trial)
                raise
            self._delete_weights()

    def rows(self) -> list[Row]:
        """Return what is known of every trial."""
        return [
            Row(
                trial=trial.number,
                state="failed" if trial.state is TrialState.FAIL else trial.state.name.lower(),
                run=str(self.run_folder(trial.number)),
                parameters=self._values(trial),
                seconds=trial.user_attrs.get(SECONDS),
                message=trial.user_attrs.get(MESSAGE),
                metrics=self._metrics(trial),
                **trial.user_attrs.get(RESULT, {}),
            )
            for trial in self._study.trials
        ]

    def run_folder(self, number: int) -> Path:
        """Return the run folder of the trial of that number."""
        return self._folder / f"trial-{number:04d}"

    def _values(self, trial: FrozenTrial) -> dict[str, Value]:
        """Return them in the space's order; a trial of a grid has them before Optuna calls them parameters."""
        known = trial.params or trial.system_attrs.get("fixed_params", {})
        return {name: known[name] for name in self._space.names if name in known}

    def _metrics(self, trial: FrozenTrial) -> Mapping[str, Mapping[str, float]] | None:
        file = self.run_folder(trial.number) / METRICS_NAME
        if trial.state is not TrialState.COMPLETE or not self._belongs_here(file.parent) or not file.is_file():
            return None
        metrics: Mapping[str, Mapping[str, float]] = read_json(file)["metrics"]
        return metrics

    def _run(self, trial: Trial) -> None:
        values = self._space.suggest(trial)
        shown = ", ".join(
            f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
        )
        self._log(f"trial {trial.number} of {len(self._study.trials)}: {shown}")
        try:
            self._training.options(values)
        except ConfigError as error:  # other combinations are valid: that was checked before the study began
            self._fail(trial, str(error))
            return
        progress = _Progress(self._study, trial)
        try:
            state = self._train(trial, values, progress)
        except torch.OutOfMemoryError as error:
            self._fail(trial, str(error).splitlines()[0])
        except TrainError as error:
            # Its subclasses are about the data or the options, which the other trials share. But if some trial could
            # be trained, the options that only this one has are to blame.
            if type(error) is not TrainError and not (isinstance(error, ConfigError) and self._any_trained()):
                raise
            self._fail(trial, str(error))
        else:
            self._record(trial, values, state, progress)

    def _train(self, trial: Trial, values: Mapping[str, Value], progress: "_Progress") -> State:
        """Train from the start, or from the last checkpoint of a process that died."""
        folder, options = self.run_folder(trial.number), adapt(self._training.options(values), self._splits)
        log = _prefixed(f"trial {trial.number}: ", self._log)
        owner = {
            "study": self._study.identity,
            "trial": trial.number,
            "arguments": self._training.arguments(values),
        }
        if not (folder / CONFIG_NAME).exists():
            write_bytes(folder / TRIAL_NAME, (json.dumps(owner, indent=2, ensure_ascii=False) + "\n").encode())
            return start_run(options, folder, self._splits, log=log, keep_going=progress.keep_going)
        if not self._belongs_here(folder):
            raise CheckpointError(f"{folder} belongs to another sweep; remove it, or choose another --output")
        return resume_run(folder, self._splits, device=options.run.device, log=log, keep_going=progress.keep_going)

    def _record(self, trial: Trial, values: Mapping[str, Value], state: State, progress: "_Progress") -> None:
        if not self._is_still_mine(trial):
            return
        progress.record_time()
        if not (state.finished or progress.pruned):
            self._log(f"trial {trial.number}: interrupted in epoch {state.epoch + 1}; its last checkpoint is kept")
            self._study.give_back(trial)
            return
        monitored = f"val_{self._training.options(values).train.monitor}"
        row = max(state.history, key=lambda row: row[monitored])  # the first of equals, like the best checkpoint
        # A trial that was trained to the end has the score of the calibrated model, as mlic-train prints it.
        score = state.metrics["val"]["samples_f1"] if state.finished else row["val_samples_f1"]
        result = {"train_loss": row["train_loss"], "val_loss": row["val_loss"], "val_samples_f1": score}
        folder = self.run_folder(trial.number)
        report = {
            "run": str(folder),
            "metrics": state.metrics,
            "thresholds": state.thresholds,
            "history": state.history,
        }
        write_bytes(folder / METRICS_NAME, (json.dumps(report, indent=2) + "\n").encode())
        trial.set_user_attr(RESULT, result)
        if progress.pruned:
            self._study.finish(trial, TrialState.PRUNED)
        else:
            self._study.finish(trial, TrialState.COMPLETE, score)
        best = self._study.best
        so_far = "" if best is None else f" (best so far: trial {best.number}, {best.value:.4f})"
        self._log(f"trial {trial.number}: {'pruned at' if progress.pruned else 'val'} samples F1 {score:.4f}{so_far}")

    def _fail(self, trial: Trial, message: str) -> None:
        if self._is_still_mine(trial):
            trial.set_user_attr(MESSAGE, message)
            self._study.finish(trial, TrialState.FAIL)
            self._log(f"trial {trial.number}: failed: {message}")

    def _is_still_mine(self, trial: Trial) -> bool:
        mine = self._study.is_mine(trial)
        if not mine:
            self._log_taken_over(trial)
        return mine

    def _log_taken_over(self, trial: Trial) -> None:
        self._log(f"trial {trial.number}: another process took it over; the result of this one is not used")

    def _any_trained(self) -> bool:
        return any(trial.intermediate_values for trial in self._study.trials)

    def _belongs_here(self, folder: Path) -> bool:
        return (folder / TRIAL_NAME).is_file() and read_json(folder / TRIAL_NAME).get("study") == self._study.identity

    def _delete_weights(self) -> None:
        """Delete the weights of finished trials that are not the best, those of dead processes included."""
        if self._keep:
            return
        with self._workers.exclusive():
            best = self._study.best
            for trial in self._study.trials:
                folder = self.run_folder(trial.number)
                lost = trial.state.is_finished() and (best is None or trial.number != best.number)
                if lost and self._belongs_here(folder):
                    for name in (BEST_NAME, LAST_NAME):
                        (folder / name).unlink(missing_ok=True)


class _Progress:
    """The work of one process on a trial: it reports every epoch, asks whether to go on, and counts the seconds."""

    def __init__(self, study: SweepStudy, trial: Trial) -> None:
        self.pruned = False
        self._study, self._trial, self._reported = study, trial, study.reported(trial)
        self._before, self._started = float(trial.user_attrs.get(SECONDS, 0.0)), time.monotonic()

    def keep_going(self, state: State) -> bool:
        """Report an epoch and return whether to go on; after the last epoch there is nothing left to prune."""
        if not self._study.is_mine(self._trial):
            return False
        self.record_time()
        if state.epoch not in self._reported:  # a killed process may have reported an epoch that it did not save
            self._trial.report(state.history[-1]["val_samples_f1"], state.epoch)
        self.pruned = not state.finished and self._trial.should_prune()
        return not self.pruned

    def record_time(self) -> None:
        """Record the seconds spent so far, those of dead processes included up to their last epoch."""
        self._trial.set_user_attr(SECONDS, round(self._before + time.monotonic() - self._started, 1))


def _prefixed(prefix: str, log: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: log(prefix + line)
