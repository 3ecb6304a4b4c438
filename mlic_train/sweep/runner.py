"""Runs the trials of a study one after the other, each in a run folder of its own."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from mlic_train.base.files import write_bytes
from mlic_train.config import read_json
from mlic_train.data.splits import Splits
from mlic_train.errors import CheckpointError, ConfigError, TrainError
from mlic_train.runs.checkpoint import BEST_NAME, CONFIG_NAME, LAST_NAME, State
from mlic_train.training.run import resume_run, start_run

from .options import Training
from .space import Space, Value
from .study import SECONDS, SweepStudy
from .table import Row
from .workers import Crew

TRIAL_NAME = "trial.json"  # which trial of which study a run folder belongs to
METRICS_NAME = "metrics.json"  # metrics, thresholds and history; it stays when the weights go
RESULT, MESSAGE = "result", "message"


class Runner:
    """Takes trials from the queue and trains them.

    Args:
        study: the queue.
        space: what trials differ in.
        training: what they share.
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
        workers: Crew,
        *,
        keep: bool,
        log: Callable[[str], None],
    ) -> None:
        self._study, self._space, self._training, self._splits = study, space, training, splits
        self._folder, self._workers, self._keep, self._log = folder, workers, keep, log

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until no trial is left to this process, or `stopped` says so between two of them.

        A trial whose training fails is written down as failed, and the next one follows.

        Raises:
            MlicError: what every trial would fail with; the trial is back in the queue.
        """
        self._tidy()
        while not stopped() and (trial := self._study.claim()) is not None:
            try:
                self._run(trial)
            except UpdateFinishedTrialError:
                self._leave(trial)
            except BaseException:
                self._study.give_back(trial)
                raise
            self._tidy()

    def rows(self) -> list[Row]:
        """What is known of every trial."""
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
        """Where the trial of that number is trained."""
        return self._folder / f"trial-{number:04d}"

    def _values(self, trial: FrozenTrial) -> dict[str, Value]:
        """In the space's order. A trial of a grid has them while it waits, before they are parameters to Optuna."""
        known = trial.params or trial.system_attrs.get("fixed_params", {})
        return {name: known[name] for name in self._space.names if name in known}

    def _metrics(self, trial: FrozenTrial) -> Mapping[str, Mapping[str, float]] | None:
        file = self.run_folder(trial.number) / METRICS_NAME
        if trial.state is not TrialState.COMPLETE or not self._is_ours(file.parent) or not file.is_file():
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
        except ConfigError as error:  # other combinations go together: that was looked at before the study began
            self._fail(trial, str(error))
            return
        attempt = _Attempt(self._study, trial)
        try:
            state = self._train(trial, values, attempt)
        except torch.OutOfMemoryError as error:
            self._fail(trial, str(error).splitlines()[0])
        except TrainError as error:
            # Its subclasses are about the data or the options, which the other trials have as well; but where some
            # trial could be trained, the options are to blame that this one has for itself.
            if type(error) is not TrainError and not (isinstance(error, ConfigError) and self._any_trained()):
                raise
            self._fail(trial, str(error))
        else:
            self._conclude(trial, values, state, attempt)

    def _train(self, trial: Trial, values: Mapping[str, Value], attempt: "_Attempt") -> State:
        """From the start, or from the last checkpoint of a process that died."""
        folder, options = self.run_folder(trial.number), self._training.options(values)
        log = _prefixed(f"trial {trial.number}: ", self._log)
        mark = {
            "study": self._study.identity,
            "trial": trial.number,
            "arguments": self._training.arguments(values),
        }
        if not (folder / CONFIG_NAME).exists():
            write_bytes(folder / TRIAL_NAME, (json.dumps(mark, indent=2, ensure_ascii=False) + "\n").encode())
            return start_run(options, folder, self._splits, log=log, keep_going=attempt.keep_going)
        if not self._is_ours(folder):
            raise CheckpointError(f"{folder} belongs to another sweep; remove it, or choose another --output")
        return resume_run(folder, self._splits, device=options.run.device, log=log, keep_going=attempt.keep_going)

    def _conclude(self, trial: Trial, values: Mapping[str, Value], state: State, attempt: "_Attempt") -> None:
        if not self._is_still_mine(trial):
            return
        attempt.note_time()
        if not (state.finished or attempt.pruned):
            self._log(f"trial {trial.number}: interrupted in epoch {state.epoch + 1}; its last checkpoint is kept")
            self._study.give_back(trial)
            return
        monitored = f"val_{self._training.options(values).train.monitor}"
        row = max(state.history, key=lambda row: row[monitored])  # the first of equals, as the best checkpoint is
        # Of a trial that was trained to the end, the score of the calibrated model, as mlic-train prints it.
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
        if attempt.pruned:
            self._study.finish(trial, TrialState.PRUNED)
        else:
            self._study.finish(trial, TrialState.COMPLETE, score)
        best = self._study.best
        so_far = "" if best is None else f" (best so far: trial {best.number}, {best.value:.4f})"
        self._log(f"trial {trial.number}: {'pruned at' if attempt.pruned else 'val'} samples F1 {score:.4f}{so_far}")

    def _fail(self, trial: Trial, message: str) -> None:
        if self._is_still_mine(trial):
            trial.set_user_attr(MESSAGE, message)
            self._study.finish(trial, TrialState.FAIL)
            self._log(f"trial {trial.number}: failed: {message}")

    def _is_still_mine(self, trial: Trial) -> bool:
        mine = self._study.is_mine(trial)
        if not mine:
            self._leave(trial)
        return mine

    def _leave(self, trial: Trial) -> None:
        self._log(f"trial {trial.number}: another process took it over; what came out here is left aside")

    def _any_trained(self) -> bool:
        return any(trial.intermediate_values for trial in self._study.trials)

    def _is_ours(self, folder: Path) -> bool:
        return (folder / TRIAL_NAME).is_file() and read_json(folder / TRIAL_NAME).get("study") == self._study.identity

    def _tidy(self) -> None:
        """Delete the weights of finished trials that are not the best; also of those that a dead process left."""
        if self._keep:
            return
        with self._workers.one_at_a_time():
            best = self._study.best
            for trial in self._study.trials:
                folder = self.run_folder(trial.number)
                lost = trial.state.is_finished() and (best is None or trial.number != best.number)
                if lost and self._is_ours(folder):
                    for name in (BEST_NAME, LAST_NAME):
                        (folder / name).unlink(missing_ok=True)


class _Attempt:
    """What one process does for a trial: reports every epoch, asks whether to go on, and counts the seconds."""

    def __init__(self, study: SweepStudy, trial: Trial) -> None:
        self.pruned = False
        self._study, self._trial, self._reported = study, trial, study.reported(trial)
        self._before, self._started = float(trial.user_attrs.get(SECONDS, 0.0)), time.monotonic()

    def keep_going(self, state: State) -> bool:
        """Called by `fit` after each epoch; the last one is paid for, so nothing is pruned there."""
        if not self._study.is_mine(self._trial):
            return False
        self.note_time()
        if state.epoch not in self._reported:  # a killed process may have reported an epoch that it did not save
            self._trial.report(state.history[-1]["val_samples_f1"], state.epoch)
        self.pruned = not state.finished and self._trial.should_prune()
        return not self.pruned

    def note_time(self) -> None:
        """Write down the seconds spent so far, by dead processes too, except what these did after their last epoch."""
        self._trial.set_user_attr(SECONDS, round(self._before + time.monotonic() - self._started, 1))


def _prefixed(prefix: str, log: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: log(prefix + line)
