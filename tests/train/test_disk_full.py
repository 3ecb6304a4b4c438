"""Writes that fail in the middle; see the fixture `room`."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from mlic_runtime.errors import OutputError
from mlic_runtime.package.model_package import load_package
from mlic_train.batches.features import build_cache
from mlic_train.cli.export import export
from mlic_train.cli.train import train
from mlic_train.config import DataOptions
from mlic_train.data.splits import load_splits
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, State, TrainedModel, load_checkpoint, save_checkpoint

Room = Callable[[int], AbstractContextManager[None]]

SMALL = ["--image-size", "16", "--width", "16", "--num-layers", "1", "--num-heads", "2", "--device", "cpu"]
SMALL += ["--preset", "none"]
SMALL += ["--batch-size", "18", "--text-batch-size", "18", "--calibration", "none"]


def run(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(result: Result, path: Path) -> bool:
    """Whether the command ended with one line about that file."""
    last = result.stderr.splitlines()[-1]
    return result.exit_code == 1 and last.startswith(f"Error: cannot write {path}: ") and "too large" in last


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_stays_whole(share: float, tmp_path: Path, room: Room) -> None:
    path = tmp_path / "run" / LAST_NAME
    save_checkpoint(path, {"weight": torch.zeros(5000)}, State(epoch=1))
    older = contents(tmp_path)
    with room(int(share * path.stat().st_size)), pytest.raises(OutputError, match=r"cannot write .*last"):
        save_checkpoint(path, {"weight": torch.ones(5000)}, State(epoch=2))
    assert contents(tmp_path) == older
    assert list(path.parent.iterdir()) == [path]


def test_training_keeps_its_last_checkpoint_and_goes_on_from_it(colours: Path, tmp_path: Path, room: Room) -> None:
    given = ["--data", colours, *SMALL]
    assert run(train, *given, "--output", tmp_path / "whole", "--epochs", 2).exit_code == 0
    folder = tmp_path / "run"
    assert run(train, *given, "--output", folder, "--epochs", 1).exit_code == 0
    older = contents(folder)
    with room((folder / LAST_NAME).stat().st_size // 2):
        assert refused(run(train, *given, "--output", folder, "--epochs", 2, "--resume"), folder / LAST_NAME)
    found = contents(folder)
    assert found.keys() == older.keys()
    assert found[LAST_NAME] == older[LAST_NAME]
    assert run(train, *given, "--output", folder, "--epochs", 2, "--resume").exit_code == 0
    for name in (BEST_NAME, LAST_NAME):
        expected = load_checkpoint(tmp_path / "whole" / name).model
        for key, tensor in load_checkpoint(folder / name).model.items():
            torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_an_exported_package_and_its_single_file_stay_whole(
    share: float, cnn: TrainedModel, tmp_path: Path, room: Room
) -> None:
    """The single file is larger than any file of the package, so that there can be room for all but it."""
    output = tmp_path / "packages" / "cnn"
    given = ["--model", "cnn", "--run", cnn.folder, "--output", output, "--single-file"]
    assert run(export, *given).exit_code == 0
    older = contents(output.parent)
    with room(int(share * max(len(content) for name, content in older.items() if name.endswith(".onnx")))):
        assert refused(run(export, *given, "--package-version", "0.2.0"), output)
    assert contents(output.parent) == older
    with room(len(older["cnn.mlic"]) - 1):
        assert refused(run(export, *given, "--package-version", "0.2.0"), output.with_suffix(".mlic"))
    assert contents(output.parent)["cnn.mlic"] == older["cnn.mlic"]
    assert load_package(output).manifest.version == "0.2.0"
    assert sorted(path.name for path in output.parent.iterdir()) == ["cnn", "cnn.mlic"]


def test_a_feature_cache_is_refused_before_it_is_written(
    cnn: TrainedModel, colours: Path, tmp_path: Path, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing to mapped memory that the disk has no room for would end the process by a signal, without a word."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    records = load_splits(DataOptions(colours)).val.records
    folder = tmp_path / "caches"
    given = (cnn.model, records, cnn.config.model.image_spec, [(False, False)], folder)
    with room(200), pytest.raises(OutputError, match=r"cannot write .*features-\w+\.float16: File too large"):
        build_cache(*given)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse, raising=False)
        with pytest.raises(OutputError, match="No space left on device"):
            build_cache(*given)
    assert list(folder.iterdir()) == []
    assert build_cache(*given).path.exists()
