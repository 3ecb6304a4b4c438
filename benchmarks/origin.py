"""Measures the accuracy of the origin's 16 submissions and of our model package: same rows, same metric, captions only.

    python benchmarks/origin.py --data DATA --output benchmarks/results/competition-caption-only-origin-and-hybrid.json

The rows are those of the competition's test set whose labels are known. Their pictures are not available, so a package
predicts from the caption alone.
"""

import csv
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import describe, model_option, output_option, write_json

from mlic_runtime import Predictor
from mlic_train.measure.bootstrap import bootstrap_intervals
from mlic_train.measure.metrics import compute_metrics

Decisions = npt.NDArray[np.bool_]
_COLUMNS = ("samples_f1", "samples_f1_low", "samples_f1_high", "micro_f1", "macro_f1")


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, by column name."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def as_decisions(cells: list[str], label_ids: list[str]) -> Decisions:
    """Turn cells such as "1 3" into bool (rows, labels)."""
    return np.array([[label in cell.split() for label in label_ids] for cell in cells])


def score(probabilities: npt.NDArray[np.float64], targets: Decisions, thresholds: list[float]) -> dict[str, float]:
    """Return metrics with 95 % bootstrap intervals over the rows."""
    limits = np.asarray(thresholds)
    metrics = compute_metrics(probabilities, targets, limits) | bootstrap_intervals(probabilities, targets, limits)
    return {name: metrics[name] for name in _COLUMNS}


def compare(data: Path, model: str | None) -> dict[str, Any]:
    """Score every submission and the package; `data` holds competition/ and coco18/labels.csv."""
    names = {row["LabelID"]: row["Name"] for row in read_rows(data / "coco18" / "labels.csv")}
    label_ids = list(names)
    truth = {row["ImageID"]: row["Labels"] for row in read_rows(data / "competition" / "test_labels.csv")}
    captions = {row["ImageID"]: row["Caption"] for row in read_rows(data / "competition" / "test.csv")}
    submissions = {row.pop("ImageID"): row for row in read_rows(data / "competition" / "seed_predictions.csv")}
    rows = [image for image in truth if image in submissions]
    targets = as_decisions([truth[image] for image in rows], label_ids)
    results = {}
    for run in submissions[rows[0]]:
        decisions = as_decisions([submissions[image][run] for image in rows], label_ids)
        results[f"origin: {run}"] = score(decisions.astype(np.float64), targets, [0.5] * len(label_ids))
    predictor = Predictor.load(model)
    manifest = predictor.manifest
    predictions = [predictor.predict(None, captions[image]) for image in rows]
    probabilities = np.array([[p.probabilities[names[label]] for label in label_ids] for p in predictions])
    thresholds = {label.name: label.threshold for label in manifest.labels}
    name = f"ours: {manifest.name}@{manifest.version}, caption only"
    results[name] = score(probabilities, targets, [thresholds[names[label]] for label in label_ids])
    best_first = dict(sorted(results.items(), key=lambda item: -item[1]["samples_f1"]))
    return {"rows": len(rows), "results": best_first}


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@model_option
@output_option
def main(data: Path, model: str | None, output: Path | None) -> None:
    """Compare the origin's submissions with a model package."""
    result = describe("samples F1 on the competition's labelled rows, from captions alone") | compare(data, model)
    for name, metrics in result["results"].items():
        interval = f"[{metrics['samples_f1_low']:.3f}, {metrics['samples_f1_high']:.3f}]"
        click.echo(f"{metrics['samples_f1']:.4f} {interval}  micro {metrics['micro_f1']:.4f}  {name}")
    write_json(output, result)


if __name__ == "__main__":
    main()
