"""Options of a training: how a model is fitted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mlic_runtime.base.option import check, option
from mlic_train.errors import ConfigError

from .duration import parse_duration
from .model import by_model

LOSSES = ("bce", "multilabel_soft_margin", "softmax_bce", "asymmetric")
MONITORS = ("samples_f1", "map")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")
CALIBRATIONS = ("none", "temperature", "platt")
MIXED_PRECISIONS = ("none", "fp16", "bf16")
MAX_EPOCHS = 10_000_000
WITHIN_A_TIME_LIMIT: Mapping[str, str | int] = {"schedule": "cosine", "patience": 0}
"""Of a run with --time-limit, which plans its own end; its epochs are as many as fit."""

_training = partial(option, group="Training")
_loss = partial(option, group="Loss", low=0, high=1)
_optimizer = partial(option, group="Optimizer", low=0)
_batches = partial(option, group="Batches")
_backbone = partial(option, group="Pretrained weights")
_regularisation = partial(option, group="Regularisation", low=0, high=1)
_augmentation = partial(option, group="Augmentation", low=0, high=1)
_decision = partial(option, group="Calibration and thresholds")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is fitted.

    An option that follows from the model or from other options is None until `resolve_configs` fills it in.
    """

    loss: str = option("bce", "What training minimises.", "Loss", choices=LOSSES, follows=by_model("loss"))
    label_smoothing: float = _loss(0.0, "Move targets towards one half.", high=0.5)
    optimizer: str = option("adam", "Adam or AdamW.", "Optimizer", choices=OPTIMIZERS)
    schedule: str = option(
        "constant",
        "Of the learning rate; cosine: to 0 along half a cosine, after a short warm-up (Loshchilov and Hutter 2017).",
        "Optimizer",
        choices=SCHEDULES,
        follows=f"with --time-limit {WITHIN_A_TIME_LIMIT['schedule']}",
    )
    learning_rate: float = _optimizer(0.001, "Step size of the optimizer.", high=10, common=True)
    backbone_learning_rate: float | None = _optimizer(
        None, "Step size of a backbone that is not frozen.", high=10, follows="--learning-rate"
    )
    text_learning_rate: float | None = _optimizer(
        None, "Step size of a Hugging Face caption encoder.", high=10, follows="--learning-rate"
    )
    weight_decay: float = _optimizer(0.0, "Weight decay.", high=10)
    gradient_clip: float = _optimizer(1.0, "Bound of the gradient's norm; 0: none.", high=1_000_000)
    ema_decay: float = _regularisation(
        0.0, "Validate and keep an average of weights, w <- DECAY * w + (1 - DECAY) * new; 0: off.", high=0.99999
    )
    batch_size: int = _batches(32, "Pictures per step.", low=1, high=10_000_000, common=True)
    text_batch_size: int = _batches(128, "Caption-only rows per step.", low=1, high=10_000_000)
    text_rows_per_epoch: int = _batches(0, "Caption-only rows that an epoch draws; 0: all.", low=0, high=2**32)
    shuffle_shards: int = _batches(
        0, "Shards that are mixed at a time; an epoch goes through them in random order; 0: all.", low=0, high=2**32
    )
    epochs: int = _training(
        10,
        "Passes over the training rows; 0: only measure --start-from.",
        low=0,
        high=MAX_EPOCHS,
        common=True,
        follows="with --time-limit as many as fit",
    )
    min_steps: int = _training(
        0,
        "Few rows get more epochs, up to 60, until there are this many steps; --epochs switches it off.",
        low=0,
        high=2**32,
    )
    time_limit: str | None = _training(
        None,
        "Plan to end within 20m, 1h30m, ...",
        metavar="TIME",
        common=True,
    )
    patience: int = _training(
        3,
        "Epochs without a better validation score before stopping; 0: never stop.",
        low=0,
        high=2**32,
        follows=f"with --time-limit {WITHIN_A_TIME_LIMIT['patience']}",
    )
    monitor: str = _training("samples_f1", "The metric on val that says which epoch is the best.", choices=MONITORS)
    seed: int = _training(0, "Seed of all random numbers.", low=0, high=2**32, common=True)
    freeze_backbone: bool = _backbone(False, "Do not train the backbone.")
    freeze_batch_statistics: bool = _backbone(
        None,
        "Keep the backbone's batch statistics; pretrained ones beat those of a few small batches.",
        follows="on with --backbone-weights, else off",
    )
    cache_features: bool = _backbone(
        None,
        "Keep a frozen backbone's features on disk.",
        follows="on with --freeze-backbone, unless augmentation changes more than flips",
    )
    drop_caption: float = _regularisation(
        0.25, "How often a row with both is shown without its caption.", follows=by_model("drop_caption")
    )
    drop_picture: float = _regularisation(
        0.1, "How often a row with both is shown without its picture.", follows=by_model("drop_picture")
    )
    horizontal_flip: bool = option(True, "Mirror every other picture.", "Augmentation")
    vertical_flip: bool = option(False, "Turn every other picture upside down.", "Augmentation")
    random_crop: float = _augmentation(1.0, "Smallest share of the area that is kept; 1: off.", low=0.05, high=1)
    color_jitter: float = _augmentation(0.0, "Largest relative change of brightness, contrast and saturation.")
    rand_augment: int = _augmentation(
        0, "Strength of two random operations of RandAugment (Cubuk et al. 2020); 0: off.", high=30
    )
    random_erasing: float = _augmentation(0.0, "Probability of a grey rectangle (Zhong et al. 2020).")
    mixup: float = _augmentation(
        0.0,
        "Alpha of the Beta distribution that mixes pictures of rows without caption (Zhang et al. 2018); 0: off.",
        high=10,
    )
    auxiliary_weight: float = _loss(
        0.0, "Weight of the losses of the picture's and the caption's own logits.", high=100
    )
    balance: float = _loss(0.0, "Weigh positives by (negatives / positives) ** BALANCE; 0: do not.")
    accumulate: int = _batches(1, "Batches per optimizer step.", low=1, high=10_000_000)
    mixed_precision: str = _training("none", "Run the forward pass in half precision.", choices=MIXED_PRECISIONS)
    freeze_stages: int = _backbone(0, "Freeze the stem and the first stages of the backbone.", low=0, high=2**32)
    layer_decay: float = _optimizer(1.0, "Factor of the learning rate per backbone stage, from the output on.", high=1)
    calibration: str = _decision(
        "platt",
        "How logits become probabilities; fitted on val, apart for both inputs and for each alone.",
        choices=CALIBRATIONS,
        follows=by_model("calibration"),
    )
    empty_odds: float = _decision(
        1.0,
        "How often rows without any label come in use, over how often in training (ratio of odds); presets: as in val.",
        low=0.001,
        high=1,
    )
    threshold_for: str = _decision(
        "samples_f1",
        "What thresholds are fitted for on val: samples_f1, micro_f1, precision=P, recall=R, or fixed=T.",
        follows=by_model("threshold_for"),
    )
    teacher_weight: float = option(
        0.0, "Share of the teachers in what rows with labels of their own learn; 0: nothing.", "Teachers", low=0, high=1
    )
    workers: int = option(0, "Processes that read pictures; 0: none but the main one.", "Run", low=0, high=2**32)

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if self.threshold_for is not None:
            threshold_goal(self.threshold_for)
        if self.time_limit is not None:
            parse_duration(self.time_limit)
        dropped = (self.drop_caption or 0) + (self.drop_picture or 0)
        if dropped > 1.0:
            raise ConfigError(f"drop_caption + drop_picture is {dropped}; at most 1")
        if self.cache_features and not self.freeze_backbone:
            raise ConfigError("--cache-features needs --freeze-backbone: features of a changing backbone are stale")
        if self.cache_features and (changing := self.endless_augmentation):
            option = "--" + changing[0].replace("_", "-")
            raise ConfigError(f"--cache-features does not go with {option}: every variant has other features")

    @property
    def limit_seconds(self) -> float | None:
        """The seconds of `time_limit`; None without one."""
        return None if self.time_limit is None else parse_duration(self.time_limit)

    @property
    def endless_augmentation(self) -> list[str]:
        """The options in use that change pictures in more ways than could be kept on disk."""
        changing = [n for n in ("color_jitter", "rand_augment", "random_erasing", "mixup") if getattr(self, n) > 0]
        return changing + (["random_crop"] if self.random_crop < 1.0 else [])


def threshold_goal(text: str) -> tuple[str, float | None]:
    """Read `TrainConfig.threshold_for`.

    Returns:
        (goal, None) for an F1, else ("precision", P), ("recall", R) or ("fixed", T).

    Raises:
        ConfigError: something else, or a P, R or T that is not in (0, 1].
    """
    name, _, value = text.partition("=")
    if text in ("samples_f1", "micro_f1"):
        return text, None
    try:
        wanted = float(value)
    except ValueError:
        wanted = math.nan
    if name in ("precision", "recall", "fixed") and 0.0 < wanted <= 1.0:
        return name, wanted
    raise ConfigError(
        f"threshold_for is {text!r}; give samples_f1, micro_f1, precision=P, recall=R or fixed=T (P, R, T in (0, 1])"
    )
