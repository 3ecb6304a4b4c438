import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from mlic_runtime.base.progress import duration, progress_bar
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.batches.dataset import (
    Batch,
    Examples,
    Key,
    batch_loader,
    leaves_one,
    plan_epoch,
    reading_errors,
    share_out,
    unknown_of,
)
from mlic_train.config import TrainConfig
from mlic_train.data import Record
from mlic_train.errors import TrainError
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import predict_modes
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.models import Model
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, Checkpoint, State, restore_optimizer, save_checkpoint

from .average import WeightAverage
from .interrupts import interrupts
from .learner import Learner
from .losses import create_loss, positive_weight, total_loss
from .optimizer import create_optimizer, set_learning_rate
from .parallel import any_process, average_statistics, mean_over_processes, on_first_process
from .time_limit import EpochClock, TimeBudget

CHECKPOINT_SECONDS = 300.0  # the most work that a kill within an epoch costs
_FEW_EPOCHS = 20  # have a line each
_SLOW_SECONDS = 10.0  # without a line, which more epochs have at every tenth else


@dataclass(frozen=True)
class FitData:
    """The rows of training and validation, and the tokenizer of their captions."""

    train: Examples
    val: Examples
    tokenizer: CaptionTokenizer | None


def fit(
    model: Model,
    data: FitData,
    config: TrainConfig,
    folder: Path,
    fabric: Fabric,
    *,
    resume: Checkpoint | None = None,
    log: Callable[[str], None] = lambda _: None,
    keep_going: Callable[[State], bool] = lambda _: True,
    budget: TimeBudget | None = None,
) -> State:
    """Train until `config.epochs`, early stopping, a time limit or Ctrl-C; write the best and the last checkpoint.

    Every random choice is a function of the seed and the step, so a resumed run equals an uninterrupted one.

    Several processes share the rows of every planned batch and step together. So their number changes only what
    depends on the rows beside a row: draws of dropout and mixup, batch statistics, rounding. The first process alone
    writes, logs and validates, and sends the new state to the others.

    Args:
        model: with the weights to start from, equal in every process.
        data: the rows.
        config: the options.
        folder: the run folder.
        fabric: the device, the precision and the other processes; see `create_fabric`.
        resume: the last checkpoint of a run that is resumed; `model` has its weights already.
        log: called with one line per epoch, and before them if a batch of one picture joins another.
        keep_going: called after each epoch, with an equal result in every process; False ends training there, as an
            interruption does, except that the epoch is not in the last checkpoint.
        budget: the time that there is; `TimeBudget.begin` was called. It plans the epochs, the last of which may be a
            part of one, and the learning rates with them. Only the first process's decides.

    Returns:
        The last state, equal in every process; `finished` is False where training was interrupted.

    Raises:
        TrainError: the loss or a gradient is not finite; the checkpoints stay as they were.
        OutputError: a checkpoint cannot be written; the older one stays as it was.
    """
    learner = Learner(model, config)
    optimizer = create_optimizer(model, config)
    weights = positive_weight(data.train.records, data.train.num_labels, config.balance)
    loss_function = create_loss(config.loss, config.label_smoothing, weights)
    state = State() if resume is None else resume.state
    state.finished = is_finished(state, config)  # a resumed run may have more epochs or patience than before
    wrapped, optimizer = fabric.setup(learner, optimizer)
    if resume is not None and resume.moments:
        restore_optimizer(optimizer, resume.moments)  # after setup: the tensors follow the parameters to their device
    if state.scaler:
        fabric.strategy.precision.load_state_dict(state.scaler)
    average = WeightAverage(learner, config.ema_decay) if config.ema_decay else None
    if average is not None and resume is not None and resume.average:
        average.module.model.load_state_dict(dict(resume.average))

    if not state.finished and leaves_one(data.train.records, config.batch_size):
        log("the last batch of an epoch would have one picture: it joins the batch before")
    per_epoch = len(plan_epoch(data.train.records, config, 0))
    steps_per_epoch = math.ceil(per_epoch / config.accumulate)
    begun = said = time.monotonic()
    first_epoch, tenths = state.epoch, 0
    some_unknown = any(unknown_of(record) for record in data.train.records)

    def train_batch(batch: Batch, weight: float, plan: list[list[Key]]) -> bool:
        """Add a batch to the gradient and, after the last batch of an optimizer step, step; return whether it was."""
        step = state.epoch * steps_per_epoch + state.step // config.accumulate
        batches, complete = _accumulation(state.step, len(plan), config.accumulate)
        torch.manual_seed(_step_seed(config.seed, state.global_step, fabric.global_rank))
        steps = steps_per_epoch * config.epochs if budget is None else budget.steps(state, per_epoch)
        set_learning_rate(optimizer, config, step, steps)
        if some_unknown and fabric.world_size > 1:
            weight = _known_weight(fabric, batch, weight)
        with fabric.no_backward_sync(wrapped, enabled=not complete):
            loss = weight * total_loss(loss_function, wrapped(batch), batch, config.auxiliary_weight)
            fabric.backward(loss / batches)
        average_statistics(fabric, learner)
        value = mean_over_processes(fabric, loss)
        if not math.isfinite(value):
            raise TrainError(_not_finite("loss", value, state, plan[state.step], data.train.records))
        if complete:
            norm = _clip(fabric, wrapped, optimizer, config)
            if not math.isfinite(norm):
                raise TrainError(_not_finite("gradient", norm, state, plan[state.step], data.train.records))
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                average.update(learner, step)
        state.step += 1
        state.global_step += 1
        state.loss_sum += value
        return complete

    def save_last() -> None:
        if fabric.is_global_zero:
            if budget is not None:
                state.time["spent"] = budget.spent()
            state.scaler = fabric.strategy.precision.state_dict()
            averaged = None if average is None else average.module.model.state_dict()
            save_checkpoint(folder / LAST_NAME, model.state_dict(), state, optimizer, averaged)

    with interrupts() as interrupted:
        while state.epoch < config.epochs and not state.finished:
            saved = started = time.monotonic()
            plan = plan_epoch(data.train.records, config, state.epoch)
            shares = [share_out(keys, fabric.global_rank, fabric.world_size) for keys in plan[state.step :]]
            loader = batch_loader(data.train, data.tokenizer, [keys for keys, _ in shares], config.workers)
            learner.train()
            cut, clock = False, None if budget is None else EpochClock(budget, fabric, data.train.records, plan)
            with reading_errors(), progress_bar(f"epoch {state.epoch + 1}", "step", 60.0) as show:
                for batch, (_, weight) in zip(loader, shares, strict=True):
                    complete = train_batch(batch.to(fabric.device), weight, plan)
                    show(state.step, len(plan) if clock is None else clock.end(state), _progress_text(state))
                    if clock is not None:
                        clock.count(state)
                    if not complete:
                        continue  # training cannot resume between the batches of one optimizer step
                    cut = clock is not None and clock.is_over(state)
                    stop = any_process(fabric, interrupted())
                    if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                        save_last()
                        saved = time.monotonic()
                    if stop:
                        return state
                    if cut:
                        break
            seconds = time.monotonic() - started
            validated = learner if average is None else average.module
            finish = partial(_finish_epoch, validated, data, config, state, folder, seconds)
            if clock is not None:
                finish = partial(clock.finish, finish, state, len(data.val), cut)
            state = on_first_process(fabric, finish)
            state.finished = is_finished(state, config)
            if state.step:  # given up
                save_last()
                return state
            go_on = keep_going(state)
            if go_on:
                save_last()
            epochs = _planned_epochs(state, config, per_epoch, budget)
            ends = state.finished or not go_on or state.epoch == first_epoch + 1
            if ends or is_said(state.epoch, epochs, tenths, time.monotonic() - said):
                said, tenths = time.monotonic(), _tenths(state.epoch, epochs)
                # Last, because readers take the epoch for saved.
                log(_epoch_text(state, epochs, (said - begun) / (state.epoch - first_epoch), budget))
            if not go_on or any_process(fabric, interrupted()):
                return state
    return state


