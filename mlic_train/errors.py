from mlic_runtime.errors import DataError as DataError
from mlic_runtime.errors import MlicError


class TrainError(MlicError):
    """The base of all errors of training and export; `mlic_runtime.errors` shows the tree."""


class ConfigError(TrainError):
    """Options that exclude each other, or a configuration with an unknown key or a value out of range."""


class CheckpointError(TrainError):
    """A run folder or checkpoint that is missing, incomplete or made for another model."""


class ExportError(TrainError):
    """A model that cannot be exported, such as one whose graph differs from PyTorch; nothing was written."""


class SignatureError(TrainError):
    """A key or a signature of a model package that cannot be used, or two that do not belong together."""
