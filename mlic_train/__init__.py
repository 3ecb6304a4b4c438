"""MLIC's training package: multi-label classifiers on pictures with captions, trained and exported.

`import mlic_train` loads no torch; the names below are resolved when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

import mlic_runtime  # noqa: F401 # before anything here imports onnxruntime: no reports to its makers

if TYPE_CHECKING:
    from mlic_train.captions.tokenizer import train_tokenizer
    from mlic_train.config import DataOptions, ModelConfig, TrainConfig
    from mlic_train.data.splits import load_splits
    from mlic_train.exporting.archive import write_archive
    from mlic_train.exporting.package import export_package
    from mlic_train.exporting.triton import export_triton
    from mlic_train.exporting.wheel import write_wheel
    from mlic_train.measure.metrics import compute_metrics
    from mlic_train.measure.thresholds import fit_thresholds
    from mlic_train.runs.checkpoint import Trained, load_trained
    from mlic_train.training.losses import create_loss
    from mlic_train.training.run import resume_run, train_run

    from .errors import CheckpointError, ConfigError, DataError, ExportError, TrainError
    from .models import create_model

__version__ = "0.1.0"

_MODULES = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "DataOptions": "config",
    "ExportError": "errors",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "TrainError": "errors",
    "Trained": "runs.checkpoint",
    "compute_metrics": "measure.metrics",
    "create_loss": "training.losses",
    "create_model": "models",
    "export_package": "exporting.package",
    "export_triton": "exporting.triton",
    "fit_thresholds": "measure.thresholds",
    "load_splits": "data.splits",
    "load_trained": "runs.checkpoint",
    "resume_run": "training.run",
    "train_run": "training.run",
    "train_tokenizer": "captions.tokenizer",
    "write_archive": "exporting.archive",
    "write_wheel": "exporting.wheel",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DataOptions",
    "ExportError",
    "ModelConfig",
    "TrainConfig",
    "TrainError",
    "Trained",
    "compute_metrics",
    "create_loss",
    "create_model",
    "export_package",
    "export_triton",
    "fit_thresholds",
    "load_splits",
    "load_trained",
    "resume_run",
    "train_run",
    "train_tokenizer",
    "write_archive",
    "write_wheel",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
