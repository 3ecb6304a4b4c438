from mlic_runtime.errors import MlicError


class TrainError(MlicError):
    """Everything that training and export raise on purpose; the tree is drawn in `mlic_runtime.errors`."""


class DataError(TrainError):
    """Training data that cannot be read; the message names the file and the record."""


class ConfigError(TrainError):
    """Options that do not go together, or a configuration with an unknown key or a value out of range."""


class CheckpointError(TrainError):
    """A run folder or checkpoint that is missing, incomplete or made for something else."""


class ExportError(TrainError):
    """The exported graph does not agree with the PyTorch model; nothing was written."""


class SignatureError(TrainError):
    """A key or a signature of a model package that cannot be used, or the two do not belong together."""
