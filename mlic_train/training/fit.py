import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.batches.dataset import Batch, Examples, batch_loader, plan_epoch, share_out
from mlic_train.config import TrainConfig
from mlic_train.data import Record
from mlic_train.errors import TrainError
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import move, predict_logits
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.models import Model
from mlic_train.runs.checkpoint import BEST_NAME, LAST_NAME, Checkpoint, State, restore_optimizer, save_checkpoint
from mlic_train.runs.learner import Learner

from .average import WeightAverage
from .losses import create_loss, positive_weight, total_loss
from .optimizer import create_optimizer, set_learning_rate
from .parallel import any_of, average_statistics, in_first, mean_of

CHECKPOINT_SECONDS = 300.0  # at most this much work is lost to a kill, the end of an epoch aside


@dataclass(frozen=True)
class FitData:
    """What `fit` trains on and validates with; the caches hold features of a frozen backbone, if asked for."""

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
) -> State:
    """Train until `config.epochs`, early stopping or Ctrl-C; best and last checkpoint lie in `folder` at any moment.

    Every random choice is a function of the seed and the step, so a resumed run equals an uninterrupted one.

    Several processes share every planned batch row by row and step together, so that their number changes nothing but
    what depends on the rows beside a row: dropout's and mixup's draws, batch statistics, rounding. The first process
    alone writes, logs and validates; what it concludes from validation it tells the others.

    Args:
        model: with the weights to start from, the same in every process.
        data: what to train on and validate with.
        config: how.
        folder: where the checkpoints go.
        fabric: the device, the precision and the other processes; see `create_fabric`.
        resume: the last checkpoint of a run that is resumed; `model` has its weights already.
        log: called with one line per epoch.
        keep_going: called after each epoch in every process, with the same answer; False ends training there, as an
            interruption would, except that the epoch is not in the last checkpoint.

    Returns:
        The last state, the same in every process; `finished` is False where training was interrupted.

    Raises:
        TrainError: the loss or a gradient is not finite; the checkpoints stay as they were.
        OutputError: a checkpoint cannot be written; the older one stays as it was.
    """
    learner = Learner(model, config)
    optimizer = create_optimizer(model, config)
    balance = positive_weight(data.train.records, data.train.num_labels, config.balance)
    loss_of = create_loss(config.loss, config.label_smoothing, balance)
    state = State() if resume is None else resume.state
    state.finished = _is_finished(state, config)  # a resumed run may have been given more epochs or patience
    wrapped, optimizer = fabric.setup(learner, optimizer)
    if resume is not None and resume.moments:
        restore_optimizer(optimizer, resume.moments)  # only now: the tensors follow the parameters to their device
    if state.scaler:
        fabric.strategy.precision.load_state_dict(state.scaler)
    average = WeightAverage(learner, config.ema_decay, resume.average if resume is not None else {})

    def save_last() -> None:
        if fabric.is_global_zero:
            state.scaler = fabric.strategy.precision.state_dict()
            save_checkpoint(folder / LAST_NAME, model.state_dict(), state, optimizer, average.tensors())

    steps_per_epoch = math.ceil(len(plan_epoch(data.train.records, config, 0)) / config.accumulate)

    with interrupts() as interrupted:
        while state.epoch < config.epochs and not state.finished:
            saved = started = time.monotonic()
            plan = plan_epoch(data.train.records, config, state.epoch)
            shares = [share_out(keys, fabric.global_rank, fabric.world_size) for keys in plan[state.step :]]
            loader = batch_loader(data.train, data.tokenizer, [keys for keys, _ in shares], config.workers)
            learner.train()
            with _bar(state, len(plan), fabric) as bar:
                for batch, (_, weight) in zip(loader, shares, strict=True):
                    step = state.epoch * steps_per_epoch + state.step // config.accumulate
                    parts, complete = _group(state.step, len(plan), config.accumulate)
                    torch.manual_seed(_step_seed(config.seed, state.global_step, fabric.global_rank))
                    set_learning_rate(optimizer, config, step, steps_per_epoch * config.epochs)
                    moved = move(batch, fabric.device)
                    with fabric.no_backward_sync(wrapped, enabled=not complete):
                        loss = weight * total_loss(loss_of, wrapped(moved), moved, config.auxiliary_weight)
                        fabric.backward(loss / parts)
                    average_statistics(fabric, learner)
                    value = mean_of(fabric, loss)
                    if not math.isfinite(value):
                        raise TrainError(_not_finite("loss", value, state, plan[state.step], data.train.records))
                    if complete:
                        norm = _clip(fabric, wrapped, optimizer, config)
                        if not math.isfinite(norm):
                            raise TrainError(_not_finite("gradient", norm, state, plan[state.step], data.train.records))
                        optimizer.step()
                        optimizer.zero_grad()
                        average.update(step)
                    state.step += 1
                    state.global_step += 1
                    state.loss_sum += value
                    bar.update()
                    bar.set_postfix_str(_progress(state), refresh=False)
                    if not complete:
                        continue  # half a group of batches is nothing that a checkpoint could go on from
                    stop = any_of(fabric, interrupted())
                    if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                        save_last()
                        saved = time.monotonic()
                    if stop:
                        return state
            seconds = time.monotonic() - started
            state = in_first(fabric, partial(_finish_epoch, average.learner, data, config, state, folder, seconds))
            go_on = keep_going(state)
            if go_on:
                save_last()
            log(_describe(state.history[-1], config.epochs))  # only now: who reads it may take the epoch for saved
            if not go_on or any_of(fabric, interrupted()):
                return state
    return state


