"""Run MLIC model packages (picture + caption -> labels) with ONNX Runtime; no PyTorch.

    from mlic_runtime import Predictor

    predictor = Predictor.load()
    print(predictor.predict("beach.jpg", "A dog runs on the beach").labels)

Every name below is loaded when it is first used, so that importing the package costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlic_runtime.bench.benchmark import BenchBackend, BenchReport, Comparison, Timing, benchmark
    from mlic_runtime.bench.inputs import BenchOptions
    from mlic_runtime.caption.tokenizer import CaptionTokenizer
    from mlic_runtime.graph.opening import OpenedGraph
    from mlic_runtime.graph.session import GraphEvidence, GraphSession
    from mlic_runtime.package.catalog import ListedModel, list_models
    from mlic_runtime.package.manifest import (
        AgreementSpec,
        EvidenceSpec,
        FileSpec,
        ImageSpec,
        LabelSpec,
        LatencySpec,
        Manifest,
        ParitySpec,
        TextSpec,
    )
    from mlic_runtime.package.model_package import ModelPackage, bundled_models, load_package
    from mlic_runtime.package.storage import Content, Storage
    from mlic_runtime.predict.evidence import Evidence
    from mlic_runtime.predict.prediction import Prediction, PredictionOptions
    from mlic_runtime.predict.predictor import Predictor
    from mlic_runtime.ray.predictor import RayPredictor
    from mlic_runtime.rows.reader import Row, RowError, RowReader, open_rows
    from mlic_runtime.version import __version__

    from .errors import (
        CaptionError,
        ChoiceError,
        ImageError,
        InputError,
        IntegrityError,
        ManifestError,
        MlicError,
        ModelNotFoundError,
        OutputError,
        PackageError,
        ProviderError,
    )

# From 1.29 on, ONNX Runtime reports to its makers what it runs, over the network, with an identifier that it keeps in
# the user's cache folder (see its Privacy.md). It reads this variable when it is imported; 0 turns the reports on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AgreementSpec",
    "BenchBackend",
    "BenchOptions",
    "BenchReport",
    "CaptionError",
    "CaptionTokenizer",
    "ChoiceError",
    "Comparison",
    "Content",
    "Evidence",
    "EvidenceSpec",
    "FileSpec",
    "GraphEvidence",
    "GraphSession",
    "ImageError",
    "ImageSpec",
    "InputError",
    "IntegrityError",
    "LabelSpec",
    "LatencySpec",
    "ListedModel",
    "Manifest",
    "ManifestError",
    "MlicError",
    "ModelNotFoundError",
    "ModelPackage",
    "OpenedGraph",
    "OutputError",
    "PackageError",
    "ParitySpec",
    "Prediction",
    "PredictionOptions",
    "Predictor",
    "ProviderError",
    "RayPredictor",
    "Row",
    "RowError",
    "RowReader",
    "Storage",
    "TextSpec",
    "Timing",
    "__version__",
    "benchmark",
    "bundled_models",
    "list_models",
    "load_package",
    "open_rows",
]

# Where each name is defined, below this package.
_MODULES = {
    "bench.benchmark": ("BenchBackend", "BenchReport", "Comparison", "Timing", "benchmark"),
    "bench.inputs": ("BenchOptions",),
    "caption.tokenizer": ("CaptionTokenizer",),
    "errors": tuple(name for name in __all__ if name.endswith("Error") and name != "RowError"),
    "graph.opening": ("OpenedGraph",),
    "graph.session": ("GraphEvidence", "GraphSession"),
    "package.catalog": ("ListedModel", "list_models"),
    "package.manifest": (
        "AgreementSpec",
        "EvidenceSpec",
        "FileSpec",
        "ImageSpec",
        "LabelSpec",
        "LatencySpec",
        "Manifest",
        "ParitySpec",
        "TextSpec",
    ),
    "package.model_package": ("ModelPackage", "bundled_models", "load_package"),
    "package.storage": ("Content", "Storage"),
    "predict.evidence": ("Evidence",),
    "predict.prediction": ("Prediction", "PredictionOptions"),
    "predict.predictor": ("Predictor",),
    "ray.predictor": ("RayPredictor",),
    "rows.reader": ("Row", "RowError", "RowReader", "open_rows"),
    "version": ("__version__",),
}
_ORIGIN = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _ORIGIN.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
