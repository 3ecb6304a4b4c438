"""Frozen configuration: checked once at the door, written to config.json beside every checkpoint."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlic_runtime.package.manifest import INTERPOLATIONS, RESIZE_MODES, ImageSpec, TextSpec
from mlic_train.errors import ConfigError

ORIGIN_HYBRID = "origin_hybrid"
MODELS = ("cnn", "hybrid", ORIGIN_HYBRID)
ORIGIN_BACKBONE = "conv3"
LOSSES = ("bce", "multilabel_soft_margin", "softmax_bce", "asymmetric")
MONITORS = ("samples_f1", "map")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")
FUSIONS = ("late", "transformer")
CALIBRATIONS = ("none", "temperature", "platt")
TEACHER_SEES = ("both", "caption", "picture")
MIXED_PRECISIONS = ("none", "fp16", "bf16")
# What `mlic-train` takes for a model where nothing is said. The origin saw every row whole and tuned no threshold;
# `max_length` counts characters there.
MODEL_DEFAULTS: Mapping[str, Mapping[str, str | float]] = {
    ORIGIN_HYBRID: {
        "hidden": 1024,
        "max_length": 256,
        "loss": "multilabel_soft_margin",
        "drop_caption": 0.0,
        "drop_picture": 0.0,
        "calibration": "none",
        "threshold_for": "fixed=0.5",
    }
}
LSTM = "lstm"
MEAN = "mean"
OWN_TEXT_ENCODERS = (LSTM, MEAN)  # any other name is where a Hugging Face encoder is

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """What it takes to build a model and to feed it.

    `backbone` is "conv3" (the origin's three convolutions) or a timm model name. `mean` and `std` are per RGB channel
    in units of the 0..1 picture; None takes those of the backbone. `width`, `num_layers` and `num_heads` are of the
    Transformer encoder; `hidden` is the width of the fully connected layer of `cnn` and `origin_hybrid`. `dropout`
    acts before the output layer (and on picture features), `encoder_dropout` inside the Transformer encoder,
    `word_dropout` is the probability that a token's embedding is left out for a step, `drop_path` the stochastic depth
    of a timm backbone (Huang et al. 2016). `fusion` "late" adds the logits of picture and caption, "transformer" adds
    what label queries that start from both read in the caption. `text_encoder` is "lstm", "mean" (a caption is the
    mean of its token embeddings, a baseline without order) or where a Hugging Face encoder was loaded from,
    `text_config` then its architecture (the content of its config.json), so that the run folder needs nothing else.
    """

    name: str = "hybrid"
    labels: tuple[str, ...] = ()
    image_size: int = 224
    interpolation: str = "bilinear"
    resize: str = "stretch"
    backbone: str = ORIGIN_BACKBONE
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    hidden: int = 128
    width: int = 128
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.5
    encoder_dropout: float = 0.1
    word_dropout: float = 0.0
    drop_path: float = 0.0
    fusion: str = "transformer"
    text_encoder: str = LSTM
    text_config: Mapping[str, Any] | None = None
    vocab_size: int = 8000
    max_length: int = 64
    softmax_output: bool = False

    def __post_init__(self) -> None:
        _one_of("model", self.name, MODELS)
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("resize", self.resize, RESIZE_MODES)
        _in_range("image_size", self.image_size, 16, 4096)
        _one_of("fusion", self.fusion, FUSIONS)
        for name in ("dropout", "encoder_dropout", "word_dropout", "drop_path"):
            _in_range(name, getattr(self, name), 0.0, 0.95)
        _in_range("vocab_size", self.vocab_size, 2, 10_000_000)
        _in_range("max_length", self.max_length, 1, 8192)
        for name in ("hidden", "width", "num_layers", "num_heads"):
            _in_range(name, getattr(self, name), 1, 8192)
        if self.width % (2 * self.num_heads):
            raise ConfigError(
                f"width {self.width} must be a multiple of 2 x num_heads ({2 * self.num_heads}): "
                "every head gets an equal share and the LSTM has two directions"
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != 3:
                raise ConfigError(f"{name} needs 3 numbers (red, green, blue), found {len(value)}")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(f"std must be greater than 0, found {min(self.std)}")

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.labels)

    @property
    def reads_captions(self) -> bool:
        """False for a model that looks at the picture only."""
        return self.name != "cnn"

    @property
    def image_spec(self) -> ImageSpec:
        """How the runtime prepares a picture for this model."""
        return ImageSpec(self.image_size, self.image_size, self.interpolation, self.resize)

    @property
    def text_spec(self) -> TextSpec | None:
        """How the runtime prepares a caption for this model; None where it reads none."""
        return TextSpec(self.max_length, self.vocab_size) if self.reads_captions else None


@dataclass(frozen=True)
class TrainConfig:
    """How a model is fitted.

    `batch_size` counts pictures; `text_batch_size` counts rows of a batch of caption-only rows and
    `text_rows_per_epoch` how many such rows an epoch draws (0 takes all). With `shuffle_shards` an epoch goes through
    the shards that many at a time, in random order, and mixes only their pictures (0: mixes all).
    `drop_caption` and `drop_picture` are the
    probabilities in [0, 1] that a row that has both loses one for a step: that is how "no caption" and
    "no picture" are learned. `schedule` "cosine" lets the learning rate fall to 0 along half a cosine after a short
    warm-up (Loshchilov and Hutter 2017). `gradient_clip` bounds the gradient's norm (0: off). With `ema_decay` d
    above 0 an exponential moving average of the weights is kept, w <- d * w + (1 - d) * new, and that is what is
    validated and released. `patience` is the number of epochs without a better validation score after which training
    stops (0: never).
    `backbone_learning_rate` is used where the backbone is not frozen; None means the same as `learning_rate`;
    `text_learning_rate` likewise for a Hugging Face caption encoder. Every
    stage further from the output gets `layer_decay` times the rate of the one after it; the stem and the first
    `freeze_stages` stages are not trained.

    `auxiliary_weight` is the weight of the losses of the picture's and the caption's own logits. `balance` b weighs a
    label's positives by (negatives / positives) ** b (0: not at all). `accumulate` batches make one optimizer step;
    `mixed_precision` runs the forward pass in half precision. `color_jitter` is the largest relative change of
    brightness, contrast and saturation; `rand_augment` the magnitude in 1..30 of two random operations (Cubuk et al.
    2020; 0: off); `random_erasing` the probability of a grey rectangle (Zhong et al. 2020); `mixup` the alpha of the
    Beta distribution that mixes the pictures of rows without caption (Zhang et al. 2018; 0: off). `calibration` and
    `threshold_for` ("samples_f1", "micro_f1", "precision=P" or "recall=R") are fitted on the validation split;
    thresholds of "fixed=T" are T.
    `empty_odds` says how much rarer, as a factor on the odds, rows with none of the labels are in use than in training;
    it becomes part of the calibration (see `models.calibration`). With
    a teacher, `teacher_weight` is the teacher's share in the targets of rows that have labels of their own.
    """

    loss: str = "bce"
    label_smoothing: float = 0.0
    optimizer: str = "adam"
    schedule: str = "constant"
    learning_rate: float = 0.001
    backbone_learning_rate: float | None = None
    text_learning_rate: float | None = None
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    batch_size: int = 32
    text_batch_size: int = 128
    text_rows_per_epoch: int = 0
    shuffle_shards: int = 0
    epochs: int = 10
    patience: int = 3
    monitor: str = "samples_f1"
    seed: int = 0
    freeze_backbone: bool = False
    freeze_batch_statistics: bool = False
    cache_features: bool = False
    drop_caption: float = 0.25
    drop_picture: float = 0.1
    horizontal_flip: bool = True
    vertical_flip: bool = False
    random_crop: float = 1.0
    color_jitter: float = 0.0
    rand_augment: int = 0
    random_erasing: float = 0.0
    mixup: float = 0.0
    auxiliary_weight: float = 0.0
    balance: float = 0.0
    accumulate: int = 1
    mixed_precision: str = "none"
    freeze_stages: int = 0
    layer_decay: float = 1.0
    calibration: str = "platt"
    empty_odds: float = 1.0
    threshold_for: str = "samples_f1"
    teacher_weight: float = 0.0
    workers: int = 0

    def __post_init__(self) -> None:
        _one_of("loss", self.loss, LOSSES)
        _one_of("monitor", self.monitor, MONITORS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _in_range("gradient_clip", self.gradient_clip, 0.0, 1e6)
        _in_range("learning_rate", self.learning_rate, 0.0, 10.0)
        _in_range("weight_decay", self.weight_decay, 0.0, 10.0)
        _one_of("mixed_precision", self.mixed_precision, MIXED_PRECISIONS)
        _one_of("calibration", self.calibration, CALIBRATIONS)
        for name in ("batch_size", "text_batch_size", "epochs", "accumulate"):
            _in_range(name, getattr(self, name), 1, 10_000_000)
        for name in ("patience", "seed", "workers", "text_rows_per_epoch", "shuffle_shards", "freeze_stages"):
            _in_range(name, getattr(self, name), 0, 2**32)
        for name in ("color_jitter", "random_erasing", "balance", "layer_decay", "teacher_weight"):
            _in_range(name, getattr(self, name), 0.0, 1.0)
        _in_range("rand_augment", self.rand_augment, 0, 30)
        _in_range("mixup", self.mixup, 0.0, 10.0)
        _in_range("auxiliary_weight", self.auxiliary_weight, 0.0, 100.0)
        _in_range("empty_odds", self.empty_odds, 0.001, 1.0)
        threshold_goal(self.threshold_for)
        _in_range("label_smoothing", self.label_smoothing, 0.0, 0.5)
        _in_range("ema_decay", self.ema_decay, 0.0, 0.99999)
        for name in ("drop_caption", "drop_picture"):
            _in_range(name, getattr(self, name), 0.0, 1.0)
        _in_range("random_crop", self.random_crop, 0.05, 1.0)
        if self.drop_caption + self.drop_picture > 1.0:
            raise ConfigError(f"drop_caption + drop_picture is {self.drop_caption + self.drop_picture}; at most 1")
        if self.cache_features and not self.freeze_backbone:
            raise ConfigError("--cache-features needs --freeze-backbone: features of a changing backbone are stale")
        changing = [n for n in ("color_jitter", "rand_augment", "random_erasing", "mixup") if getattr(self, n) > 0]
        changing += ["random_crop"] if self.random_crop < 1.0 else []
        if self.cache_features and changing:
            option = "--" + changing[0].replace("_", "-")
            raise ConfigError(f"--cache-features does not go with {option}: every variant has other features")


def threshold_goal(text: str) -> tuple[str, float | None]:
    """Read `TrainConfig.threshold_for`: (goal, None) for an F1, else ("precision", P), ("recall", R) or ("fixed", T).

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


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """The configuration as JSON-ready data."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], data: Mapping[str, Any], where: str | Path) -> T:
    """Build a configuration dataclass from parsed JSON.

    Raises:
        ConfigError: an unknown key, or a value that the dataclass refuses; the message names `where`.
    """
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type] # kind is always a dataclass
    unknown = sorted(set(data) - names)
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r} for {kind.__name__}; known: {', '.join(sorted(names))}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
    except TypeError as error:
        raise ConfigError(f"{where}: {kind.__name__} cannot be built: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: the file cannot be read or does not hold a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object, found {type(data).__name__}")
    return data


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of: {', '.join(allowed)}")


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; it must be in [{low}, {high}]")
