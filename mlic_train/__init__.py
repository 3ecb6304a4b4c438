"""MLIC's training package: multi-label classifiers on pictures with captions, trained and exported.

`import mlic_train` loads no torch; the names below are resolved when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

import mlic_runtime  # noqa: F401 # before anything here imports onnxruntime: no reports to its makers

if TYPE_CHECKING:
    from .archive import write_archive
    from .checkpoint import Trained, load_trained
    from .config import ModelConfig, TrainConfig
    from .errors import CheckpointError, ConfigError, DataError, ExportError, TrainError
    from .evaluate import compute_metrics
    from .export import export_package
    from .losses import create_loss
    from .models import create_model
    from .splits import DataOptions, load_splits
    from .thresholds import fit_thresholds
    from .tokenizer import train_tokenizer
    from .training import resume_run, train_run
    from .triton import export_triton
    from .wheel import write_wheel

__version__ = "0.1.0"

_MODULES = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "DataOptions": "splits",
    "ExportError": "errors",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "TrainError": "errors",
    "Trained": "checkpoint",
    "compute_metrics": "evaluate",
    "create_loss": "losses",
    "create_model": "models",
    "export_package": "export",
    "export_triton": "triton",
    "fit_thresholds": "thresholds",
    "load_splits": "splits",
    "load_trained": "checkpoint",
    "resume_run": "training",
    "train_run": "training",
    "train_tokenizer": "tokenizer",
    "write_archive": "archive",
    "write_wheel": "wheel",
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
