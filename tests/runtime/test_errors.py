"""Errors as data, for records and for other processes."""

import json

import pytest

from mlic_runtime import errors
from mlic_runtime.errors import ImageError, MlicError


def test_an_error_is_a_type_and_a_message() -> None:
    assert ImageError("it is empty").to_dict() == {"type": "ImageError", "message": "it is empty"}


def test_every_error_of_the_runtime_survives_json() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, MlicError)]
    assert len(kinds) > 8
    for kind in kinds:
        again = MlicError.from_dict(json.loads(json.dumps(kind("found é: expected e").to_dict())))
        assert type(again) is kind
        assert str(again) == "found é: expected e"


def test_a_type_that_is_not_in_the_tree_is_named() -> None:
    again = MlicError.from_dict({"type": "SystemExit", "message": "stop"})
    assert type(again) is MlicError
    assert str(again) == "SystemExit: stop"


def test_a_type_is_looked_up_in_the_whole_tree_whichever_class_reads_it() -> None:
    assert type(ImageError.from_dict({"type": "OutputError", "message": "full"})) is errors.OutputError


@pytest.mark.parametrize("data", [{"type": "ImageError"}, {"message": "it is empty"}])
def test_both_keys_are_needed(data: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        MlicError.from_dict(data)
