"""Measures a released package again on the shared data: every graph, with picture and caption and with one of them.

    python benchmarks/release.py --data DATA --output benchmarks/results/release-hybrid.json

The probabilities come from the runtime (`Predictor`). DATA holds coco18/ and competition/. Thresholds and calibration
are those of the package; nothing is fitted. The table goes to stdout, and to --table. Where the package says what it
measured itself, the largest difference is reported.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import describe, markdown_table, model_option, output_option, write_json
from origin import as_decisions, read_rows

from mlic_runtime import Prediction, Predictor, Row
from mlic_runtime.cli.command import MlicCommand
from mlic_runtime.graph.opening import runnable_precisions
from mlic_runtime.package.manifest import Manifest
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_train.measure.bootstrap import average_precision, bootstrap_intervals
from mlic_train.measure.metrics import compute_metrics

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_MODES = {"": "picture and caption", "-picture-only": "picture only", "-caption-only": "caption only"}
_LIBRARIES = ("onnxruntime", "tokenizers", "numpy", "pillow", "torchmetrics")
_COMPETITION = "competition-caption-only"
_COMPARED = ("samples_f1", "micro_f1", "macro_f1", "map", "ece", "false_labels_per_negative")


@dataclass(frozen=True)
class Split:
    """N rows of the data.

    Attributes:
        images: their ids.
        pictures: their files; None where there is none.
        captions: None where there is none.
        targets: bool (N, L), in the order of the package's labels.
    """

    images: tuple[str, ...]
    pictures: tuple[Path | None, ...]
    captions: tuple[str | None, ...]
    targets: Bools

    def in_mode(self, mode: str) -> tuple[list[Row], Bools]:
        """Return the rows as the model is given them, and which of the split's rows these are, bool (N)."""
        pictures = (None,) * len(self.images) if mode == "-caption-only" else self.pictures
        captions = (None,) * len(self.images) if mode == "-picture-only" else self.captions
        given = np.array([p is not None or c is not None for p, c in zip(pictures, captions, strict=True)])
        rows = [
            Row(picture, caption, name=image)
            for image, picture, caption, used in zip(self.images, pictures, captions, given, strict=True)
            if used
        ]
        return rows, given


def read_split(
    file: Path, pictures: Path | None, targets: Mapping[str, str], names: Mapping[str, str], manifest: Manifest
) -> Split:
    """Read a table ImageID,Labels,Caption, or the rows of ImageID,Caption that `targets` {image: label ids} has.

    `names` is {label id: name}; without a folder of pictures no row has one.

    Raises:
        click.ClickException: the package has other labels than the data, or a picture is missing.
    """
    wanted = {label.name for label in manifest.labels}
    if wanted != set(names.values()):
        differs = sorted(wanted ^ set(names.values()))
        raise click.ClickException(
            f"{manifest.title} and the data differ in the label {differs[0]!r}; give a model of these labels"
        )
    ids = {name: label_id for label_id, name in names.items()}
    rows = [row for row in read_rows(file) if not targets or row["ImageID"] in targets]
    paths = [None if pictures is None else pictures / row["ImageID"] for row in rows]
    if lost := [path for path in paths if path is not None and not path.is_file()]:
        raise click.ClickException(f"{file}: {len(lost)} of {len(rows)} pictures are missing, such as {lost[0]}")
    cells = [targets[row["ImageID"]] if targets else row["Labels"] for row in rows]
    return Split(
        tuple(row["ImageID"] for row in rows),
        tuple(paths),
        tuple(row["Caption"].strip() or None for row in rows),
        as_decisions(cells, [ids[label.name] for label in manifest.labels]),
    )


def predict(predictor: Predictor, rows: Sequence[Row]) -> Floats:
    """Return the probabilities of N rows, float64 (N, L), in the order of the manifest's labels."""
    found: list[list[float]] = []
    for row, prediction in zip(rows, predictor.predict_rows(rows, on_error="stop"), strict=True):
        assert isinstance(prediction, Prediction), row
        found.append([prediction.probabilities[label] for label in predictor.labels])
    return np.array(found)


def score(probabilities: Floats, targets: Bools, thresholds: Floats) -> dict[str, float]:
    """Return metrics with 95 % bootstrap intervals."""
    return compute_metrics(probabilities, targets, thresholds) | bootstrap_intervals(probabilities, targets, thresholds)


