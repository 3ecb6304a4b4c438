"""Runs side by side: how they differ in their hyperparameters and metrics, and whether by more than chance."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.progress import log_line
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import ConfigError, DataError
from mlic_train.measure.bootstrap import weighted_metrics
from mlic_train.measure.collect import usable_records
from mlic_train.measure.predict import Outputs
from mlic_train.measure.scored import scored_rows
from mlic_train.runs.folder import TrainedModel, load_trained

from .label_metrics import Number, resampled
from .measurement import Measurement, as_seen, choose_split, data_warning, measure
from .run_facts import hyperparameters, run_name
from .run_tables import SCORES
from .text import shorten

Floats = npt.NDArray[np.floating]
_WIDEST = 32  # characters of a cell on a terminal


@dataclass(frozen=True)
class Result:
    """The metrics of one run on one split in one mode; `differences` to the first run where both were measured."""

    run: str
    split: str
    mode: str
    metrics: Mapping[str, float]
    differences: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, by their names; `measurements` is empty where the stored metrics are compared."""

    runs: Mapping[str, TrainedModel]
    results: Sequence[Result]
    measurements: Mapping[str, Measurement]
    warnings: Sequence[str]

    def hyperparameters(self) -> dict[str, dict[str, object]]:
        """Return {name: {run: value}} of those that differ; a run without one has ""."""
        values = {run: hyperparameters(trained.config) for run, trained in self.runs.items()}
        names = dict.fromkeys(name for of_run in values.values() for name in of_run)
        table = {name: {run: of_run.get(name, "") for run, of_run in values.items()} for name in names}
        return {name: by_run for name, by_run in table.items() if len({str(value) for value in by_run.values()}) > 1}


def compare_runs(folders: Sequence[Path], data: DataOptions | None, *, split: str) -> Comparison:
    """Compare runs by the metrics in their checkpoints or, with data, measured anew on the rows that all can use.

    Args:
        folders: run folders; the others are compared with the first.
        data: where the data is; None compares stored metrics.
        split: of the data.

    Raises:
        ConfigError: the runs have other labels.
        DataError: the data cannot be used, or has no row that all runs can use.
        CheckpointError: a folder has no finished epoch.
    """
    loaded = [load_trained(folder) for folder in folders]
    for other in loaded[1:]:
        _check_same_labels(loaded[0], other)
    runs = dict(zip(_names(folders), loaded, strict=True))
    if data is None:
        comparison = Comparison(runs, _stored_results(runs), {}, _fingerprint_warnings(runs))
    else:
        splits = load_splits(data, runs=folders)
        for line in () if splits.division is None else splits.division.notes:
            log_line(line)
        seen = {name: as_seen(trained, splits) for name, trained in runs.items()}
        warnings = [f"{name}: {text}" for name in runs if (text := data_warning(runs[name], seen[name])) is not None]
        rows = _common_rows(runs, seen, split)
        left_out = len(choose_split(splits, split).records) - len(next(iter(rows.values())))
        if left_out:
            warnings.append(f"{left_out} rows of {split} are left out: not every run can use them.")
        measurements = {name: measure(trained, rows[name]) for name, trained in runs.items()}
        comparison = Comparison(runs, _measured_results(measurements, split), measurements, warnings)
    for warning in comparison.warnings:
        log_line(warning)
    return comparison


