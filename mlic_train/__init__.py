"""MLIC's training package: multi-label classifiers on pictures with captions, trained and exported.

    import mlic_train

    run = mlic_train.train("my-data", output="runs/mine", epochs=20)
    package = mlic_train.export(run, output="packages/mine")

`import mlic_train` loads no torch; the names below are resolved when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import mlic_runtime  # noqa: F401 # before anything here imports onnxruntime: no reports to its makers

if TYPE_CHECKING:
    from mlic_runtime.annotations.problems import Problem, ProblemCount
    from mlic_runtime.annotations.source.members import Member
    from mlic_runtime.annotations.source.parquet import ParquetPicture
    from mlic_train.api import Run, check, export, train
    from mlic_train.base.stopwatch import Stopwatch
    from mlic_train.batches.dataset import Batch
    from mlic_train.captions.tokenizer import train_tokenizer
    from mlic_train.config import DataOptions, Distillation, ModelConfig, TrainConfig
    from mlic_train.data import Archive, LabelSet, Record
    from mlic_train.data.divide import Division
    from mlic_train.data.records import Split
    from mlic_train.data.splits import DataCheck, Splits, load_splits
    from mlic_train.data.summary import SplitSummary
    from mlic_train.errors import CheckpointError, ConfigError, DataError, ExportError, SignatureError, TrainError
    from mlic_train.exporting.archive import write_archive
    from mlic_train.exporting.package import ExportOptions, export_package
    from mlic_train.exporting.triton import export_triton
    from mlic_train.exporting.wheel import write_wheel
    from mlic_train.measure.metrics import compute_metrics
    from mlic_train.measure.thresholds import fit_thresholds
    from mlic_train.models import create_model
    from mlic_train.models.backbone import Conv3, TimmBackbone
    from mlic_train.models.base import Encoded, Explained, PictureAndCaption, PictureOnly
    from mlic_train.models.cnn import Cnn
    from mlic_train.models.heads import Logits
    from mlic_train.models.hybrid import Hybrid
    from mlic_train.models.origin_hybrid import OriginHybrid
    from mlic_train.runs.folder import RunConfig, State, TrainedModel, load_trained
    from mlic_train.training.losses import Loss, create_loss
    from mlic_train.training.run import resume_run, train_run

__version__ = "0.1.0"

__all__ = [
    "Archive",
    "Batch",
    "CheckpointError",
    "Cnn",
    "ConfigError",
    "Conv3",
    "DataCheck",
    "DataError",
    "DataOptions",
    "Distillation",
    "Division",
    "Encoded",
    "Explained",
    "ExportError",
    "ExportOptions",
    "Hybrid",
    "LabelSet",
    "Logits",
    "Loss",
    "Member",
    "ModelConfig",
    "OriginHybrid",
    "ParquetPicture",
    "PictureAndCaption",
    "PictureOnly",
    "Problem",
    "ProblemCount",
    "Record",
    "Run",
    "RunConfig",
    "SignatureError",
    "Split",
    "SplitSummary",
    "Splits",
    "State",
    "Stopwatch",
    "TimmBackbone",
    "TrainConfig",
    "TrainError",
    "TrainedModel",
    "check",
    "compute_metrics",
    "create_loss",
    "create_model",
    "export",
    "export_package",
    "export_triton",
    "fit_thresholds",
    "load_splits",
    "load_trained",
    "resume_run",
    "train",
    "train_run",
    "train_tokenizer",
    "write_archive",
    "write_wheel",
]

# Where each name is defined, below this package.
_MODULES = {
    "api": ("Run", "check", "export", "train"),
    "base.stopwatch": ("Stopwatch",),
    "batches.dataset": ("Batch",),
    "captions.tokenizer": ("train_tokenizer",),
    "config": ("DataOptions", "Distillation", "ModelConfig", "TrainConfig"),
    "data": ("Archive", "LabelSet", "Member", "ParquetPicture", "Problem", "ProblemCount", "Record"),
    "data.records": ("Split",),
    "data.divide": ("Division",),
    "data.splits": ("DataCheck", "Splits", "load_splits"),
    "data.summary": ("SplitSummary",),
    "errors": ("CheckpointError", "ConfigError", "DataError", "ExportError", "SignatureError", "TrainError"),
    "exporting.archive": ("write_archive",),
    "exporting.package": ("ExportOptions", "export_package"),
    "exporting.triton": ("export_triton",),
    "exporting.wheel": ("write_wheel",),
    "measure.metrics": ("compute_metrics",),
    "measure.thresholds": ("fit_thresholds",),
    "models": ("create_model",),
    "models.backbone": ("Conv3", "TimmBackbone"),
    "models.cnn": ("Cnn",),
    "models.base": ("Encoded", "Explained", "PictureAndCaption", "PictureOnly"),
    "models.heads": ("Logits",),
    "models.hybrid": ("Hybrid",),
    "models.origin_hybrid": ("OriginHybrid",),
    "runs.folder": ("RunConfig", "State", "TrainedModel", "load_trained"),
    "training.losses": ("Loss", "create_loss"),
    "training.run": ("resume_run", "train_run"),
}
_ORIGIN = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ORIGIN[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
