"""A training that ends within a given time: what is measured, what is planned, and when training has to stop.

What a run knows of its time is `State.time`, numbers in the checkpoint, so that a resumed run goes on with its plan:

    limit      the seconds that the whole run may take
    spent      the seconds that it has taken, in all of its processes one after another, when it was last saved
    batches    the batches that are planned in all, from the first epoch on; 0 before there is a plan
    over       1 when training has ended because of the limit
    rest       the seconds that are reserved for calibration and measurement
    cost       the seconds of a batch when the plan was made
    pictures   the pictures of train that are used, where the limit is too short for the features of all

Whatever becomes slower after the plan, the run ends in time: training is planned anew within an epoch, and ends there
if need be. A validation that would take the time of what follows is given up for the best epoch before. Calibration and
measurement read as many rows as the time left allows.
"""

import copy
import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import numpy as np
from lightning_fabric import Fabric

from mlic_runtime.base.progress import duration
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.base.stopwatch import Stopwatch
from mlic_train.batches.dataset import Examples, Key
from mlic_train.config import TrainConfig
from mlic_train.data import Record
from mlic_train.data.splits import Splits
from mlic_train.errors import ConfigError
from mlic_train.measure.calibration import calibrate
from mlic_train.measure.collect import collect, report
from mlic_train.measure.predict import Outputs, Run, predict_modes
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.runs.folder import State, TrainedModel

from .parallel import any_process, on_first_process

_PLANNED = 0.96  # the share of the limit that a plan uses
_GUARDED = 0.985  # of the limit; a training that would end behind it stops early
_SLOWER = 1.15  # calibration and measurement may take so much longer than estimated
_FASTEST = 0.5  # the least that a machine which has become faster since the plan is taken to need
_RESERVED = 0.18  # of the limit: the most to reserve for calibration and measurement; they then read fewer rows
_MOST_REST = 0.12  # of the limit, to leave for calibration and measurement on a machine that has become slower
_FEWEST_ROWS = 32  # are validated, calibrated with or measured, however little time is left
_CALIBRATED = 0.7  # the share that calibration may take of what is left for reading the rows of val and test
_CACHING = 0.4  # the largest share of the time left that caching features may take; the rest has to pay it back
_CACHING_AGAIN = 0.6  # the same of features that are cached in a second attempt, which must not need a third
_SHORTEST = 0.1  # of an epoch: a smaller part is not worth its validation
_REPLAN = 0.03  # of the planned batches: a smaller difference is no reason for a new plan after an epoch
_REPLAN_WITHIN = 0.2  # of the batches that are still planned: the same within an epoch
_REPLAN_LEAST = 0.05  # of all planned batches: the least that is such a reason
_LOOK = 0.05  # of the limit, between two looks within an epoch whether the plan still fits
_FIRST_SECONDS = 0.01  # of the limit: what is measured for so long says how long the rest will take
_RECENT = 0.05  # of the limit: the last batches that took so long say what a batch takes
_FEWEST_BATCHES, _MOST_BATCHES = 9, 200  # that say it
_SAMPLE = 64  # rows that stand for a split
_SCORED = 2000  # rows that stand for a split where metrics are computed

Log = Callable[[str], None]


class RowLimit:
    """Says when rows have to be left out, as `enough` of `predict_modes`: when the next batch would end too late.

    Args:
        spent: returns the seconds that the run has taken.
        until: what it may return.
        rows: the number of rows in all.
        fewest: the rows that are not left out, however late it is.
    """

    def __init__(self, spent: Callable[[], float], until: float, rows: int, fewest: int = _FEWEST_ROWS) -> None:
        self._spent = spent
        self._until = until
        self._last = spent()
        self._fewest = fewest
        self.rows = rows
        self.done = 0

    def __call__(self, done: int) -> bool:
        """Return whether the rows that are done have to do."""
        now, self.done = self._spent(), done
        took, self._last = now - self._last, now
        return done >= self._fewest and now + took > self._until

    @property
    def left_out(self) -> int:
        """Return how many rows were left out."""
        return self.rows - self.done