def paired_differences(
    first: Outputs, first_thresholds: Floats, other: Outputs, other_thresholds: Floats
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of `other` less `first` by metric; both are scored on the same draws of their rows.

    Rows that are hard for both move both metrics and not their difference: the interval is narrower than two intervals
    that are compared with each other.
    """
    labelled = scored_rows(first.targets, first.known)
    targets, known = first.targets[labelled], first.known_in(labelled)
    probabilities = [sigmoid(outputs.logits[labelled]) for outputs in (first, other)]
    parts: dict[str, list[npt.NDArray[np.float64]]] = {}
    for weights in resampled(len(targets)):
        before = weighted_metrics(probabilities[0], targets, first_thresholds, weights, known)
        after = weighted_metrics(probabilities[1], targets, other_thresholds, weights, known)
        for name in before:
            parts.setdefault(name, []).append(after[name] - before[name])
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    quantiles = {name: np.quantile(values[~np.isnan(values)], (0.025, 0.975)) for name, values in joined.items()}
    return {name: (round(float(low), 5), round(float(high), 5)) for name, (low, high) in quantiles.items()}


def flat(result: Result) -> dict[str, str | float | None]:
    """Return a result as one row of data: run, split, mode, the metrics, and differences as `difference_...`."""
    row: dict[str, str | float | None] = {"run": result.run, "split": result.split, "mode": result.mode}
    row |= result.metrics
    for name, number in result.differences.items():
        key = f"difference_{name}"
        row |= {key: number.value, f"{key}_low": number.low, f"{key}_high": number.high}
    return row


def as_json(comparison: Comparison) -> str:
    """Return {"runs": [name], "hyperparameters": {name: {run: value}}, "metrics": [row of `flat`]} as JSON."""
    value: dict[str, Any] = {
        "runs": list(comparison.runs),
        "hyperparameters": comparison.hyperparameters(),
        "metrics": [flat(result) for result in comparison.results],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return one row of `flat` per run, split and mode as CSV."""
    rows = [flat(result) for result in comparison.results]
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_table(comparison: Comparison) -> str:
    """Return hyperparameters that differ, metrics and differences in aligned columns."""
    blocks = []
    different = comparison.hyperparameters()
    if different:
        rows = [[name, *by_run.values()] for name, by_run in different.items()]
        blocks.append(_aligned(["hyperparameter", *comparison.runs], rows))
    keys = [*SCORES, "ece"]
    rows = [
        [
            result.run,
            result.split,
            result.mode,
            *(f"{result.metrics[key]:.4f}" if key in result.metrics else "" for key in keys),
        ]
        for result in comparison.results
    ]
    blocks.append(_aligned(["run", "split", "mode", *keys], rows))
    rows = [
        [result.run, result.split, result.mode, *(result.differences.get(key, "") for key in SCORES)]
        for result in comparison.results
        if result.differences
    ]
    if rows:
        title = f"difference to {next(iter(comparison.runs))}, with its 95 % interval\n"
        blocks.append(title + _aligned(["run", "split", "mode", *SCORES], rows))
    return "\n".join(blocks)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = ([shorten(str(cell).replace("\u00a0", " "), _WIDEST) for cell in row] for row in rows)
    lines = [list(header), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def _stored_results(runs: Mapping[str, TrainedModel]) -> list[Result]:
    results = []
    for name, trained in runs.items():
        for key, metrics in trained.state.metrics.items():
            split, _, mode = key.partition("-")
            results.append(Result(name, split, mode or "both", metrics))
    order = list(dict.fromkeys((result.split, result.mode) for result in results))
    return sorted(results, key=lambda result: order.index((result.split, result.mode)))  # runs of a split side by side


def _measured_results(measurements: Mapping[str, Measurement], split: str) -> list[Result]:
    first, *others = measurements
    modes = dict.fromkeys(mode for measurement in measurements.values() for mode in measurement.metrics)
    return [
        Result(
            name,
            split,
            mode,
            measurements[name].metrics[mode],
            _differences(measurements[first], measurements[name], mode) if name in others else {},
        )
        for mode in modes
        for name in measurements
        if mode in measurements[name].metrics
    ]


def _differences(first: Measurement, other: Measurement, mode: str) -> dict[str, Number]:
    """Return the metrics of `other` less those of `first`, with paired intervals; none for a mode of one of them."""
    if mode not in first.metrics:
        return {}
    intervals = paired_differences(first.calibrated[mode], first.thresholds, other.calibrated[mode], other.thresholds)
    before, after = first.metrics[mode], other.metrics[mode]
    return {
        name: Number(round(after[name] - before[name], 5), low, high, difference=True)
        for name, (low, high) in intervals.items()
    }


def _fingerprint_warnings(runs: Mapping[str, TrainedModel]) -> list[str]:
    known = {str(trained.config.provenance.get("data_fingerprint", "unknown"))[:12] for trained in runs.values()}
    if len(known) == 1:
        return []
    return [
        f"Warning: the runs were not trained and measured on the same data (fingerprints {', '.join(sorted(known))}); "
        "give --data to measure them on the same rows."
    ]


def _common_rows(runs: Mapping[str, TrainedModel], seen: Mapping[str, Splits], split: str) -> dict[str, list[Record]]:
    """Return for each run, in order, the rows that all runs can use, as that run sees them."""
    usable = {
        name: {
            (record.file, record.number): record
            for record in usable_records(choose_split(seen[name], split).records, trained.config.model)
        }
        for name, trained in runs.items()
    }
    shared = set.intersection(*(set(rows) for rows in usable.values()))
    if not shared:
        raise DataError(f"the split {split!r} has no row that all of {', '.join(runs)} can use; compare fewer runs")
    return {name: [record for key, record in rows.items() if key in shared] for name, rows in usable.items()}


def _check_same_labels(first: TrainedModel, other: TrainedModel) -> None:
    if other.config.model.labels != first.config.model.labels:
        raise ConfigError(
            f"{other.folder} has the labels {', '.join(other.config.model.labels)}, {first.folder} has "
            f"{', '.join(first.config.model.labels)}; compare runs of the same labels in the same order"
        )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' own names; one that occurs again gets a number."""
    seen: Counter[str] = Counter()
    names = []
    for name in map(run_name, folders):
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names