def label_table(probabilities: Floats, targets: Bools, thresholds: Floats, labels: Sequence[str]) -> dict[str, Any]:
    """Return for every label: positives, average precision (None without positives), missed and false rows.

    These are over the labelled rows; `false_on_negatives` counts those without any label.
    """
    labelled = targets.any(axis=1)
    decisions = probabilities >= thresholds
    table = {}
    for i, name in enumerate(labels):
        truth, chosen = targets[labelled, i], decisions[labelled, i]
        area = average_precision(probabilities[labelled, i].astype(np.float32), truth, np.ones((len(truth), 1)))[0]
        table[name] = {
            "positives": int(truth.sum()),
            "ap": None if np.isnan(area) else round(float(area), 5),
            "missed": int((truth & ~chosen).sum()),
            "false": int((chosen & ~truth).sum()),
            "false_on_negatives": int(decisions[~labelled, i].sum()),
        }
    return table


def listed_rows(file: Path, images: Sequence[str]) -> Bools:
    """Return which images a list names, bool (N); each of its lines is a file, an id without ending, or COCO's number.

    Raises:
        click.ClickException: it names none of them.
    """
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    wanted = {_key(line) for line in lines if line and not line.startswith("#")}
    found = np.array([_key(image) in wanted for image in images])
    if not found.any():
        raise click.ClickException(
            f"{file} names none of the {len(images)} test rows; expected a line each, such as {images[0]}"
        )
    if other := len(wanted) - len({_key(image) for image in np.array(images)[found]}):
        click.echo(f"{file}: {other} of {len(wanted)} names are no test row", err=True)
    return found


def _key(name: str) -> str:
    stem = re.sub(r"\.\w+$", "", name.rsplit("/", 1)[-1])
    number = re.search(r"(?:^|_)0*(\d+)$", stem)  # COCO_val2014_000000000136 too
    return number[1] if number else stem