class TimeBudget:
    """The time that a run may take, and the plan for it; see the module for what it keeps in `State.time`.

    The first of several processes measures, plans and decides. The others get the numbers in the state.

    Args:
        config: has a `time_limit`.
        stopwatch: started with the command.
        spent: the seconds that earlier processes of the run have taken.
        log: called with the first plan, and with what the limit costs.
    """

    def __init__(self, config: TrainConfig, stopwatch: Stopwatch, spent: float, log: Log) -> None:
        self.limit = config.limit_seconds or math.inf
        self._config = config
        self._stopwatch = stopwatch
        self._before = spent
        self._log = log
        self._seconds: dict[bool, deque[float]] = {kind: deque(maxlen=_MOST_BATCHES) for kind in (True, False)}
        self._measured = 0.0
        self._latest = 0.0  # the last batch
        self._last: float | None = None  # when the last batch ended
        self._between = 0.0  # from the last batch of an epoch to the first of the next
        self._between_at = 0.0  # the seconds of a batch when that was measured; 0 if none was
        self._scoring = 0.0  # of what calibration and measurement take, what does not grow with every row that is read
        self._slower = 1.0  # how much longer than when the run was planned things take
        self._looked = 0.0  # when the plan was last compared with the time left
        self._ended = 0.0  # the last batch of the epoch before
        self._end: float | None = None  # when the run will end
        self._said: int | None = None  # the planned epochs, as they were last said

    def spent(self) -> float:
        """Return the seconds that the run has taken, earlier processes included."""
        return self._before + self._stopwatch.seconds()

    def left(self) -> float | None:
        """Return the seconds until the planned end of the run; None before there is a plan."""
        return None if self._end is None else max(0.0, self._end - self.spent())

    def can_judge(self, seconds: float) -> bool:
        """Return whether what was measured for so many seconds says how long the rest will take."""
        return seconds >= _FIRST_SECONDS * self.limit

    def for_caching(self) -> float:
        """Return the seconds from now on that caching features may take."""
        return _CACHING * self._without_reserve()

    def allows_caching(self, seconds: float, *, again: bool) -> bool:
        """Return whether caching features may take so many seconds from now on; `again`: in a second attempt."""
        return seconds <= (_CACHING_AGAIN if again else _CACHING) * self._without_reserve()

    def _without_reserve(self) -> float:
        """Return the seconds left of which calibration and measurement get none, before it is known what they take."""
        return max(0.0, (1 - _RESERVED) * self.limit - self.spent())

    def recent(self, seconds: float) -> bool:
        """Return whether what was so many seconds ago still says how long the rest will take."""
        return seconds <= _RECENT * self.limit

    def begin(self, state: State, rest: float, least: float, validation: float, scoring: float = 0.0) -> None:
        """Take up the plan of a resumed run, unless its limit was another.

        Args:
            state: is changed. Training is over if no time is left and there is a best checkpoint.
            rest: the seconds that calibration and measurement of all rows will take. No more than a share of the limit
                is reserved for them.
            least: the seconds of the fewest rows, which are always reserved.
            validation: the seconds that validation after an epoch will take.
            scoring: those of `rest` in which no row is read.

        Raises:
            ConfigError: no time is left, and there is no checkpoint to calibrate and measure.
        """
        if state.time.get("limit") != self.limit:
            state.time |= {"limit": self.limit, "batches": 0, "over": 0, "cost": 0.0}
        reserved = min(rest, max(least, _RESERVED * self.limit / _SLOWER))
        if reserved < rest:
            self._log(
                f"calibration and measurement of all rows would take about {duration(rest)}; {duration(reserved)} of "
                f"--time-limit {self._config.time_limit} are reserved for them, so they may read fewer rows"
            )
        rest = reserved
        state.time |= {"rest": rest, "spent": self.spent()}
        self._between, self._scoring = validation, scoring
        needed = self.spent() + validation + _SLOWER * rest
        if needed <= _GUARDED * self.limit:
            return
        passed = (
            f"--time-limit {self._config.time_limit} leaves no time for training: {duration(self.spent())} have "
            f"passed, calibration and measurement need about {duration(rest)}"
        )
        if not state.history:
            enough = math.ceil((1.2 * needed + 30) / 60)
            raise ConfigError(f"{passed}; go on with --resume --time-limit {enough}m or more")
        self._log(f"{passed}; they follow now, for the best of {len(state.history)} epochs")
        state.time["over"] = 1

    def start_epoch(self) -> None:
        """Note that an epoch begins."""
        if self._ended:
            self._between = self.spent() - self._ended
        self._last = self.spent()
        self._looked = max(self._looked, self.spent())

    def count(self, with_picture: bool) -> None:
        """Note that a batch, of rows with or without pictures, has ended."""
        now = self.spent()
        if self._last is not None:
            recent = self._seconds[with_picture]
            recent.append(now - self._last)
            while len(recent) > _FEWEST_BATCHES and sum(recent) - recent[0] > _RECENT * self.limit:
                recent.popleft()
            self._latest = now - self._last
            self._measured += self._latest
        self._last = now

    def first_plan(self, state: State, kinds: Sequence[bool], *, epoch_ends: bool) -> dict[str, float]:
        """Plan the run, if enough batches were measured; return the new `State.time`.

        Args:
            state: as it is after a batch.
            kinds: for each batch of an epoch, whether its rows have pictures.
            epoch_ends: whether this was the last batch of the epoch: then those that there are must do.
        """
        batches = sum(len(seconds) for seconds in self._seconds.values())
        if not epoch_ends and (batches < 3 or not self.can_judge(self._measured)):
            return state.time
        for seconds in self._seconds.values():
            if batches > 2 and seconds is self._seconds[kinds[0]]:
                seconds.popleft()  # the very first batch is slower than all others
        time = self._plan(state, kinds)
        self._say(time, kinds)
        return time

    def must_stop(self, state: State, kinds: Sequence[bool]) -> bool:
        """Return whether training has to end after this batch, within an epoch."""
        if state.time["batches"] and state.epoch * len(kinds) + state.step >= state.time["batches"]:
            return True
        next_step = self._latest * self._config.accumulate
        if self.spent() + next_step + self._validation(kinds) + self._rest(state, kinds) <= _GUARDED * self.limit:
            return False
        self._log(
            f"--time-limit {self._config.time_limit} is near: training ends in epoch {state.epoch + 1} after "
            f"{state.step} of {len(kinds)} steps, to leave time for calibration and measurement"
        )
        return True

    def must_replan(self, state: State, kinds: Sequence[bool]) -> bool:
        """Return whether within an epoch the plan has become too long or too short for the time left."""
        if not state.time["batches"] or self.spent() - self._looked < _LOOK * self.limit:
            return False
        self._looked = self.spent()
        to_do = state.time["batches"] - state.epoch * len(kinds) - state.step
        difference = abs(self._fitting(state, kinds) - state.time["batches"])
        return difference > max(_REPLAN_WITHIN * to_do, _REPLAN_LEAST * state.time["batches"])

    def replan(self, state: State, kinds: Sequence[bool]) -> dict[str, float]:
        """Plan anew within an epoch; return the new `State.time`."""
        return self._plan(state, kinds)

    def end_batches(self, state: State, kinds: Sequence[bool], rows: int) -> RowLimit:
        """Note that the last batch of an epoch has ended; return the limit for its validation, of `rows` rows."""
        self._ended = self.spent()
        fewest = 0 if state.history else _FEWEST_ROWS  # without an epoch before there is no other model
        return RowLimit(self.spent, _GUARDED * self.limit - self._rest(state, kinds) / 2, rows, fewest)

    def give_up(self, state: State) -> None:
        """End training with the best epoch before this one, whose validation would take too long."""
        self._log(
            f"--time-limit {self._config.time_limit} is near: epoch {state.epoch + 1} is given up during its "
            f"validation; the best of {len(state.history)} epochs before it follows"
        )
        state.time |= {"over": 1, "spent": self.spent()}

    def for_calibration(self, rows: int, rows_of_test: int) -> RowLimit:
        """Return the limit for reading the rows of val at the end, where those of test follow."""
        left = max(0.0, self._reading_ends() - self.spent())
        return RowLimit(self.spent, self.spent() + (_CALIBRATED if rows_of_test else 1.0) * left, rows)

    def for_measurement(self, rows: int) -> RowLimit:
        """Return the limit for reading the rows of test at the end."""
        return RowLimit(self.spent, self._reading_ends(), rows)

    def say_left_out(self, name: str, limit: RowLimit) -> None:
        """Say how many rows of a split were read."""
        self._log(
            f"--time-limit {self._config.time_limit} is near: {limit.done:,} of {limit.rows:,} rows of {name} are "
            "read, drawn at random; --resume reads all"
        )

    def _reading_ends(self) -> float:
        return _GUARDED * self.limit - self._slower * self._scoring

    def _validation(self, kinds: Sequence[bool]) -> float:
        """Return the seconds that validation takes: more if the machine has become slower since it was measured."""
        slower = self._cost(kinds) / len(kinds) / self._between_at if self._between_at else 1.0
        return max(1.0, slower) * self._between

    def end_epoch(self, state: State, kinds: Sequence[bool], *, cut: bool) -> None:
        """Plan anew after an epoch if that changes much, and say in `state` whether training is over.

        Args:
            state: as it is after validation; it is changed.
            kinds: see `first_plan`.
            cut: whether the epoch was not trained to its end.
        """
        self._between = max(self.spent() - self._ended, 0.0)
        self._between_at = self._cost(kinds) / len(kinds)
        if cut:
            state.time["over"] = 1
            self._end = self.spent() + self._rest(state, kinds)
        elif not self._between_at:  # a resumed run that only had to validate: the next epoch will be measured
            state.time["over"] = int(state.epoch >= self._config.epochs)
        else:
            old = state.time["batches"]
            new = self._fitting(state, kinds)
            if abs(new - old) > _REPLAN * old:
                state.time = self._plan(state, kinds)
            else:
                self._end = self._predict(state, kinds)
            state.time["over"] = int(state.epoch * len(kinds) >= state.time["batches"])
        state.time["spent"] = self.spent()

    def steps(self, state: State, per_epoch: int) -> int:
        """Return the planned number of optimizer steps; before there is a plan, that of ten epochs or more."""
        guess = min(max(10, 2 * state.epoch + 2), self._config.epochs) * per_epoch
        whole, part = divmod(int(state.time["batches"]) or guess, per_epoch)
        accumulate = self._config.accumulate
        return whole * math.ceil(per_epoch / accumulate) + math.ceil(part / accumulate)

    def _cost(self, kinds: Sequence[bool]) -> float:
        """Return the seconds of batches; a kind that was not measured is taken for the other."""
        known = {kind: sum(times) / len(times) for kind, times in self._seconds.items() if times}
        if not known:
            return 0.0
        return sum(known.get(kind, known.get(not kind, 0.0)) for kind in kinds)

    def _rest(self, state: State, kinds: Sequence[bool]) -> float:
        """Return the seconds to leave for calibration and measurement: more if the machine has become slower."""
        before, now = state.time["cost"], self._cost(kinds) / len(kinds)
        self._slower = max(_FASTEST, now / before) if before and now else 1.0
        rest = _SLOWER * state.time["rest"]
        return min(self._slower * rest, max(rest, _MOST_REST * self.limit))

    def _fitting(self, state: State, kinds: Sequence[bool]) -> int:
        """Return how many batches fit into the limit in all, at most those of `epochs`."""
        per_epoch = len(kinds)
        left = _PLANNED * self.limit - self.spent() - self._rest(state, kinds)
        begun = state.epoch * per_epoch
        if state.step:  # within an epoch, whose other batches and validation come first
            current = self._cost(kinds[state.step :]) + self._validation(kinds)
            if current > left:
                part = (left - self._validation(kinds)) / max(self._cost(kinds[state.step :]), 1e-9)
                return begun + max(state.step, state.step + int(part * (per_epoch - state.step)))
            left -= current
            begun += per_epoch
        epoch = max(self._cost(kinds), 1e-9)
        whole = max(0, math.floor(left / (epoch + self._between)))
        part = (left - whole * (epoch + self._between) - self._between) / epoch
        fitting = begun + whole * per_epoch + (int(part * per_epoch) if part >= _SHORTEST else 0)
        return min(fitting, self._config.epochs * per_epoch)

    def _predict(self, state: State, kinds: Sequence[bool]) -> float:
        """Return when the run will end as it is planned, in seconds after its start."""
        per_epoch, done = len(kinds), state.epoch * len(kinds) + state.step
        to_do = max(0, int(state.time["batches"]) - done)
        validations = math.ceil(state.time["batches"] / per_epoch) - state.epoch
        seconds = self._cost(kinds) / per_epoch * to_do + max(0, validations) * self._between
        return self.spent() + seconds + state.time["rest"]

    def _plan(self, state: State, kinds: Sequence[bool]) -> dict[str, float]:
        """Return the new `State.time`."""
        planned = dataclasses.replace(state, time=dict(state.time))
        planned.time["cost"] = planned.time["cost"] or self._cost(kinds) / len(kinds)
        planned.time["batches"] = self._fitting(planned, kinds)
        self._end = self._predict(planned, kinds)
        return planned.time

    def _say(self, time: Mapping[str, float], kinds: Sequence[bool]) -> None:
        """Say the first plan in one line; lines of epochs say what changes later."""
        epoch, epochs = self._cost(kinds) + self._between, time["batches"] / len(kinds)
        why = f", as --time-limit {self._config.time_limit} is too short for a whole one" if epochs < 1 else ""
        why = ", as --epochs says" if epochs == self._config.epochs else why
        seconds = f"{epoch:.0f} s" if epoch >= 1 else f"{epoch:.2f} s"
        self._said = math.ceil(epochs)
        self._log(
            f"planned {epochs:.{1 if epochs >= 0.1 else 3}f} epochs{why}: {seconds} an epoch, "
            f"{time['rest']:.0f} s for calibration and measurement, ends at "
            f"{self._stopwatch.time_after((self._end or 0.0) - self.spent())}"
        )

    def changed(self, epochs: int) -> str:
        """Return what the line of an epoch says of a plan that has changed since the last line; "" if it has not."""
        before, self._said = self._said, epochs
        return "" if before in (None, epochs) else f", {epochs} epochs fit instead of {before}"


