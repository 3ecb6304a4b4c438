"""`mlic-report run`: what a run learned, measured on one split of the data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlic_runtime.annotations.source.members import PictureFile, image_source
from mlic_runtime.base.progress import log_line
from mlic_runtime.base.text import printable
from mlic_runtime.picture.decode import read_pixels
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.splits import load_splits
from mlic_train.measure.scored import scored_rows
from mlic_train.runs.folder import TrainedModel, load_trained

from .calibration import calibration_section
from .confusion import confusion, confusion_section
from .curves import precision_recall_curves, shown_labels, threshold_curves, training_curves
from .feature_maps import feature_map_plot, feature_maps
from .label_metrics import LabelMetrics, label_metrics
from .measurement import MODE_NAMES, Measurement, as_seen, choose_split, data_warning, measure
from .mistakes import mistake_sections
from .page import Section, check_writable, facts, left_out, render_page, write_page
from .run_facts import history, run_name, run_parts, sees_pictures
from .run_tables import history_table, labels_table, metrics_caption, metrics_table
from .summary import summary_section


def write_run_report(
    folder: Path, data: DataOptions, output: Path, *, split: str, picture: Path | None, worst: int
) -> None:
    """Write the report of the run in `folder` as one HTML file.

    Args:
        folder: a run folder with a best checkpoint.
        data: where the data is; pictures are read from there even where the run's features came from a cache.
        output: the file.
        split: "val" or "test".
        picture: shows the feature maps of this picture; None takes one of the split, always the same.
        worst: how many false positives, and how many false negatives, to show.

    Raises:
        TrainError: the run, the data or the split cannot be used, or the file cannot be written.
        ImageError: a picture cannot be read.
    """
    check_writable(output)
    trained = load_trained(folder)
    loaded = load_splits(data, runs=[folder])
    for line in () if loaded.division is None else loaded.division.notes:
        log_line(line)
    splits = as_seen(trained, loaded)
    warning = data_warning(trained, splits)
    if warning is not None:
        log_line(warning)
    measurement = measure(trained, choose_split(splits, split).records)
    measured_on = f"{split}, whose rows chose epoch, calibration and thresholds" if split == "val" else split
    names = trained.config.model.labels
    labels = label_metrics(
        names, measurement.probabilities, measurement.targets, measurement.thresholds, measurement.known
    )
    parts = [
        summary_section(measurement, labels, measured_on),
        _metrics_section(measurement),
        _labels_section(labels),
        *mistake_sections(names, measurement, worst),
        confusion_section(names, confusion(measurement.targets, measurement.decisions)),
        *_curve_sections(trained, measurement, labels),
        calibration_section(trained.config.train, measurement, split),
        _training_section(trained),
        _feature_map_section(trained, measurement.records, picture),
        Section("The model", "", run_parts(trained)),
    ]
    title = f"Run {run_name(folder)}, measured on {split}"
    write_page(output, render_page(title, parts, [] if warning is None else [warning]))


def _training_section(trained: TrainedModel) -> Section:
    rows = history(trained)
    if not rows:
        return left_out("Training", "the checkpoint has no history of its training")
    return Section(
        "Training",
        "The train loss includes augmentation, dropout, auxiliary losses and soft labels, so compare the course of "
        "both losses and not their height; scores are those before calibration.",
        [training_curves(rows, trained.state.epoch), history_table(rows)],
    )


def _metrics_section(measurement: Measurement) -> Section:
    rows = [((MODE_NAMES[mode],), metrics) for mode, metrics in measurement.metrics.items()]
    return Section("Metrics", metrics_caption(measurement.metrics.values()), [metrics_table(("input",), rows)])


def _labels_section(labels: Sequence[LabelMetrics]) -> Section:
    """Return the metrics of the labels, over the rows with at least one label."""
    return Section(
        "Labels",
        "Precision: the share of the predicted that is right. Recall: the share of the true that is found. F1: both in "
        "one number. AP: how well true rows are ranked before others, whatever the threshold. In brackets 95 % "
        "bootstrap intervals over the rows with at least one label; the mean of the F1 column is the macro F1, "
        "that of the AP column the mAP.",
        [labels_table(labels)],
    )


def _curve_sections(trained: TrainedModel, measurement: Measurement, labels: Sequence[LabelMetrics]) -> list[Section]:
    """Return the sections on curves and thresholds of the labels, over the rows with at least one label."""
    names = trained.config.model.labels
    known = measurement.known
    labelled = scored_rows(measurement.targets, known)
    probabilities, targets = measurement.probabilities[labelled], measurement.targets[labelled]
    known = np.full(targets.shape, True) if known is None else known[labelled]
    titles = ("Precision and recall", "Thresholds")
    drawn = shown_labels(targets, known)
    if not drawn:
        return [left_out(title, "no label is true in some rows and not in others") for title in titles]
    points = {i: (labels[i].recall.value, labels[i].precision.value) for i in drawn}
    thresholds = {i: labels[i].threshold for i in drawn}
    goal = trained.config.train.threshold_for
    missing = ("labels that are not drawn", ", ".join(name for i, name in enumerate(names) if i not in drawn) or "none")
    fitted = ("fitted on", "nothing" if goal.startswith("fixed") else "val, for all labels together")
    return [
        Section(
            titles[0],
            "A label that no row or every row has is not drawn.",
            [precision_recall_curves(names, probabilities, targets, points, known), facts([missing])],
        ),
        Section(
            titles[1],
            "Thresholds for all labels together need not be where the label's own F1 is highest.",
            [
                threshold_curves(names, probabilities, targets, thresholds, known),
                facts([("thresholds of" if goal.startswith("fixed") else "thresholds for", goal), fitted, missing]),
            ],
        ),
    ]


def _feature_map_section(trained: TrainedModel, records: Sequence[Record], picture: PictureFile | None) -> Section:
    """Return the feature maps of a picture; without one, of a picture of the split that is always the same."""
    title = "Feature maps"
    if not sees_pictures(trained):
        return left_out(title, "the run was trained without pictures")
    config = trained.config
    with_picture = [record.image for record in records if record.image is not None]
    if picture is None:
        if not with_picture:
            return left_out(title, "no row has a picture; give one with --picture FILE")
        picture = with_picture[np.random.default_rng(config.train.seed).integers(len(with_picture))]
    pixels = read_pixels(image_source(picture), config.model.image_spec)
    return Section(
        title,
        f"{printable(picture.name)}, as the model sees it, and the channels with the largest mean activation (channel: "
        f"mean) of stages of {config.model.backbone}, each on a scale of its own from dark to bright.",
        [feature_map_plot(pixels, feature_maps(trained.model, pixels))],
    )