def _group(step: int, batches: int, accumulate: int) -> tuple[int, bool]:
    """How many of an epoch's `batches` make the optimizer step that batch `step` is part of, and is it their last?"""
    first = step - step % accumulate
    size = min(accumulate, batches - first)
    return size, step + 1 == first + size


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one batch in one process; the first process draws what a single one would."""
    return seed * 1_000_003 + step + (rank << 48)


def _clip(fabric: Fabric, wrapped: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> float:
    """Bound the gradient's norm where the configuration says so; the norm before that.

    Float16 gradients overflow now and then: Fabric's loss scaler sees it, leaves the step out and lowers the scale.
    """
    bound = config.gradient_clip or math.inf
    norm = fabric.clip_gradients(wrapped, optimizer, max_norm=bound, error_if_nonfinite=False)
    return 0.0 if norm is None or config.mixed_precision == "fp16" else norm.item()


def _finish_epoch(
    learner: Learner, data: FitData, config: TrainConfig, state: State, folder: Path, seconds: float
) -> State:
    """Validate, keep the best weights, and move the state to the next epoch.

    In one process: the validation rows are few beside an epoch of training, and all agree on what is best.
    In float32 whatever the training's precision, as the model will be exported.
    """
    learner.eval()
    device = next(learner.parameters()).device

    def run(batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = learner(move(batch, device))
        return logits

    logits, targets = predict_logits(run, data.val, data.tokenizer, config.batch_size, config.workers)
    loss = create_loss(config.loss)(torch.from_numpy(logits), torch.from_numpy(targets.astype(np.float32)))
    if not math.isfinite(loss):
        raise TrainError(
            f"the loss on val is {float(loss)} after epoch {state.epoch + 1} (step {state.global_step}); "
            "the last checkpoint is kept: lower --learning-rate and start again"
        )
    probabilities = sigmoid(logits)
    thresholds = fit_thresholds(probabilities, targets, config.threshold_for)
    metrics = compute_metrics(probabilities, targets, thresholds)
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
    if gained:
        state.best_score = score
        state.thresholds = [float(value) for value in thresholds]
        state.metrics = {"val": metrics}
    state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
    state.finished = _is_finished(state, config)
    if gained:
        save_checkpoint(folder / BEST_NAME, learner.model.state_dict(), state)
    return state


def _is_finished(state: State, config: TrainConfig) -> bool:
    stop_early = bool(config.patience) and state.epochs_without_gain >= config.patience
    return state.epoch >= config.epochs or stop_early


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a question that a loop asks between steps; a second one is final.

    It nests: the loop around this one hears of it too. Outside the main thread Python allows no handlers; there an
    interruption is what it is everywhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        for caught in before:
            signal.signal(caught, before[caught])
        outer = before[signal.Signals(number)]
        if callable(outer) and outer is not signal.default_int_handler:
            outer(number, frame)

    before = {caught: signal.getsignal(caught) for caught in (signal.SIGINT, signal.SIGTERM)}
    for caught in before:
        signal.signal(caught, handle)
    try:
        yield lambda: seen
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def _not_finite(what: str, value: float, state: State, keys: list[tuple[int, int]], records: Sequence[Record]) -> str:
    first = records[keys[0][1]]
    return (
        f"the {what} is {value} in epoch {state.epoch + 1}, batch {state.step + 1} (step {state.global_step + 1}; the "
        f"batch's first record: {first.file}, record {first.number}); the last checkpoint is kept: lower "
        "--learning-rate and start again"
    )


def _bar(state: State, batches: int, fabric: Fabric) -> "tqdm[None]":
    """The progress bar of an epoch: in the first process, on a terminal."""
    disable = None if fabric.is_global_zero else True
    return tqdm(total=batches, initial=state.step, desc=f"epoch {state.epoch + 1}", disable=disable)


def _progress(state: State) -> str:
    before = f", val samples F1 {state.history[-1]['val_samples_f1']:.4f}" if state.history else ""
    return f"loss {state.loss_sum / state.step:.4f}{before}"


def _describe(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, "
        f"val samples F1 {row['val_samples_f1']:.4f}, mAP {row['val_map']:.4f}, {row['seconds']:.0f} s"
    )
