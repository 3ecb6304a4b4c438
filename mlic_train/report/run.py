"""`mlic-report run`: what a run learned, measured on one split of the data."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlic_runtime.picture.decode import read_pixels
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.source.members import PictureFile, image_source
from mlic_train.data.splits import load_splits
from mlic_train.runs.checkpoint import Trained, load_trained

from .confusion import confusion, confusion_parts
from .curves import precision_recall_curves, shown_labels, threshold_curves, training_curves
from .examples import mistakes_parts, worst_mistakes
from .facts import facts_tables, history, printable, run_name
from .feature_maps import feature_map_figure, feature_maps
from .html import page, paragraph, section
from .labels import LabelNumbers, label_numbers, labels_table
from .measured import MODE_NAMES, Measured, Progress, as_seen, choose_split, data_warning, measure, sees_pictures
from .parts import METRICS_NOTE, check_writable, history_table, metrics_table, save_page
from .reliability import calibration_table, reliability_diagram

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def write_run_report(
    folder: Path,
    data: DataOptions,
    output: Path,
    *,
    split: str,
    picture: Path | None,
    worst: int,
    progress: Progress,
    log: Callable[[str], None],
) -> None:
    """Write the report of the run in `folder` as one HTML file.

    Args:
        folder: a run folder with a best checkpoint.
        data: where the data is; pictures are read from there even where the run's features came from a cache.
        output: the file.
        split: "val" or "test".
        picture: whose feature maps to show; None takes one of the split, always the same.
        worst: how many false positives, and how many false negatives, to show.
        progress: makes the progress bar.
        log: called with warnings.

    Raises:
        TrainError: the run, the data or the split cannot be used, or the file cannot be written.
        ImageError: a picture cannot be read.
    """
    check_writable(output)
    trained = load_trained(folder)
    splits = as_seen(trained, load_splits(data))
    warning = data_warning(trained, splits)
    if warning is not None:
        log(warning)
    measured = measure(trained, choose_split(splits, split).records, progress)
    maps = _feature_maps(trained, measured.records, picture)
    document = run_page(trained, measured, split, worst=worst, warning=warning, maps=maps)
    save_page(output, document)


def run_page(trained: Trained, measured: Measured, split: str, *, worst: int, warning: str | None, maps: str) -> str:
    """The whole document; `maps` is the section on feature maps."""
    names = trained.config.model.labels
    labelled = measured.targets.any(axis=1)
    probabilities, targets = measured.probabilities[labelled], measured.targets[labelled]
    numbers = label_numbers(names, probabilities, targets, measured.thresholds)
    drawn = shown_labels(targets)
    positives, negatives = worst_mistakes(measured.probabilities, measured.targets, measured.decisions, worst)
    return page(
        f"Run {run_name(trained.folder)}, measured on {split}",
        "" if warning is None else f"<p><strong>{escape(warning)}</strong></p>\n",
        facts_tables(trained),
        section("Training", _training(trained)),
        section("Metrics", *_metrics(trained, measured, split)),
        section("Labels", *_labels(numbers)),
        section("Precision and recall", *_precision_recall(numbers, drawn, probabilities, targets)),
        section("Thresholds", *_thresholds(trained, split, numbers, drawn, probabilities, targets)),
        section("Calibration", *_calibration(trained, measured, split)),
        section("Confusion by co-occurrence", confusion_parts(names, confusion(measured.targets, measured.decisions))),
        section(
            "Worst false positives",
            paragraph("Predicted, not true: the decisions with the highest probability."),
            mistakes_parts(names, measured, positives),
        ),
        section(
            "Worst false negatives",
            paragraph("True, not predicted: the decisions with the lowest probability."),
            mistakes_parts(names, measured, negatives),
        ),
        section("Feature maps", maps),
    )


def _training(trained: Trained) -> str:
    rows = history(trained)
    if not rows:
        return paragraph("The checkpoint has no history of its training.")
    return (
        training_curves(rows, trained.state.epoch)
        + paragraph(
            "The train loss is that of augmented rows with dropout, auxiliary losses and soft labels included; "
            "the val loss is not, so compare their course and not their height. "
            "Scores are those before the final calibration."
        )
        + history_table(rows)
    )


def _metrics(trained: Trained, measured: Measured, split: str) -> list[str]:
    text = METRICS_NOTE
    if split == "val":
        text += (
            " The best epoch, calibration and thresholds were chosen on these very rows, "
            "so the numbers are kinder than those of new rows."
        )
    rows = [((MODE_NAMES[mode],), metrics) for mode, metrics in measured.metrics.items()]
    parts = [metrics_table(("input",), rows), paragraph(text)]
    if not trained.config.model.reads_captions:
        parts.append(paragraph(f"{trained.config.model.name} reads pictures only: captions below are for the reader."))
    elif not sees_pictures(trained):
        parts.append(paragraph("The run was trained without pictures and is measured on captions only."))
    return parts


def _labels(numbers: list[LabelNumbers]) -> list[str]:
    text = (
        "Over the rows with at least one label; in brackets 95 % bootstrap intervals. The mean of the F1 column is the "
        "macro F1, that of the AP column the mAP. Labels that few rows have cannot be told well: see their intervals."
    )
    return [labels_table(numbers), paragraph(text)]


def _precision_recall(
    numbers: list[LabelNumbers], drawn: list[int], probabilities: Floats, targets: Bools
) -> list[str]:
    if not drawn:
        return [paragraph("No label is true in some rows and not in others: there is no curve to draw.")]
    names = [label.name for label in numbers]
    points = {i: (numbers[i].recall.value, numbers[i].precision.value) for i in drawn}
    return [precision_recall_curves(names, probabilities, targets, points), *_not_drawn(numbers, drawn)]


def _thresholds(
    trained: Trained,
    split: str,
    numbers: list[LabelNumbers],
    drawn: list[int],
    probabilities: Floats,
    targets: Bools,
) -> list[str]:
    goal = trained.config.train.threshold_for
    text = (
        f"Thresholds of {goal}: nothing was fitted."
        if goal.startswith("fixed")
        else (
            f"The thresholds were fitted on val, for {goal} of all labels together: they need not be where the label's "
            "own F1 is highest."
        )
    )
    if not drawn:
        return [paragraph(text)]
    names = [label.name for label in numbers]
    chosen = {i: numbers[i].threshold for i in drawn}
    return [paragraph(text), threshold_curves(names, probabilities, targets, chosen), *_not_drawn(numbers, drawn)]


def _not_drawn(numbers: list[LabelNumbers], drawn: list[int]) -> list[str]:
    left_out = [label.name for i, label in enumerate(numbers) if i not in drawn]
    return [paragraph(f"Not drawn, too few rows have them or all do: {', '.join(left_out)}.")] if left_out else []


def _calibration(trained: Trained, measured: Measured, split: str) -> list[str]:
    config = trained.config.train
    text = f"Calibration: {config.calibration}, fitted on val"
    if config.empty_odds != 1:
        text += f"; rows without any label are taken to have {config.empty_odds:g} of their odds in training"
    text += ". Below each diagram: how many decisions have that probability, on a logarithmic scale."
    if split == "val":
        text += " “After” is measured on the rows that it was fitted to."
    same = all(np.array_equal(measured.raw[mode].logits, rows.logits) for mode, rows in measured.calibrated.items())
    if same:
        text += " This model has no calibration: before and after are the same."
    return [
        paragraph(text),
        calibration_table(measured.raw, measured.calibrated),
        reliability_diagram(measured),
    ]


def _feature_maps(trained: Trained, records: Sequence[Record], picture: PictureFile | None) -> str:
    """The section's content; the picture is always the same where none is asked for."""
    if not sees_pictures(trained):
        return paragraph("Left out: the run was trained without pictures.")
    config = trained.config
    with_picture = [record.image for record in records if record.image is not None]
    if picture is None:
        if not with_picture:
            return paragraph("Left out: no row has a picture. Give one with --picture FILE.")
        picture = with_picture[np.random.default_rng(config.train.seed).integers(len(with_picture))]
    pixels = read_pixels(image_source(picture), config.model.image_spec)
    text = (
        f"{printable(picture.name)}, as the model sees it, and what stages of {config.model.backbone} make of it: the "
        "channels with the largest mean activation (channel: mean), each on a scale of its own, dark to bright."
    )
    return paragraph(text) + feature_map_figure(pixels, feature_maps(trained.model, pixels))
