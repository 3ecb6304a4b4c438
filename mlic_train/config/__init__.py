"""Options: what can be chosen, its range, its default, and what follows from it."""

from .data import DataOptions
from .files import read_json, read_toml, to_toml
from .model import (
    CROSS,
    LATE,
    LSTM,
    MEAN,
    MODEL_DEFAULTS,
    MODELS,
    ORIGIN_BACKBONE,
    ORIGIN_HYBRID,
    OWN_TEXT_ENCODERS,
    ModelConfig,
)
from .options import Options, read_configs, read_options, resolve, resolve_configs, usual_options
from .preset import PRESETS, for_whom
from .run import LOGGERS, FirstWeights, RunOptions
from .teacher import TEACHER_SEES, Distillation
from .train import LOSSES, TrainConfig, threshold_goal

__all__ = [
    "CROSS",
    "LATE",
    "LOGGERS",
    "LOSSES",
    "LSTM",
    "MEAN",
    "MODELS",
    "MODEL_DEFAULTS",
    "ORIGIN_BACKBONE",
    "ORIGIN_HYBRID",
    "OWN_TEXT_ENCODERS",
    "PRESETS",
    "TEACHER_SEES",
    "DataOptions",
    "Distillation",
    "FirstWeights",
    "ModelConfig",
    "Options",
    "RunOptions",
    "TrainConfig",
    "for_whom",
    "read_configs",
    "read_json",
    "read_options",
    "read_toml",
    "resolve",
    "resolve_configs",
    "threshold_goal",
    "to_toml",
    "usual_options",
]
