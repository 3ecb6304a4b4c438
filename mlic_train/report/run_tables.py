"""The tables that reports on runs share: metrics, epochs and labels."""

from collections.abc import Iterable, Mapping, Sequence

from .label_metrics import LabelMetrics, Number
from .page import Table

SCORES = {"samples_f1": "samples F1", "micro_f1": "micro F1", "macro_f1": "macro F1", "map": "mAP"}
EPOCH_COLUMNS = {
    "train_loss": "train loss",
    "val_loss": "val loss",
    **{f"val_{name}": f"val {title}" for name, title in SCORES.items()},
}
METRICS_CAPTION = (
    "1 is best, but for ECE 0. Samples F1 is a mean over rows, macro F1 and mAP over labels; micro F1 counts all "
    "decisions at once. In brackets: 95 % bootstrap intervals over the rows with at least one label; negatives are "
    "rows with none; ECE: expected calibration error over all decisions."
)
UNKNOWN_CAPTION = (
    " Unknown labels count nowhere; rows in which no label is true and some are unknown are not negatives, and are "
    "scored by the labels that they lack."
)


def metrics_table(first: Sequence[str], rows: Sequence[tuple[Sequence[object], Mapping[str, float]]]) -> Table:
    """Return a table of metrics.

    Args:
        first: the headers of the first columns.
        rows: the cells of these columns, and the metrics (see `measure.collect.score`).
    """
    header = [*first, "rows", *SCORES.values(), "ECE"]
    negatives = any("negatives" in metrics for _, metrics in rows)
    if negatives:
        header += ["negatives", "false labels per negative"]
    unknown = any("unknown" in metrics for _, metrics in rows)
    if unknown:
        header.append("unknown labels")
    cells = []
    for names, metrics in rows:
        line = [*names, metrics.get("rows", 0), *(score(metrics, name) for name in SCORES), metrics.get("ece")]
        if negatives:
            line += [metrics.get("negatives", 0), metrics.get("false_labels_per_negative")]
        if unknown:
            line.append(metrics.get("unknown", 0))
        cells.append(line)
    return Table(header, cells)


def metrics_caption(every: Iterable[Mapping[str, float]]) -> str:
    """Return the caption of a table of these metrics."""
    return METRICS_CAPTION + (UNKNOWN_CAPTION if any("unknown" in metrics for metrics in every) else "")


def score(metrics: Mapping[str, float], name: str) -> Number | None:
    """Return a metric with its interval, None where it is not known."""
    if name not in metrics:
        return None
    return Number(metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))


def history_table(history: Sequence[Mapping[str, float]]) -> Table:
    """Return a table with one row per epoch, folded away."""
    rows = [
        (int(row["epoch"]), *map(row.get, EPOCH_COLUMNS), f"{row['seconds']:.1f}" if "seconds" in row else None)
        for row in history
    ]
    return Table(("epoch", *EPOCH_COLUMNS.values(), "seconds"), rows, "Every epoch")


def labels_table(labels: Sequence[LabelMetrics]) -> Table:
    """Return a table with one row per label."""
    rows = [
        (row.name, row.support, row.predicted, row.threshold, row.precision, row.recall, row.f1, row.ap)
        for row in labels
    ]
    header = ("label", "true", "predicted", "threshold", "precision", "recall", "F1", "AP")
    if not any(row.unknown for row in labels):
        return Table(header, rows)
    unknown = [(*cells, row.unknown) for cells, row in zip(rows, labels, strict=True)]
    return Table((*header, "unknown"), unknown)
