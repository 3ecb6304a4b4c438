import dataclasses
import json
from pathlib import Path

import pytest

from mlic_runtime.errors import PackageError
from mlic_train.exporting.package import export_package
from mlic_train.runs.folder import TrainedModel


def test_a_tokenizer_that_the_runtime_would_refuse_is_not_exported(trained: TrainedModel, tmp_path: Path) -> None:
    """Such as one that an author put into the run folder by hand; it is looked at before the graphs are made."""
    assert trained.tokenizer is not None
    content = json.loads(trained.tokenizer)
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    hostile = dataclasses.replace(trained, tokenizer=json.dumps(content).encode())
    with pytest.raises(PackageError, match=r"tokenizer\.json has the regular expression"):
        export_package(hostile, tmp_path / "package")
    assert not (tmp_path / "package").exists()