class EpochClock:
    """What a budget does within one epoch, in every process: the first one measures and decides, the others follow.

    Args:
        budget: is asked in the first process only.
        fabric: the other processes.
        records: of training.
        plan: the batches of the epoch, see `plan_epoch`.
    """

    def __init__(
        self, budget: TimeBudget, fabric: Fabric, records: Sequence[Record], plan: Sequence[list[Key]]
    ) -> None:
        self._budget = budget
        self._fabric = fabric
        self._kinds = [records[keys[0][1]].image is not None for keys in plan]
        budget.start_epoch()

    def count(self, state: State) -> None:
        """Note that a batch has ended."""
        self._budget.count(self._kinds[state.step - 1])

    def end(self, state: State) -> int:
        """Return how many batches of the epoch are planned."""
        planned = int(state.time["batches"]) - state.epoch * len(self._kinds)
        return len(self._kinds) if planned <= 0 else min(planned, len(self._kinds))

    def is_over(self, state: State) -> bool:
        """Return whether training has to end after this batch, before the last of the epoch; plan if there is no plan.

        Args:
            state: as it is after the batch; its `time` is changed.
        """
        ends = state.step == len(self._kinds)
        if not state.time["batches"]:
            plan = partial(self._budget.first_plan, state, self._kinds, epoch_ends=ends)
            state.time = on_first_process(self._fabric, plan)
        if ends:
            return False
        first = self._fabric.is_global_zero
        if any_process(self._fabric, first and self._budget.must_replan(state, self._kinds)):
            state.time = on_first_process(self._fabric, partial(self._budget.replan, state, self._kinds))
        return any_process(self._fabric, first and self._budget.must_stop(state, self._kinds))

    def finish(self, validate: Callable[[RowLimit], State], state: State, rows: int, cut: bool) -> State:
        """Validate in the first process, and plan anew; return the new state, whose `step` is 0 unless it was given up.

        Args:
            validate: returns the state of the next epoch, or the same one if it had to leave rows out and there is a
                best epoch already.
            state: as it is after the last batch.
            rows: of validation.
            cut: whether the epoch was not trained to its end.
        """
        limit = self._budget.end_batches(state, self._kinds, rows)
        state = validate(limit)
        if state.step:
            self._budget.give_up(state)
        else:
            self._budget.end_epoch(state, self._kinds, cut=cut or limit.left_out > 0)
            if limit.left_out > 0:
                self._budget.say_left_out("val", limit)
        return state


