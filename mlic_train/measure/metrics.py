import numpy as np
import torch

from mlic_runtime.base.arrays import Bools, Floats


def compute_metrics(probabilities: Floats, targets: Bools, thresholds: Floats) -> dict[str, float]:
    """Compute the metrics of one split.

    Rows with at least one label are scored. Rows without any ("negatives") have no meaningful F1; the number of false
    labels is reported instead.

    Args:
        probabilities: float (B, L) in 0..1.
        targets: bool (B, L).
        thresholds: float (L).

    Returns:
        samples_f1, micro_f1, macro_f1, map (macro average precision over the labels that occur), ece (expected
        calibration error over all B x L label decisions, 15 bins of equal width, Naeini et al. 2015), log_loss (mean
        binary cross-entropy of the same decisions, in nats: it has no threshold, and needs the fewest rows to tell two
        models apart), rows, and where there are negatives: negatives, false_labels_per_negative.
    """
    from torch.nn.functional import binary_cross_entropy
    from torchmetrics.functional.classification import (
        binary_average_precision,
        binary_calibration_error,
        multilabel_f1_score,
    )

    labelled = targets.any(axis=1)
    result: dict[str, float] = {"rows": int(labelled.sum())}
    if labelled.any():
        scores = torch.from_numpy(np.asarray(probabilities[labelled], dtype=np.float32))
        truth = torch.from_numpy(targets[labelled].astype(np.int64))
        # torchmetrics takes one threshold, ours differ per label: it gets decisions, 0 or 1, instead of probabilities.
        decisions = torch.from_numpy((probabilities[labelled] >= thresholds).astype(np.int64))
        num_labels = truth.shape[1]
        per_row = multilabel_f1_score(
            decisions[..., None], truth[..., None], num_labels, average="micro", multidim_average="samplewise"
        )
        result["samples_f1"] = float(per_row.mean())
        result["micro_f1"] = float(multilabel_f1_score(decisions, truth, num_labels, average="micro"))
        result["macro_f1"] = float(multilabel_f1_score(decisions, truth, num_labels, average="macro"))
        precisions = [binary_average_precision(scores[:, i], truth[:, i]) for i in truth.any(dim=0).nonzero()[:, 0]]
        result["map"] = float(torch.stack(precisions).mean())
        result["ece"] = float(binary_calibration_error(scores.flatten(), truth.flatten(), n_bins=15, norm="l1"))
        result["log_loss"] = float(binary_cross_entropy(scores, truth.float()))
    if not labelled.all():
        result["negatives"] = int((~labelled).sum())
        result["false_labels_per_negative"] = float((probabilities[~labelled] >= thresholds).sum(axis=1).mean())
    return {name: round(value, 5) for name, value in result.items()}
