"""`mlic-report compare`: how runs differ, in their hyperparameters, in what they reach, and by more than luck?"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlic_runtime.predict.prediction import sigmoid
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import ConfigError, DataError
from mlic_train.measure.bootstrap import weighted_metrics
from mlic_train.measure.collect import usable_records
from mlic_train.measure.predict import Outputs
from mlic_train.runs.checkpoint import Trained, load_trained

from .facts import hyperparameters, run_name
from .labels import resampled
from .measured import Measured, Progress, as_seen, choose_split, data_warning, measure
from .parts import SCORES

Floats = npt.NDArray[np.floating]
_WIDEST = 32


@dataclass(frozen=True)
class Difference:
    """A metric of a run less that of the first run on the same rows, with the 95 % interval of the paired bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f}\u00a0[{self.low:+.3f},\u00a0{self.high:+.3f}]"


@dataclass(frozen=True)
class Result:
    """The metrics of one run on one split in one mode; `differences` where they were measured together."""

    run: str
    split: str
    mode: str
    metrics: Mapping[str, float]
    differences: Mapping[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, by their names; `measured` is empty where the stored metrics are compared."""

    runs: Mapping[str, Trained]
    results: Sequence[Result]
    measured: Mapping[str, Measured]
    warnings: Sequence[str]

    def hyperparameters(self) -> dict[str, dict[str, object]]:
        """{name: {run: value}} of those that differ; a run that has no such thing has ""."""
        values = {run: hyperparameters(trained.config) for run, trained in self.runs.items()}
        names = dict.fromkeys(name for found in values.values() for name in found)
        table = {name: {run: found.get(name, "") for run, found in values.items()} for name in names}
        return {name: by_run for name, by_run in table.items() if len({str(value) for value in by_run.values()}) > 1}


def compare_runs(
    folders: Sequence[Path],
    data: DataOptions | None,
    *,
    split: str,
    progress: Progress,
    log: Callable[[str], None],
) -> Comparison:
    """Compare runs by the metrics in their checkpoints or, with data, measured anew on the rows that all can use.

    Args:
        folders: run folders; the first is what the others are compared with.
        data: where the data is; None compares stored metrics.
        split: of the data.
        progress: makes the progress bar.
        log: called with warnings.

    Raises:
        ConfigError: the runs have other labels.
        DataError: the data cannot be used, or has no row that all runs can use.
        CheckpointError: a folder has no finished epoch.
    """
    loaded = [load_trained(folder) for folder in folders]
    for other in loaded[1:]:
        _same_labels(loaded[0], other)
    runs = dict(zip(_names(folders), loaded, strict=True))
    if data is None:
        warnings = _other_data(runs)
        for warning in warnings:
            log(warning)
        return Comparison(runs, _stored(runs), {}, warnings)
    splits = load_splits(data)
    seen = {name: as_seen(trained, splits) for name, trained in runs.items()}
    found = [(name, data_warning(trained, seen[name])) for name, trained in runs.items()]
    warnings = [f"{name}: {warning}" for name, warning in found if warning is not None]
    rows = _common_rows(runs, seen, split)
    left_out = len(choose_split(splits, split).records) - len(next(iter(rows.values())))
    if left_out:
        warnings.append(f"{left_out} rows of {split} are left out: not every run can use them.")
    for warning in warnings:
        log(warning)
    measured = {name: measure(trained, rows[name], progress) for name, trained in runs.items()}
    return Comparison(runs, _measured_results(measured, split), measured, warnings)


def paired_differences(
    first: Outputs, first_thresholds: Floats, other: Outputs, other_thresholds: Floats
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `other` less `first` by metric: both are scored on the same draws of their rows.

    Rows that are hard for both move both, and so not the difference; two intervals that overlap say less.
    """
    labelled = first.targets.any(axis=1)
    targets = first.targets[labelled]
    probabilities = [sigmoid(outputs.logits[labelled]) for outputs in (first, other)]
    parts: dict[str, list[npt.NDArray[np.float64]]] = {}
    for weights in resampled(len(targets)):
        before = weighted_metrics(probabilities[0], targets, first_thresholds, weights)
        after = weighted_metrics(probabilities[1], targets, other_thresholds, weights)
        for name in before:
            parts.setdefault(name, []).append(after[name] - before[name])
    result = {}
    for name, found in parts.items():
        low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
        result[name] = (round(float(low), 5), round(float(high), 5))
    return result


def flat(result: Result) -> dict[str, str | float]:
    """A result as one row of data: run, split, mode, the metrics, and as `difference_...` what it differs by."""
    row: dict[str, str | float] = {"run": result.run, "split": result.split, "mode": result.mode, **result.metrics}
    for name, found in result.differences.items():
        row |= {
            f"difference_{name}": found.value,
            f"difference_{name}_low": found.low,
            f"difference_{name}_high": found.high,
        }
    return row


def as_json(comparison: Comparison) -> str:
    """{"runs": [name], "hyperparameters": {name: {run: value}}, "metrics": [row of `flat`]}."""
    value: dict[str, Any] = {
        "runs": list(comparison.runs),
        "hyperparameters": comparison.hyperparameters(),
        "metrics": [flat(result) for result in comparison.results],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """One row of `flat` per run, split and mode."""
    rows = [flat(result) for result in comparison.results]
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_table(comparison: Comparison) -> str:
    """What differs and what it gives, in aligned columns."""
    blocks = []
    different = comparison.hyperparameters()
    if different:
        rows = [[name, *by_run.values()] for name, by_run in different.items()]
        blocks.append(_aligned(["hyperparameter", *comparison.runs], rows))
    keys = [*SCORES, "ece"]
    rows = [
        [result.run, result.split, result.mode, *(_four(result.metrics.get(key)) for key in keys)]
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


def _stored(runs: Mapping[str, Trained]) -> list[Result]:
    results = []
    for name, trained in runs.items():
        for key, metrics in trained.state.metrics.items():
            split, _, mode = key.partition("-")
            results.append(Result(name, split, mode or "both", metrics))
    order = {key: index for index, key in enumerate(dict.fromkeys((result.split, result.mode) for result in results))}
    return sorted(results, key=lambda result: order[result.split, result.mode])  # the runs of a split side by side


def _measured_results(measured: Mapping[str, Measured], split: str) -> list[Result]:
    (first_name, first), *_ = measured.items()
    results = []
    for mode in dict.fromkeys(mode for found in measured.values() for mode in found.metrics):
        for name, found in measured.items():
            if mode in found.metrics:
                shared = name != first_name and mode in first.metrics
                results.append(
                    Result(name, split, mode, found.metrics[mode], _differences(first, found, mode) if shared else {})
                )
    return results


def _differences(first: Measured, other: Measured, mode: str) -> dict[str, Difference]:
    intervals = paired_differences(first.calibrated[mode], first.thresholds, other.calibrated[mode], other.thresholds)
    before, after = first.metrics[mode], other.metrics[mode]
    return {name: Difference(round(after[name] - before[name], 5), *interval) for name, interval in intervals.items()}


def _other_data(runs: Mapping[str, Trained]) -> list[str]:
    """A warning where stored metrics are of other data."""
    known = {str(trained.config.provenance.get("data_fingerprint", "unknown"))[:12] for trained in runs.values()}
    if len(known) == 1:
        return []
    return [
        f"Warning: the runs were not trained and measured on the same data (fingerprints {', '.join(sorted(known))}); "
        "give --data to measure them on the same rows."
    ]


def _common_rows(runs: Mapping[str, Trained], seen: Mapping[str, Splits], split: str) -> dict[str, list[Record]]:
    """The rows that all runs can use, in order, as each of them is given them."""
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


def _same_labels(first: Trained, other: Trained) -> None:
    if other.config.model.labels != first.config.model.labels:
        raise ConfigError(
            f"{other.folder} has the labels {', '.join(other.config.model.labels)}, {first.folder} has "
            f"{', '.join(first.config.model.labels)}; compare runs of the same labels in the same order"
        )


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names; a name that is there already gets a number."""
    seen: Counter[str] = Counter()
    names = []
    for folder in folders:
        name = run_name(folder)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _short(cell: str) -> str:
    """For a terminal: an interval with plain spaces, a long text without its end."""
    plain = cell.replace("\u00a0", " ")
    return plain if len(plain) <= _WIDEST else plain[: _WIDEST - 1] + "…"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [list(header), *([_short(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