def seconds_to_finish(trained: TrainedModel, splits: Splits, stopwatch: Stopwatch) -> tuple[float, float, float]:
    """Estimate the seconds that calibration, thresholds and the measurement of val and test take.

    Returns:
        The seconds to read the rows, those to read the fewest that have to be read, and those to calibrate and score.

    Some rows of each split go through the model. Their outputs, repeated, are calibrated and scored as the whole
    split's will be. Nothing of the model or its calibration is changed.

    Args:
        trained: a model with any weights.
        splits: all rows.
        stopwatch: measures.
    """
    calibration = copy.deepcopy(trained.model.calibration)
    config = trained.config.train
    reading = fewest = scoring = 0.0
    for name, split in splits.named().items():
        if name == "train":
            continue
        timer = _RowTimer(stopwatch)
        outputs = collect(trained, trained.run, _spread(split.records), timer)
        if not outputs:
            continue
        count = min(len(split.records), _SCORED)
        report(outputs, [0.5] * trained.config.model.num_labels)  # a first call loads what it needs
        begun = stopwatch.seconds()
        outputs = {mode: _repeat(found, count) for mode, found in outputs.items()}
        if name == "val":
            outputs = calibrate(calibration, outputs, config.calibration, config.empty_odds)
            _fit_thresholds(outputs["both"], config)
        report(outputs, [0.5] * trained.config.model.num_labels)
        reading += timer.seconds_per_row() * len(split.records)
        fewest += timer.seconds_per_row() * min(len(split.records), _FEWEST_ROWS)
        scoring += (stopwatch.seconds() - begun) / count * len(split.records)
    return reading, fewest, scoring


