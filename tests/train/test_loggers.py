import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlic_train.cli.train import train
from mlic_train.runs.folder import load_trained

SMALL = ["--image-size", "16", "--batch-size", "8", "--text-batch-size", "8", "--device", "cpu", "--patience", "0"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


class FakeClient:
    """What a server of MLflow keeps, by its address."""

    servers: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, tracking_uri: str) -> None:
        self.runs = self.servers.setdefault(tracking_uri, {})
        self.experiments: dict[str, str] = {}

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return f"id of {name}"

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        run_id = str(len(self.runs))
        self.runs[run_id] = {"experiment": experiment_id, "name": run_name, "params": {}, "metrics": {}, "status": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"].append(status)

    set_terminated = update_run

    def log_param(self, run_id: str, name: str, value: str) -> None:
        assert name not in self.runs[run_id]["params"]
        self.runs[run_id]["params"][name] = value

    def log_metric(self, run_id: str, name: str, value: float, step: int) -> None:
        self.runs[run_id]["metrics"].setdefault(name, []).append((step, value))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-in for MLflow at the border of its package."""
    package, tracking = ModuleType("mlflow"), ModuleType("mlflow.tracking")
    package.__spec__ = SimpleNamespace(name="mlflow")  # type: ignore[assignment] # find_spec wants any
    package.get_tracking_uri = lambda: "memory:"  # type: ignore[attr-defined]
    tracking.MlflowClient = FakeClient  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    monkeypatch.setattr(FakeClient, "servers", {"memory:": {}})
    return FakeClient.servers["memory:"]


def test_both_trackers_get_options_epochs_and_final_metrics_and_go_on(
    colours: Path, tmp_path: Path, mlflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    given = ["--data", colours, "--output", folder, *SMALL]
    result = run(*given, "--epochs", "1", "--log", "tensorboard", "--log", "mlflow")
    assert result.exit_code == 0, result.output
    again = run(*given, "--epochs", "2", "--resume")  # the logs go on without being asked for
    assert again.exit_code == 0, again.output
    state = load_trained(folder).state
    history = json.loads(run(*given, "--epochs", "2", "--resume", "--format", "json").stdout)["history"]

    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    losses = [(event.step, round(event.value, 4)) for event in found.Scalars("epoch/train_loss")]
    assert losses == [(row["epoch"], round(row["train_loss"], 4)) for row in history]
    assert {"epoch/val_loss", "epoch/val_map", "val/samples_f1", "test-caption-only/map"} <= set(
        found.Tags()["scalars"]
    )
    assert found.Scalars("test/samples_f1")[-1].value == pytest.approx(state.metrics["test"]["samples_f1"])

    (tracked,) = mlflow.values()
    assert (tracked["experiment"], tracked["name"]) == ("id of mlic-train", "run")
    assert tracked["params"]["train/batch_size"] == "8"
    assert tracked["params"]["model/name"] == "hybrid"
    assert [step for step, _ in tracked["metrics"]["epoch/train_loss"]] == [1, 2]
    assert tracked["metrics"]["test/samples_f1"][-1] == (2, state.metrics["test"]["samples_f1"])
    assert tracked["status"] == ["FINISHED", "RUNNING", "FINISHED", "RUNNING", "FINISHED"]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    (tmp_path / "data").mkdir()  # with nothing in it, which nobody gets to notice
    result = run("--data", tmp_path / "data", "--output", tmp_path / "run", "--log", name)
    assert result.exit_code == 1
    assert (
        result.stderr == f"Error: --log {name} needs {name}, which is not installed: pip install 'mlic-train[{name}]'\n"
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(colours: Path) -> None:
    result = run("--data", colours, "--log", "paper")
    assert result.exit_code == 2
    assert "'paper' is not one of 'tensorboard', 'mlflow'" in result.stderr


def test_a_run_without_trackers_writes_none(colours: Path, tmp_path: Path) -> None:
    assert run("--data", colours, "--output", tmp_path / "run", *SMALL, "--epochs", "1").exit_code == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "tokenizer.json", "options.toml", "best.safetensors", "last.safetensors"}
