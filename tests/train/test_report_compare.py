import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.cli.report import report
from mlic_train.config import DataOptions, ModelConfig, TrainConfig
from mlic_train.data import fingerprint
from mlic_train.data.splits import Splits, load_splits
from mlic_train.measure.predict import Outputs
from mlic_train.models import create_model
from mlic_train.report.comparison import paired_differences
from mlic_train.runs.folder import BEST_NAME, RunConfig, State, save_checkpoint, write_run_config

SMALL = ModelConfig(image_size=16, width=16, num_layers=1, num_heads=2, hidden=16)
ROW = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.25, "val_samples_f1": 0.5, "val_map": 0.5, "seconds": 3.0}
STORED = {"rows": 12, "samples_f1": 0.5, "samples_f1_low": 0.4, "samples_f1_high": 0.6, "map": 0.25, "ece": 0.125}


def make_run(folder: Path, splits: Splits, config: ModelConfig = SMALL, *, seed: int = 0, rate: float = 0.001) -> Path:
    """A run folder of a model with random weights."""
    tokenizer = train_tokenizer(caption for record in splits.train.records for caption in record.captions)
    config = dataclasses.replace(
        config, labels=config.labels or splits.labels.names, vocab_size=vocabulary_size(tokenizer)
    )
    torch.manual_seed(seed)
    model = create_model(config)
    for mode in range(3):
        model.calibration.set(mode, torch.ones(config.num_labels), torch.linspace(1.0, 3.0, config.num_labels))
    metrics = {name: dict(STORED) for name in ("val", "val-picture-only", "val-caption-only")}
    state = State(epoch=1, history=[dict(ROW)], thresholds=[0.5] * config.num_labels, metrics=metrics)
    provenance: dict[str, str | int | float] = {"data_fingerprint": fingerprint(splits.named()), "seed": 0}
    write_run_config(folder, RunConfig(config, TrainConfig(learning_rate=rate), provenance), tokenizer)
    save_checkpoint(folder / BEST_NAME, model.state_dict(), state)
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(report, ["compare", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture(scope="module")
def runs(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    return make_run(root / "first", splits), make_run(root / "second", splits, seed=1, rate=0.5)


def test_stored_metrics_are_compared_without_data(runs: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "compare.html"
    result = call(*runs, "--output", output)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:2] == [["hyperparameter", "first", "second"], ["learning_rate", "0.001", "0.5"]]
    assert ["first", "val", "both", "0.5000", "0.2500", "0.1250"] in lines
    assert ["second", "val", "picture-only", "0.5000", "0.2500", "0.1250"] in lines
    assert result.stderr == f"wrote {output}\n"
    document = output.read_text()
    assert re.findall("<h2>(.*?)</h2>", document) == [
        "Hyperparameters that differ",
        "Metrics",
        "Differences",
        "Training",
        "Labels",
    ]
    assert "<td>learning_rate</td><td>0.001</td><td>0.5</td>" in document
    assert "0.5000\u00a0[0.400,\u00a00.600]" in document
    assert document.count("Left out: give --data") == 2
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", document)
    assert sources
    assert all(source.startswith("data:") for source in sources)


def test_a_run_does_not_differ_from_itself(runs: tuple[Path, Path], colours: Path, tmp_path: Path) -> None:
    given = [runs[0], runs[0], runs[1], "--data", colours, "--output", tmp_path / "a.html"]
    result = call(*given, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["runs"] == ["first", "first (2)", "second"]
    assert found["hyperparameters"] == {"learning_rate": {"first": "0.001", "first (2)": "0.001", "second": "0.5"}}
    by_run = {(row["run"], row["mode"]): row for row in found["metrics"]}
    assert {row["split"] for row in found["metrics"]} == {"val"}
    names = ("samples_f1", "micro_f1", "macro_f1", "map")
    for mode in ("both", "picture-only", "caption-only"):
        first, same, other = (by_run[run, mode] for run in found["runs"])
        assert not any(name.startswith("difference") for name in first)
        for name in names:
            keys = (f"difference_{name}", f"difference_{name}_low", f"difference_{name}_high")
            assert [same[key] for key in keys] == [0.0, 0.0, 0.0]
            assert other[keys[0]] == pytest.approx(other[name] - first[name], abs=1e-5)
            assert other[keys[1]] <= other[keys[2]]
    document = (tmp_path / "a.html").read_text()
    assert "Less first; in brackets" in document
    assert "F1: second" in document
    again = call(*given[:-1], tmp_path / "b.html", "--format", "csv")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "b.html").read_text() == document
    rows = list(csv.DictReader(io.StringIO(again.stdout)))
    assert len(rows) == len(found["metrics"])
    assert float(rows[1]["samples_f1"]) == found["metrics"][1]["samples_f1"]
    assert rows[0]["difference_map"] == ""


def test_the_paired_interval_is_narrower_than_chance() -> None:
    """Two models that differ in one row in ten: the other rows say nothing about their difference."""
    rng = np.random.default_rng(0)
    targets = rng.random((200, 2)) < 0.5
    targets[:, 0] |= ~targets.any(axis=1)
    yes = np.full(200, True)
    worse = np.where(rng.random((200, 1)) < 0.5, targets, ~targets)
    better = worse.copy()
    better[:20] = targets[:20]
    outputs = [Outputs(np.where(said, 2.0, -2.0).astype(np.float32), targets, yes, yes) for said in (worse, better)]
    thresholds = np.array([0.5, 0.5])
    low, high = paired_differences(outputs[0], thresholds, outputs[1], thresholds)["samples_f1"]
    assert 0 < low < high < 0.2
    assert paired_differences(outputs[1], thresholds, outputs[1], thresholds)["map"] == (0.0, 0.0)


def test_rows_that_not_every_run_can_use_are_left_out(
    splits: Splits, runs: tuple[Path, Path], colours: Path, tmp_path: Path
) -> None:
    cnn = make_run(tmp_path / "cnn", splits, dataclasses.replace(SMALL, name="cnn"))
    val = ["--train", colours / "train.csv", "--val", colours / "val.csv", "--val", colours / "captions.csv"]
    given = [*val, "--labels", colours / "labels.csv", "--output", tmp_path / "a.html"]
    result = call(runs[0], cnn, *given)
    assert result.exit_code == 0, result.output
    assert "18 rows of val are left out: not every run can use them." in result.stderr
    assert "first: Warning: this is not the data that the run was trained with" in result.stderr
    document = (tmp_path / "a.html").read_text()
    assert "<strong>18 rows of val are left out" in document
    assert "difference to first" in result.stdout
    assert [line.split()[:3] for line in result.stdout.splitlines()[-1:]] == [["cnn", "val", "both"]]


def test_runs_of_other_labels_are_refused(splits: Splits, runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", splits, dataclasses.replace(SMALL, labels=("red", "blue", "green")))
    result = call(runs[0], other, "--output", tmp_path / "a.html")
    assert result.exit_code == 1
    assert "has the labels red, blue, green" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "a.html").exists()


def test_one_run_is_nothing_to_compare(runs: tuple[Path, Path]) -> None:
    result = call(runs[0])
    assert result.exit_code == 2
    assert "give two runs or more" in result.stderr


def test_stored_metrics_of_other_data_are_warned_of(splits: Splits, runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", dataclasses.replace(splits, test=None))
    result = call(runs[0], other, "--output", tmp_path / "a.html")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("Warning: the runs were not trained and measured on the same data (fingerprints ")
    assert (
        "<strong>Warning: the runs were not trained and measured on the same data" in (tmp_path / "a.html").read_text()
    )
