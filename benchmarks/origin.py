"""The origin's 16 submissions and our model package on the same rows with the same metric, captions only.

The rows are those of the competition's test set whose labels are known; their pictures are not available, so a package
is asked for a caption-only prediction. Usage: python benchmarks/origin.py --data DATA [--model PACKAGE] [--output FILE]
"""

import csv
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from mlic_runtime import Predictor
from mlic_train.measure.bootstrap import bootstrap_intervals
from mlic_train.measure.metrics import compute_metrics

Decisions = npt.NDArray[np.bool_]
_COLUMNS = ("samples_f1", "samples_f1_low", "samples_f1_high", "micro_f1", "macro_f1")


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column name."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def as_decisions(cells: list[str], label_ids: list[str]) -> Decisions:
    """Cells such as "1 3" to bool (rows, labels)."""
    return np.array([[label in cell.split() for label in label_ids] for cell in cells])


def score(probabilities: npt.NDArray[np.float64], targets: Decisions, thresholds: list[float]) -> dict[str, float]:
    """Metrics with 95 % bootstrap intervals over the rows."""
    limits = np.asarray(thresholds)
    found = compute_metrics(probabilities, targets, limits) | bootstrap_intervals(probabilities, targets, limits)
    return {name: found[name] for name in _COLUMNS}


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
    return {
        "rows": len(rows),
        "command": "python benchmarks/origin.py --data DATA",
        "versions": {package: version(package) for package in ("onnxruntime", "tokenizers", "numpy")},
        "results": dict(sorted(results.items(), key=lambda item: -item[1]["samples_f1"])),
    }


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--model", help="A model package.  [default: the released one]")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def main(data: Path, model: str | None, output: Path | None) -> None:
    """Compare the origin's submissions with a model package."""
    found = compare(data, model)
    for name, metrics in found["results"].items():
        interval = f"[{metrics['samples_f1_low']:.3f}, {metrics['samples_f1_high']:.3f}]"
        click.echo(f"{metrics['samples_f1']:.4f} {interval}  micro {metrics['micro_f1']:.4f}  {name}")
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
