import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from mlic_runtime.postprocess import sigmoid
from mlic_runtime.text import CaptionTokenizer

from .average import WeightAverage
from .checkpoint import BEST_NAME, LAST_NAME, Checkpoint, State, restore_optimizer, save_checkpoint
from .config import TrainConfig
from .data import Record
from .dataset import Batch, Examples, batch_loader, plan_epoch
from .errors import TrainError
from .evaluate import compute_metrics
from .learner import Learner, create_optimizer, set_learning_rate
from .losses import create_loss
from .models import Model
from .predict import move, predict_logits
from .thresholds import fit_thresholds

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
    *,
    resume: Checkpoint | None = None,
    device: str = "auto",
    log: Callable[[str], None] = lambda _: None,
) -> State:
    """Train until `config.epochs`, early stopping or Ctrl-C; best and last checkpoint lie in `folder` at any moment.

    Every random choice is a function of the seed and the step, so a resumed run equals an uninterrupted one.

    Args:
        model: with the weights to start from.
        data: what to train on and validate with.
        config: how.
        folder: where the checkpoints go.
        resume: the last checkpoint of a run that is resumed; `model` has its weights already.
        device: "auto", "cpu", "cuda" or "mps".
        log: called with one line per epoch.

    Returns:
        The last state; `finished` is False where training was interrupted.

    Raises:
        TrainError: the loss is not finite; the last checkpoint stays as it was.
    """
    fabric = Fabric(accelerator=device, devices=1)
    learner = Learner(model, config)
    optimizer = create_optimizer(model, config)
    loss_of = create_loss(config.loss, config.label_smoothing)
    state = State() if resume is None else resume.state
    state.finished = _is_finished(state, config)  # a resumed run may have been given more epochs or patience
    wrapped, optimizer = fabric.setup(learner, optimizer)
    if resume is not None and resume.moments:
        restore_optimizer(optimizer, resume.moments)  # only now: the tensors follow the parameters to their device
    average = WeightAverage(learner, config.ema_decay, resume.average if resume is not None else {})

    def save_last() -> None:
        save_checkpoint(folder / LAST_NAME, model.state_dict(), state, optimizer, average.tensors())

    total_steps = len(plan_epoch(data.train.records, config, 0)) * config.epochs

    with _interrupts() as interrupted:
        while state.epoch < config.epochs and not state.finished:
            saved = started = time.monotonic()
            plan = plan_epoch(data.train.records, config, state.epoch)
            loader = batch_loader(data.train, data.tokenizer, plan[state.step :], config.workers)
            learner.train()
            with tqdm(total=len(plan), initial=state.step, desc=f"epoch {state.epoch + 1}", disable=None) as bar:
                for batch in loader:
                    torch.manual_seed(config.seed * 1_000_003 + state.global_step)
                    set_learning_rate(optimizer, config, state.global_step, total_steps)
                    moved = move(batch, fabric.device)
                    loss = loss_of(wrapped(moved), moved.targets)
                    value = loss.item()
                    if not math.isfinite(value):
                        raise TrainError(_not_finite(value, state, plan[state.step], data.train.records))
                    optimizer.zero_grad()
                    fabric.backward(loss)
                    if config.gradient_clip:
                        fabric.clip_gradients(wrapped, optimizer, max_norm=config.gradient_clip)
                    optimizer.step()
                    average.update(state.global_step)
                    state.step += 1
                    state.global_step += 1
                    state.loss_sum += value
                    bar.update()
                    bar.set_postfix_str(_progress(state), refresh=False)
                    if interrupted() or time.monotonic() - saved > CHECKPOINT_SECONDS:
                        save_last()
                        saved = time.monotonic()
                    if interrupted():
                        return state
            _finish_epoch(average.learner, data, config, state, folder, fabric.device, time.monotonic() - started)
            log(_describe(state.history[-1], config.epochs))
            save_last()
            if interrupted():
                return state
    return state


def _finish_epoch(
    learner: Learner,
    data: FitData,
    config: TrainConfig,
    state: State,
    folder: Path,
    device: torch.device,
    seconds: float,
) -> None:
    """Validate, keep the best weights, and move the state to the next epoch."""
    learner.eval()

    def run(batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = learner(move(batch, device))
        return logits

    logits, targets = predict_logits(run, data.val, data.tokenizer, config.batch_size, config.workers)
    probabilities = sigmoid(logits)
    thresholds = fit_thresholds(probabilities, targets)
    metrics = compute_metrics(probabilities, targets, thresholds)
    loss = create_loss(config.loss)(torch.from_numpy(logits), torch.from_numpy(targets.astype(np.float32)))
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


def _is_finished(state: State, config: TrainConfig) -> bool:
    stop_early = bool(config.patience) and state.epochs_without_gain >= config.patience
    return state.epoch >= config.epochs or stop_early


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a question that the loop asks between steps; a second one is final.

    Outside the main thread Python allows no handlers; there an interruption is what it is everywhere.
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

    before = {caught: signal.getsignal(caught) for caught in (signal.SIGINT, signal.SIGTERM)}
    for caught in before:
        signal.signal(caught, handle)
    try:
        yield lambda: seen
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def _not_finite(value: float, state: State, keys: list[tuple[int, int]], records: Sequence[Record]) -> str:
    first = records[keys[0][1]]
    return (
        f"the loss is {value} in epoch {state.epoch + 1}, batch {state.step + 1} (its first record: {first.file}, "
        f"record {first.number}); the last checkpoint is kept: lower --learning-rate and start again"
    )


def _progress(state: State) -> str:
    before = f", val samples F1 {state.history[-1]['val_samples_f1']:.4f}" if state.history else ""
    return f"loss {state.loss_sum / state.step:.4f}{before}"


def _describe(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, "
        f"val samples F1 {row['val_samples_f1']:.4f}, mAP {row['val_map']:.4f}, {row['seconds']:.0f} s"
    )