def seconds_to_validate(
    run: Run, examples: Examples, tokenizer: CaptionTokenizer | None, config: TrainConfig, stopwatch: Stopwatch
) -> float:
    """Estimate the seconds that validation after an epoch takes, from its first rows."""
    # Of a cache, the first rows are the first.
    first = Examples(examples.records[:_SAMPLE], examples.num_labels, examples.image_spec, None, examples.cache)
    timer = _RowTimer(stopwatch)
    outputs = predict_modes(run, first, tokenizer, min(config.batch_size, _SAMPLE // 4), config.workers, progress=timer)
    begun = stopwatch.seconds()
    count = min(len(examples), _SCORED)
    _fit_thresholds(_repeat(outputs["both"], count), config)
    return (timer.seconds_per_row() + (stopwatch.seconds() - begun) / count) * len(examples)


class _RowTimer:
    """A `progress` that measures how long a row takes; the first batch is slower than others, and does not count."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._ticks = [(0, stopwatch.seconds())]

    def __call__(self, done: int, total: int) -> None:
        self._ticks.append((done, self._stopwatch.seconds()))

    def seconds_per_row(self) -> float:
        ticks = self._ticks[1:] if len(self._ticks) > 2 else self._ticks
        steps = itertools.pairwise(ticks)
        # The median: one moment in which the machine had other work says nothing of the rest.
        return median((ended - begun) / max(1, last - first) for (first, begun), (last, ended) in steps)


def _fit_thresholds(outputs: Outputs, config: TrainConfig) -> None:
    fit_thresholds(sigmoid(outputs.logits), outputs.targets, config.threshold_for, outputs.known)


def _spread(records: Sequence[Record]) -> list[Record]:
    """Return some records from all over a split."""
    count = min(len(records), _SAMPLE)
    return [records[int(index)] for index in np.linspace(0, len(records) - 1, count)]


def _repeat(outputs: Outputs, count: int) -> Outputs:
    """Return outputs for `count` rows, those of fewer rows again and again."""
    rows = np.arange(count) % len(outputs.logits)
    repeated = {name: array[rows] for name, array in vars(outputs).items() if array is not None}
    return Outputs(**repeated)
