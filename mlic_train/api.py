"""Train, evaluate and export in three calls, as in a notebook."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlic_runtime.base.option import element_type, nearest
from mlic_runtime.base.progress import log_line
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_train.base.stopwatch import Stopwatch
from mlic_train.config import DataOptions, resolve
from mlic_train.config.options import OWNERS, changed_options, field_name
from mlic_train.data.frames import is_frame, write_frame
from mlic_train.data.splits import DataCheck, check_data, load_splits
from mlic_train.errors import ConfigError, DataError, TrainError
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.measure.collect import collect_splits, score
from mlic_train.runs.find import default_package
from mlic_train.runs.folder import load_trained
from mlic_train.training.loggers import require_loggers
from mlic_train.training.run import read_rows, resume_run, start_run

Data = str | Path | DataOptions | Any  # Any: a DataFrame, see `data.frames`
Log = Callable[[str], None]
_OF_THE_COMMAND = ("check", "list_all", "output_format")


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: the run folder.
        labels: what the model predicts, in the order of its outputs.
        thresholds: the decision threshold of each label.
        metrics: by split and mode: {"val": {"samples_f1": ..., ...}, "val-picture-only": ..., "test": ...}.
    """

    folder: Path
    labels: tuple[str, ...]
    thresholds: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Read a run folder.

        Raises:
            CheckpointError: it holds no trained model.
        """
        trained = load_trained(Path(folder))
        labels, state = trained.config.model.labels, trained.state
        return cls(Path(folder), labels, dict(zip(labels, state.thresholds, strict=False)), state.metrics)

    def evaluate(self, data: Data) -> dict[str, dict[str, float]]:
        """Return the metrics, with bootstrap intervals, on val and test of some data, by split and mode.

        Args:
            data: see `train`.

        Raises:
            DataError: the data cannot be used, or has other labels than the model.
        """
        trained, splits = load_trained(self.folder), load_splits(data_options(data), runs=[self.folder])
        if splits.labels.names != self.labels:
            raise DataError(f"the data has the labels {splits.labels.names}, the model {self.labels}; give labels_file")
        outputs = collect_splits(trained, trained.run, splits)
        return {name: score(rows, trained.state.thresholds) for name, rows in outputs.items()}


def train(data: Data, output: str | Path | None = None, *, log: Log = log_line, **options: Any) -> Run:
    """Train a model.

    Args:
        data: a folder, a file with rows, shards, or a `DataOptions`; or a DataFrame of pandas or polars, whose columns
            are found as in a table, and whose pictures lie below the working directory, or the folder `images`.
        output: the run folder; None means runs/MODEL.
        log: called with lines of progress; on stderr, if nothing is given.
        options: options of mlic-train by name, for instance `model="cnn"`, `epochs=20`, or `resume=True`.

    Raises:
        ConfigError: an unknown option, or options that do not go together.
        MlicError: see `load_splits`, `train_run` and `resume_run`.
        TrainError: training was interrupted; `resume=True` goes on.
    """
    stopwatch = Stopwatch()
    given = {field_name(name): value for name, value in options.items()}
    for name, value in given.items():
        if isinstance(value, str | Path) and element_type(OWNERS[name], name)[1] != 1:
            given[name] = (value,)  # one file where there may be several
    for name in _OF_THE_COMMAND:
        if name in given:
            raise ConfigError(f"{name} is for the command mlic-train; leave it out")
    given |= {} if output is None else {"output": output}
    settings = resolve({**changed_options(data_options(data)), **given})
    require_loggers(settings.run.loggers)
    settings, splits, resume = read_rows(settings)
    folder, device = settings.folder, settings.run.device
    for line in splits.lines():
        log(line)
    if resume:
        state = resume_run(
            folder,
            splits,
            wanted=settings.wanted,
            device=device,
            loggers=settings.run.loggers,
            log=log,
            stopwatch=stopwatch,
        )
    else:
        state = start_run(settings, folder, splits, log=log, stopwatch=stopwatch)
    if not state.finished:
        raise TrainError(f"interrupted in epoch {state.epoch + 1}; the same call with resume=True goes on")
    return Run.open(folder)


def check(data: Data) -> DataCheck:
    """Return what is in some data, and all that is wrong with it, as `mlic-train --check` shows it.

    Args:
        data: see `train`.

    Raises:
        ConfigError: no training data was given.
        DataError: the labels cannot be read, or the data cannot be found.
    """
    return check_data(data_options(data))


def export(
    run: Run | str | Path,
    output: str | Path | None = None,
    *,
    data: Data | None = None,
    log: Log = log_line,
    **options: Any,
) -> ModelPackage:
    """Export a run as a model package.

    Args:
        run: the run, or its folder.
        output: the package's folder; None means `package` inside the run folder.
        data: measures the graphs anew, and fits reduced precisions; None takes the metrics of the checkpoint.
        log: called with lines of progress; on stderr, if nothing is given.
        options: fields of `ExportOptions`, for instance `precisions=("fp32", "int8")`.

    Raises:
        ConfigError: an unknown option.
        CheckpointError: the folder holds no trained model.
        ExportError: see `export_package`.
    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    known = [field.name for field in dataclasses.fields(ExportOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}; {nearest(name, known)}")
    package = default_package(folder) if output is None else Path(output)
    splits = None if data is None else load_splits(data_options(data), runs=[folder])
    for line in splits.lines() if splits is not None else ():
        log(line)
    export_package(load_trained(folder), package, ExportOptions(**options), splits=splits, log=log)
    return load_package(package)


def data_options(data: Data) -> DataOptions:
    """Return the options that say where some data is; see `train`.

    Raises:
        DataError: a DataFrame cannot be used.
        OutputError: a DataFrame cannot be kept in the user's cache.
    """
    if isinstance(data, DataOptions):
        return data
    if is_frame(data):
        return DataOptions(folder=write_frame(data), images=Path.cwd())
    if not isinstance(data, str | Path):
        raise DataError(
            f"found a {type(data).__name__} as data; expected a folder, a file, a DataFrame or DataOptions (collect a "
            "LazyFrame first)"
        )
    return DataOptions(folder=Path(data))