def _accumulation(step: int, batches: int, accumulate: int) -> tuple[int, bool]:
    """Return the number of batches in the optimizer step of batch `step`, and whether it is their last.

    An epoch of `batches` batches ends with a smaller optimizer step where `accumulate` does not divide it.
    """
    first = step - step % accumulate
    size = min(accumulate, batches - first)
    return size, step + 1 == first + size


def _known_weight(fabric: Fabric, batch: Batch, weight: float) -> float:
    """Return the weight of this process's loss in place of that of `share_out`, by known entries instead of rows."""
    counted = batch.targets.numel() if batch.known is None else int(batch.known.sum())
    own = float(counted) if weight else 0.0
    mean = mean_over_processes(fabric, torch.tensor(own, device=fabric.device))
    return own / mean if mean else 0.0


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Return a seed for one batch in one process; the first process has that of a single process."""
    return seed * 1_000_003 + step + (rank << 48)


def _clip(fabric: Fabric, wrapped: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> float:
    """Bound the norm of the gradient if the configuration has a bound; return the norm before that.

    Float16 gradients overflow now and then. Fabric's loss scaler then skips the step and lowers the scale.
    """
    bound = config.gradient_clip or math.inf
    norm = fabric.clip_gradients(wrapped, optimizer, max_norm=bound, error_if_nonfinite=False)
    return 0.0 if norm is None or config.mixed_precision == "fp16" else norm.item()


def _finish_epoch(
    learner: Learner,
    data: FitData,
    config: TrainConfig,
    state: State,
    folder: Path,
    seconds: float,
    enough: Callable[[int], bool] | None = None,
) -> State:
    """Validate, save the best weights, and move the state to the next epoch.

    One process does it for all, since the validation rows are few beside an epoch of training. It computes in float32
    whatever the precision of training, as the exported model will.

    With `enough` (see `predict_modes`) rows may be left out. Then the state stays as it was if there is a best epoch
    already: scores of fewer rows do not compare.
    """
    learner.eval()
    device = next(learner.parameters()).device

    def run(batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = learner(batch.to(device))
        return logits

    outputs = predict_modes(run, data.val, data.tokenizer, config.batch_size, config.workers, enough=enough)["both"]
    if len(outputs.logits) < len(data.val) and state.history:
        return state
    logits, targets, known = outputs.logits, outputs.targets, outputs.known
    counted = None if known is None else torch.from_numpy(known)
    loss = create_loss(config.loss)(torch.from_numpy(logits), torch.from_numpy(targets.astype(np.float32)), counted)
    if not math.isfinite(loss):
        raise TrainError(
            f"the loss on val is {float(loss)} after epoch {state.epoch + 1} (step {state.global_step}); "
            "the last checkpoint is kept: lower --learning-rate and start again"
        )
    probabilities = sigmoid(logits)
    thresholds = fit_thresholds(probabilities, targets, config.threshold_for, known)
    metrics = compute_metrics(probabilities, targets, thresholds, known)
    state.history.append(
        {
            "epoch": state.epoch + 1,
            "train_loss": round(state.loss_sum / max(1, state.step), 6),
            "val_loss": round(float(loss), 6),
            **{f"val_{name}": metrics[name] for name in ("samples_f1", "micro_f1", "macro_f1", "map")},
            "seconds": round(seconds, 1),
        }
    )
    score = metrics[config.monitor]
    gained = score > state.best_score
    state.epochs_without_gain = 0 if gained else state.epochs_without_gain + 1
    # Few validation rows soon reach mAP 1, and then go on learning: of equal scores the lower loss is the better.
    equal = [row["val_loss"] for row in state.history[:-1] if row[f"val_{config.monitor}"] == score]
    if gained or (score == state.best_score and state.history[-1]["val_loss"] < min(equal, default=0.0)):
        gained = True
        state.best_score = score
        state.thresholds = [float(value) for value in thresholds]
        state.metrics = {"val": metrics}
    state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
    state.finished = is_finished(state, config)
    if gained:
        save_checkpoint(folder / BEST_NAME, learner.model.state_dict(), state)
    return state


def is_finished(state: State, config: TrainConfig) -> bool:
    """Return whether training has come to its end, not to an interruption."""
    stop_early = bool(config.patience) and state.epochs_without_gain >= config.patience
    out_of_time = bool(state.time.get("over")) and state.time["limit"] == config.limit_seconds
    return state.epoch >= config.epochs or stop_early or out_of_time


def _not_finite(what: str, value: float, state: State, keys: list[tuple[int, int]], records: Sequence[Record]) -> str:
    first = records[keys[0][1]]
    return (
        f"the {what} is {value} in epoch {state.epoch + 1}, batch {state.step + 1} (step {state.global_step + 1}; the "
        f"batch's first record: {first.file}, record {first.number}); the last checkpoint is kept: lower "
        "--learning-rate and start again"
    )


def _progress_text(state: State) -> str:
    before = f", val samples F1 {state.history[-1]['val_samples_f1']:.4f}" if state.history else ""
    return f"loss {state.loss_sum / state.step:.4f}{before}"


def _planned_epochs(state: State, config: TrainConfig, per_epoch: int, budget: TimeBudget | None) -> int:
    """Return how many epochs there will be, the last of which may be a part of one."""
    if budget is None:
        return config.epochs
    return max(state.epoch, math.ceil(state.time["batches"] / per_epoch))


def is_said(epoch: int, epochs: int, tenths: int, silence: float) -> bool:
    """Return whether an epoch has a line: of many that pass quickly, only every tenth part has.

    Args:
        epoch: from 1 on.
        epochs: the planned number, which a time limit may change.
        tenths: of the epochs that had passed at the last line.
        silence: the seconds since then.
    """
    return epochs <= _FEW_EPOCHS or silence >= _SLOW_SECONDS or _tenths(epoch, epochs) > tenths


def _tenths(epoch: int, epochs: int) -> int:
    return 10 * epoch // epochs


def _epoch_text(state: State, epochs: int, epoch_seconds: float, budget: TimeBudget | None) -> str:
    row = state.history[-1]
    left: float | None = epoch_seconds * (epochs - state.epoch)
    changed = ""
    if budget is not None:
        left = budget.left()
        changed = budget.changed(epochs)
    ends = f", {duration(left)} left" if left and (budget is not None or not state.finished) else ""
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, "
        f"val samples F1 {row['val_samples_f1']:.4f}, mAP {row['val_map']:.4f}, {row['seconds']:.0f} s{changed}{ends}"
    )
