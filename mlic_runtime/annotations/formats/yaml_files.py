"""YAML, which says the names of classes in YOLO's data sets and on the cards of Hugging Face's."""

from typing import Any

from mlic_runtime.errors import DataError

_EXTRA = "YAML needs PyYAML: pip install 'mlic-runtime[yaml]'"


def load_yaml(text: str) -> Any:
    """Return what a document says.

    Raises:
        ValueError: it is no YAML; the message is PyYAML's.
        DataError: PyYAML is not installed.
    """
    try:
        import yaml  # here: few data sets have YAML
    except ImportError:
        raise DataError(_EXTRA) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error
