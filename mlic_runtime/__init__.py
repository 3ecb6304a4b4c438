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
    from .bench import BenchBackend, BenchReport, benchmark
    from .catalog import ListedModel, list_models
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
    from .manifest import Manifest
    from .package import ModelPackage, bundled_models, load_package
    from .prediction import Prediction
    from .predictor import Predictor
    from .ray_predictor import RayPredictor
    from .rows import Row, RowError, RowReader, open_rows

__version__ = "0.1.0"

# From 1.29 on, ONNX Runtime reports to its makers what it runs, over the network, with an identifier that it keeps in
# the user's cache folder (its Privacy.md). It reads this when it is imported; 0 in the environment asks for reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BenchBackend",
    "BenchReport",
    "CaptionError",
    "ChoiceError",
    "ImageError",
    "InputError",
    "IntegrityError",
    "ListedModel",
    "Manifest",
    "ManifestError",
    "MlicError",
    "ModelNotFoundError",
    "ModelPackage",
    "OutputError",
    "PackageError",
    "Prediction",
    "Predictor",
    "ProviderError",
    "RayPredictor",
    "Row",
    "RowError",
    "RowReader",
    "__version__",
    "benchmark",
    "bundled_models",
    "list_models",
    "load_package",
    "open_rows",
]

_MODULES = {
    "bench": ("BenchBackend", "BenchReport", "benchmark"),
    "catalog": ("ListedModel", "list_models"),
    "errors": tuple(name for name in __all__ if name.endswith("Error") and name != "RowError"),
    "manifest": ("Manifest",),
    "package": ("ModelPackage", "bundled_models", "load_package"),
    "prediction": ("Prediction",),
    "predictor": ("Predictor",),
    "ray_predictor": ("RayPredictor",),
    "rows": ("Row", "RowError", "RowReader", "open_rows"),
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
