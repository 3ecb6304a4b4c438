import numpy as np
import torch

from mlic_runtime.base.arrays import Bools, Floats

from .scored import scored_rows


def compute_metrics(
    probabilities: Floats, targets: Bools, thresholds: Floats, known: Bools | None = None
) -> dict[str, float]:
    """Compute the metrics of one split.

    Rows with at least one label are scored. Rows without any ("negatives") have no meaningful F1; the number of false
    labels is reported instead.

    Unknown labels are neither right nor wrong: every metric is over the known entries alone, as in the evaluation of
    Open Images, where a picture counts for the labels that were verified in it (Kuznetsova et al. 2020, "The Open
    Images Dataset V4"). For samples F1 that is the F1 of a row's known labels; it is 1 if none of them is true or
    predicted, which only a row with unknown labels can have. A label's F1 and average precision are over the rows that
    know it; one that no row knows counts as one without positives. A row is a negative only if it knows all labels. See
    `scored_rows` for the rest.

    Args:
        probabilities: float (B, L) in 0..1.
        targets: bool (B, L).
        thresholds: float (L).
        known: bool (B, L), False where a label is unknown; None where none is.

    Returns:
        samples_f1, micro_f1, macro_f1, map (macro average precision over the labels that occur), ece (expected
        calibration error over all known label decisions, 15 bins of equal width, Naeini et al. 2015), log_loss (mean
        binary cross-entropy of the same decisions, in nats: it has no threshold, and needs the fewest rows to tell two
        models apart), rows, and where there are negatives: negatives, false_labels_per_negative; where there are
        unknown labels: unknown, the number of entries that are left out. Without any label only the last four.
    """
    from torch.nn.functional import binary_cross_entropy
    from torchmetrics.functional.classification import (
        binary_average_precision,
        binary_calibration_error,
        multilabel_f1_score,
    )

    if known is None:
        known = np.full(targets.shape, True)
    targets = targets & known
    labelled = scored_rows(targets, known)
    result: dict[str, float] = {"rows": int(labelled.sum())}
    if targets.any():
        scores = torch.from_numpy(np.asarray(probabilities[labelled], dtype=np.float32))
        truth = torch.from_numpy(targets[labelled].astype(np.int64))
        # torchmetrics takes one threshold, ours differ per label: it gets decisions, 0 or 1, instead of probabilities.
        # An unknown label is neither true nor predicted there, which no F1 sees.
        decisions = torch.from_numpy(((probabilities[labelled] >= thresholds) & known[labelled]).astype(np.int64))
        entries = torch.from_numpy(known[labelled])
        num_labels = truth.shape[1]
        # By hand, because torchmetrics' samplewise average fails for a single row.
        per_row = 2 * (decisions & truth).sum(dim=1) / (decisions + truth).sum(dim=1).clamp(min=1)
        result["samples_f1"] = float(torch.where((decisions + truth).any(dim=1), per_row, 1.0).mean())
        result["micro_f1"] = float(multilabel_f1_score(decisions, truth, num_labels, average="micro"))
        result["macro_f1"] = float(multilabel_f1_score(decisions, truth, num_labels, average="macro"))
        precisions = [
            binary_average_precision(scores[entries[:, i], i], truth[entries[:, i], i])
            for i in truth.any(dim=0).nonzero()[:, 0]
        ]
        result["map"] = float(torch.stack(precisions).mean())
        result["ece"] = float(binary_calibration_error(scores[entries], truth[entries], n_bins=15, norm="l1"))
        result["log_loss"] = float(binary_cross_entropy(scores[entries], truth[entries].float()))
    negatives = known.all(axis=1) & ~targets.any(axis=1)
    if negatives.any():
        result["negatives"] = int(negatives.sum())
        result["false_labels_per_negative"] = float((probabilities[negatives] >= thresholds).sum(axis=1).mean())
    if not known.all():
        result["unknown"] = int((~known).sum())
    return {name: round(value, 5) for name, value in result.items()}