def measure_graph(
    package: ModelPackage, precision: str, splits: Mapping[str, Split], listed: tuple[str, Bools] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics of one graph by split and mode, and of every label in each mode of test."""
    predictor = Predictor.load(package.with_graph(precision), precision=precision)
    thresholds = np.array([label.threshold for label in package.manifest.labels])
    metrics, by_label = {}, {}
    for name, split in splits.items():
        for mode in _MODES if name != _COMPETITION else ("",):
            rows, given = split.in_mode(mode)
            if not rows:
                continue
            probabilities, targets = predict(predictor, rows), split.targets[given]
            metrics[name + mode] = score(probabilities, targets, thresholds)
            if name == "test":
                by_label[name + mode] = label_table(probabilities, targets, thresholds, predictor.labels)
                for group, chosen in _groups(listed, given):
                    metrics[f"test{mode}, {group}"] = score(probabilities[chosen], targets[chosen], thresholds)
            click.echo(f"{precision}: {name}{mode}, {len(rows)} rows", err=True)
    return metrics, by_label


def _groups(listed: tuple[str, Bools] | None, given: Bools) -> Iterator[tuple[str, Bools]]:
    if listed is not None:
        name, rows = listed
        yield f"rows of {name}", rows[given]
        yield f"rows not of {name}", ~rows[given]


def differences(
    measured: Mapping[str, Mapping[str, float]], stored: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Return how many metrics the package has too, and the largest difference from those."""
    found = [
        (round(abs(measured[split][name] - value), 5), f"{name} of {split}")
        for split, metrics in stored.items()
        if split in measured
        for name, value in metrics.items()
        if name in _COMPARED and name in measured[split]
    ]
    largest, where = max(found, default=(0.0, ""))
    return {"numbers": len(found), "largest": largest, "of": where if largest else ""}


def _agreement(difference: Mapping[str, Any]) -> str:
    if not difference["numbers"]:
        return "the manifest has no metrics of these splits"
    if not difference["largest"]:
        return f"all of {difference['numbers']} metrics are as in the manifest"
    return "of {numbers} metrics in the manifest the most different is {of}, by {largest}".format(**difference)


def as_markdown(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a line for each graph, split and mode."""
    header = [
        "graph",
        "rows",
        "samples F1",
        "micro F1",
        "macro F1",
        "mAP",
        "calibration error",
        "false labels per negative",
    ]
    lines = []
    for precision, splits in results.items():
        for split, metrics in splits.items():
            falsely = metrics.get("false_labels_per_negative")
            lines.append(
                [
                    f"`{precision}`",
                    f"{_title(split)} ({metrics['rows']:.0f})",
                    _interval(metrics, "samples_f1"),
                    f"{metrics['micro_f1']:.3f}",
                    f"{metrics['macro_f1']:.3f}",
                    _interval(metrics, "map"),
                    f"{metrics['ece']:.3f}",
                    "" if falsely is None else f"{falsely:.2f} ({metrics['negatives']:.0f})",
                ]
            )
    return markdown_table(header, lines)


def _title(split: str) -> str:
    name, comma, group = split.partition(", ")
    for mode in ("-picture-only", "-caption-only"):
        if name.endswith(mode):
            return f"{name.removesuffix(mode)}, {_MODES[mode]}{comma}{group}"
    return f"{name}, {_MODES['']}{comma}{group}"


def _interval(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f} [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"


@click.command(cls=MlicCommand)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="The shared data."
)
@model_option
@click.option("--precision", "precisions", multiple=True, help="Measure only this graph. Repeat.  [default: all]")
@click.option(
    "--rows",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A list of test pictures, one a line, such as those of val2017: they and the others are also scored apart.",
)
@output_option
@click.option("--table", type=click.Path(dir_okay=False, path_type=Path), help="Write the table as Markdown.")
def main(
    data: Path,
    model: str | None,
    precisions: tuple[str, ...],
    rows: Path | None,
    output: Path | None,
    table: Path | None,
) -> None:
    """Measure a package on coco18's val and test rows and on the competition's rows whose labels are known."""
    package = load_package(model)
    manifest = package.manifest
    coco, competition = data / "coco18", data / "competition"
    names = {row["LabelID"]: row["Name"] for row in read_rows(coco / "labels.csv")}
    known = {row["ImageID"]: row["Labels"] for row in read_rows(competition / "test_labels.csv")}
    splits = {name: read_split(coco / f"{name}.csv", coco / "images", {}, names, manifest) for name in ("val", "test")}
    splits[_COMPETITION] = read_split(competition / "test.csv", None, known, names, manifest)
    listed = None if rows is None else (rows.stem, listed_rows(rows, splits["test"].images))
    for name in precisions:
        manifest.graph_name(name)
    chosen = [name for name in manifest.precisions if not precisions or name in precisions]
    here = [name for name in chosen if name in runnable_precisions(manifest)]
    for name in chosen:
        if name not in here:
            click.echo(
                f"{name}: not measured; it needs VNNI or the ARM dot product, and this processor has neither", err=True
            )
    measured = {name: measure_graph(package, name, splits, listed) for name in here}
    agreement = {name: differences(metrics, manifest.metrics.get(name, {})) for name, (metrics, _) in measured.items()}
    for name, difference in agreement.items():
        click.echo(f"{name}: {_agreement(difference)}", err=True)
    result = {
        **describe("a released package on the shared data, by the runtime", _LIBRARIES),
        "model": manifest.title,
        "sha256": {name: spec.sha256 for name, spec in manifest.files.items() if spec.precision is not None},
        "results": {name: metrics for name, (metrics, _) in measured.items()},
        "differences_from_manifest": agreement,
        "labels": {name: by_label for name, (_, by_label) in measured.items()},
        "rows_with_label": label_counts(coco, names),
    }
    text = as_markdown(result["results"])
    click.echo(text)
    write_json(output, result)
    if table is not None:
        table.write_text(f"{text}\n", encoding="utf-8")


def label_counts(coco: Path, names: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return {label: {table that a model trains on: its rows with that label}}; `names` is {label id: name}."""
    tables = {"train": "train.csv", "captions": "captions.csv", "captions_val2014": "captions_val2014.csv"}
    counts = {name: dict.fromkeys(tables, 0) for name in names.values()}
    for table, file in tables.items():
        for row in read_rows(coco / file) if (coco / file).exists() else ():
            for label in row["Labels"].split():
                counts[names[label]][table] += 1
    return counts


if __name__ == "__main__":
    main()
