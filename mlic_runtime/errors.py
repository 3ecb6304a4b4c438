"""The tree of errors that MLIC raises on purpose."""

from collections.abc import Iterator, Mapping


class MlicError(Exception):
    """Root of every error that MLIC raises on purpose; its message is one line for the user.

    The tree (the runtime's are importable from here and from the package):

        MlicError
        ├── PackageError            a model package that cannot be used
        │   ├── ManifestError       manifest.json is missing, malformed or of an unknown schema_version
        │   ├── IntegrityError      a file is missing, additional, or differs from its recorded size or sha256
        │   └── ModelNotFoundError  no model package at that path or under that name
        ├── InputError              something given for prediction cannot be used
        │   ├── ImageError          the picture is missing, undecodable or too large
        │   └── CaptionError        the caption is not a text, or the model reads none
        ├── DataError               annotated data that cannot be read
        ├── OutputError             a result file that cannot be written, replaced or resumed
        ├── ProviderError           the execution provider is unknown or not available here
        ├── ChoiceError             the file of chosen precisions cannot be read or written
        └── mlic_train.errors.TrainError   everything that training and export raise
            ├── ConfigError         options that do not go together
            ├── CheckpointError     a run folder or checkpoint that cannot be used
            ├── ExportError         a graph that failed its parity gate; nothing was written
            └── SignatureError      a key or signature that cannot be used, or the two do not belong together

    A message says what was found, what was expected and what to do about it.
    """

    def to_dict(self) -> dict[str, str]:
        """Return the error as {"type": name of its class, "message": its line}, ready for `json.dumps`."""
        return {"type": type(self).__name__, "message": str(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> "MlicError":
        """Make the error again that `to_dict` described, perhaps in another process.

        Args:
            data: has the keys "type" and "message".

        Returns:
            An error of that class if it is in the tree and its module has been imported here; else an `MlicError`
            whose message begins with the name of the class.
        """
        kind, message = data["type"], data["message"]
        for known in _classes(MlicError):
            if known.__name__ == kind:
                return known(message)
        return MlicError(f"{kind}: {message}")


def _classes(root: type[MlicError]) -> Iterator[type[MlicError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


class PackageError(MlicError):
    """A model package that cannot be used."""


class ManifestError(PackageError):
    """manifest.json is missing, malformed or of an unknown schema_version."""


class IntegrityError(PackageError):
    """A file of the package is missing, additional, or differs from its recorded size or sha256."""


class ModelNotFoundError(PackageError):
    """No model package at that path or under that name."""


class InputError(MlicError):
    """Something given for prediction cannot be used."""


class ImageError(InputError):
    """The picture is missing, undecodable or too large."""


class CaptionError(InputError):
    """The caption is not a text, or the model reads none."""


class DataError(MlicError):
    """Annotated data that cannot be read; the message names the file and the record."""


class OutputError(MlicError):
    """A result file that cannot be written, replaced or resumed."""


class ProviderError(MlicError):
    """The execution provider is unknown or not available here."""


class ChoiceError(MlicError):
    """The file of chosen precisions cannot be read or written."""
