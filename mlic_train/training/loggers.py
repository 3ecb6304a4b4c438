"""Experiment trackers beside the run's own files: TensorBoard and MLflow, behind Fabric's `Logger`.

Fabric has a logger for TensorBoard, and none for MLflow; `MlflowLogger` is that, on MLflow's own client. Where the log
is stands in the run folder, so that a resumed run goes on with it.
"""

from __future__ import annotations  # Fabric is imported when a logger is made

import dataclasses
import importlib.util
import json
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlic_runtime.base.output_files import write_bytes
from mlic_runtime.base.override import override
from mlic_train.config import LOGGERS, read_json
from mlic_train.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

    from mlic_train.runs.folder import RunConfig, State

TENSORBOARD_FOLDER = "tensorboard"
MLFLOW_NAME = "mlflow.json"
_EXPERIMENT = "mlic-train"
_TEXT = 6000  # characters of a parameter that MLflow takes


def require_loggers(names: Sequence[str]) -> None:
    """Refuse loggers whose package is not installed.

    Raises:
        ConfigError: names the first one and what to install.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--log {name} needs {name}, which is not installed: pip install 'mlic-train[{name}]'")


class RunLog:
    """The loggers of a run: they get its options at its start, numbers after every epoch, and the final metrics.

    Args:
        folder: the run folder.
        names: some of `LOGGERS`; those that the run had before go on too.
        epoch: how many epochs the run has finished.

    Raises:
        ConfigError: a package is not installed.
        CheckpointError: the file that says where the log is cannot be read.
    """

    def __init__(self, folder: Path, names: Sequence[str], epoch: int) -> None:
        had = {"tensorboard": (folder / TENSORBOARD_FOLDER).is_dir(), "mlflow": (folder / MLFLOW_NAME).is_file()}
        names = [name for name in LOGGERS if name in names or had[name]]
        require_loggers(names)
        make: Mapping[str, Callable[[Path, int], Logger]] = {"tensorboard": _tensorboard, "mlflow": _mlflow}
        self._loggers = [make[name](folder, epoch) for name in names]
        self._new = [logger for logger, name in zip(self._loggers, names, strict=True) if not had[name]]

    def start(self, config: RunConfig) -> None:
        """Write the options of a run and what it was made of, to logs that are new."""
        parts = {"model": dataclasses.asdict(config.model), "train": dataclasses.asdict(config.train)}
        values = {
            f"{part}/{name}": value if isinstance(value, bool | int | float) else str(value)
            for part, options in {**parts, "provenance": config.provenance}.items()
            for name, value in options.items()
        }
        for logger in self._new:
            logger.log_hyperparams(values)

    def epoch(self, state: State) -> None:
        """Write the losses, the scores on val and the seconds of the last epoch."""
        row = state.history[-1]
        self._write({f"epoch/{name}": value for name, value in row.items() if name != "epoch"}, int(row["epoch"]))

    def end(self, state: State) -> None:
        """Write the final metrics by split and mode, and close the logs of a run that was not interrupted."""
        if state.finished:
            values = {f"{mode}/{name}": value for mode, found in state.metrics.items() for name, value in found.items()}
            self._write(values, state.epoch)
        for logger in self._loggers:
            logger.finalize("success" if state.finished else "aborted")

    def _write(self, values: dict[str, float], epoch: int) -> None:
        for logger in self._loggers:
            logger.log_metrics(values, epoch)
            logger.save()


def _tensorboard(folder: Path, epoch: int) -> Logger:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    # What a killed process logged of an epoch that it did not save is cut off.
    return TensorBoardLogger(folder, TENSORBOARD_FOLDER, "", default_hp_metric=False, purge_step=epoch + 1)


def _mlflow(folder: Path, epoch: int) -> Logger:
    """Begin a run of MLflow, or go on with the one that the file in the run folder names.

    MLflow's own variables say where: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.
    """
    import mlflow
    from lightning_fabric.loggers.logger import Logger
    from mlflow.tracking import MlflowClient

    class MlflowLogger(Logger):
        """Fabric's interface to a run of MLflow."""

        def __init__(self, client: MlflowClient, run_id: str) -> None:
            self._client = client
            self._run_id = run_id

        @property
        @override
        def name(self) -> str:
            return _EXPERIMENT

        @property
        @override
        def version(self) -> str:
            return self._run_id

        @override
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            for name, value in metrics.items():
                self._client.log_metric(self._run_id, name, float(value), step=step)

        @override
        def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
            values = vars(params) if isinstance(params, Namespace) else params
            for name, value in values.items():
                self._client.log_param(self._run_id, name, str(value)[:_TEXT])

        @override
        def finalize(self, status: str) -> None:
            self._client.set_terminated(self._run_id, "FINISHED" if status == "success" else "KILLED")

    file = folder / MLFLOW_NAME
    if file.is_file():
        saved = read_json(file)
        try:
            client, run_id = MlflowClient(tracking_uri=saved["tracking_uri"]), saved["run_id"]
        except KeyError as error:
            raise CheckpointError(f"{file} lacks {error}; remove it to begin a new run of MLflow") from None
        client.update_run(run_id, status="RUNNING")
        return MlflowLogger(client, run_id)
    uri = mlflow.get_tracking_uri()
    client = MlflowClient(tracking_uri=uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    run_id = client.create_run(experiment_id, run_name=folder.resolve().name).info.run_id
    write_bytes(file, (json.dumps({"tracking_uri": uri, "run_id": run_id}, indent=2) + "\n").encode())
    return MlflowLogger(client, run_id)
