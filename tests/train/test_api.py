"""Training, evaluation and export as a notebook calls them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlic_train
from mlic_runtime import ModelPackage, Predictor
from mlic_train import ConfigError, DataError, DataOptions, Run, TrainError
from mlic_train.runs.folder import load_trained
from mlic_train.training import fit

PAGE = Path(__file__).parents[2] / "docs" / "train" / "python.md"
SMALL: dict[str, Any] = {"image_size": 16, "width": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 60}
SMALL |= {
    "preset": "none",
    "epochs": 1,
    "batch_size": 12,
    "text_batch_size": 12,
    "learning_rate": 0.01,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def trained_run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mlic_train.train(colours, output=tmp_path_factory.mktemp("runs") / "run", **SMALL)


def test_a_run_says_what_was_learned(trained_run: Run, colours: Path) -> None:
    state = load_trained(trained_run.folder).state
    assert trained_run.labels == ("red", "green", "blue")
    assert list(trained_run.thresholds.values()) == state.thresholds
    assert trained_run.metrics == state.metrics
    measured = trained_run.evaluate(colours)
    assert set(measured) == set(trained_run.metrics)
    for split, metrics in measured.items():
        assert metrics["samples_f1"] == pytest.approx(trained_run.metrics[split]["samples_f1"], abs=1e-6)
    assert Run.open(str(trained_run.folder)) == trained_run


@pytest.mark.parametrize("as_path", [True, False])
def test_a_run_or_its_folder_is_exported(trained_run: Run, colours: Path, tmp_path: Path, as_path: bool) -> None:
    run = str(trained_run.folder) if as_path else trained_run
    package = mlic_train.export(run, tmp_path / "package", data=colours, version="1.2.3")
    assert isinstance(package, ModelPackage)
    assert (package.manifest.version, package.path) == ("1.2.3", tmp_path / "package")
    assert set(Predictor.load(package.path).predict(None, "a red wall").probabilities) == set(trained_run.labels)


def test_a_package_lies_inside_its_run_unless_something_else_is_said(trained_run: Run) -> None:
    assert mlic_train.export(trained_run).path == trained_run.folder / "package"


def test_options_are_the_command_lines_and_the_data_may_be_files(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    others: dict[str, Any] = {"val": str(colours / "val.csv"), "labels": colours / "labels.csv"}
    run = mlic_train.train(colours / "train.csv", folder, model="cnn", images=colours / "images", **others, **SMALL)
    assert load_trained(folder).config.model.name == "cnn"
    assert list(run.metrics) == ["val"]
    data = DataOptions(train=(colours / "train.csv",), val=(colours / "val.csv",), images=colours / "images")
    with pytest.raises(DataError, match=r"the data has the labels .*; give labels_file"):
        run.evaluate(data)


def test_a_run_is_resumed(trained_run: Run, colours: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    longer = mlic_train.train(colours, trained_run.folder, resume=True, **{**SMALL, "epochs": 2})
    assert load_trained(longer.folder).config.train.epochs == 2

    class Interrupted:
        def __enter__(self) -> Any:
            return lambda: True

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(fit, "interrupts", Interrupted)
    with pytest.raises(TrainError, match="interrupted in epoch 1; the same call with resume=True goes on"):
        mlic_train.train(colours, tmp_path / "stopped", **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'?"),
        ({"check": True}, "check is for the command mlic-train; leave it out"),
        ({"epochs": "3"}, "epochs must be int, found '3'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(colours: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mlic_train.train(colours, **options)
    assert str(caught.value) == message


def test_a_wrong_option_of_export_is_one_clear_line(trained_run: Run) -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'precision'; did you mean 'precisions'\?"):
        mlic_train.export(trained_run, precision="int8")


def test_the_documents_code_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    code, output = re.findall(r"```(?:python|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == output.splitlines()
