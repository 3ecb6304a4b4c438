from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 # torch's own convention

from mlic_train.batches.dataset import Batch
from mlic_train.data import Record
from mlic_train.errors import ConfigError
from mlic_train.models import Logits


class Loss(Protocol):
    """A loss: logits float32 (B, L) and targets float32 (B, L) in 0..1 to a scalar, the mean over the known entries.

    `known` bool (B, L) says which entries count; None: all. What the others hold changes nothing. Without any known
    entry the loss and its gradient are 0. (Irvin et al. 2019, "CheXpert", call this U-Ignore.)
    """

    def __call__(self, logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar."""


_NEGATIVE_FOCUS = 4
_MARGIN = 0.05
_EPSILON = 1e-6  # keeps log(1 - p) finite where float32 rounds p to 1


def _bce(logits: Tensor, targets: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
    if known is None:
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    return _mean(F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none"), known)


def _multilabel_soft_margin(logits: Tensor, targets: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
    weights = None if weight is None else targets * (weight - 1) + 1
    if known is None:
        return F.multilabel_soft_margin_loss(logits, targets, weight=weights)
    # Torch's own is the mean over the labels of a row at least.
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _mean(losses if weights is None else losses * weights, known)


def _asymmetric(logits: Tensor, targets: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
    shifted = (torch.sigmoid(logits) - _MARGIN).clamp(min=0)
    positive = F.logsigmoid(logits) * (1.0 if weight is None else weight)
    negative = shifted**_NEGATIVE_FOCUS * torch.log1p(-shifted.clamp(max=1 - _EPSILON))
    losses = -(targets * positive + (1 - targets) * negative)
    return losses.mean() if known is None else _mean(losses, known)


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    """Return the mean over the known entries, both (B, L); 0 without one."""
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def create_loss(name: str, label_smoothing: float = 0.0, positive_weight: Tensor | None = None) -> Loss:
    """Return a loss.

    - `bce`: binary cross-entropy with logits, mean over rows and labels.
    - `multilabel_soft_margin`: torch's MultiLabelSoftMarginLoss, the origin's loss of the hybrid.
    - `softmax_bce`: the origin's softmax followed by binary cross-entropy. The softmax is then part of the model
      (`ModelConfig.softmax_output`, whose logits are the log-odds of the softmax), so that bce remains here.
    - `asymmetric`: Ridnik et al. 2021, with their gamma+ 0, gamma- 4 and margin 0.05: easy negatives hardly count, very
      easy ones (p < 0.05) not at all. Mean over rows and labels instead of their sum. Its probabilities are too high;
      thresholds compensate for that.

    Args:
        name: one of `config.LOSSES`.
        label_smoothing: s in [0, 1): targets y become y * (1 - s) + s / 2 (Szegedy et al. 2016, two outcomes a label).
        positive_weight: float (L), the weight of each label's positives (see `positive_weight`); None: 1.

    Raises:
        ConfigError: the name is unknown.
    """
    losses = {
        "bce": _bce,
        "multilabel_soft_margin": _multilabel_soft_margin,
        "softmax_bce": _bce,
        "asymmetric": _asymmetric,
    }
    if name not in losses:
        raise ConfigError(f"loss is {name!r}; choose one of: {', '.join(losses)}")
    chosen = losses[name]

    def loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
        weight = None if positive_weight is None else positive_weight.to(logits.device)
        if known is not None:
            targets = torch.where(known, targets, 0.0)  # even NaN must not reach a gradient
        if label_smoothing:
            targets = targets * (1 - label_smoothing) + label_smoothing / 2
        return chosen(logits, targets, weight, known)

    return loss


def positive_weight(records: Sequence[Record], num_labels: int, balance: float) -> Tensor | None:
    """Return the weights float32 (L) of positives, (negatives / positives) ** balance; None where balance is 0.

    Rows without labels of their own are not counted, nor is a row for a label that is unknown in it; a label without
    positives has weight 1.
    """
    if balance == 0.0:
        return None
    rows = [record.labels for record in records if record.labels is not None]
    positives = torch.bincount(torch.tensor([label for row in rows for label in row]), minlength=num_labels).float()
    unknown = [label for record in records if record.labels is not None for label in record.unknown]
    known = len(rows) - torch.bincount(torch.tensor(unknown, dtype=torch.int64), minlength=num_labels).float()
    weight = ((known - positives) / positives.clamp(min=1)).clamp(min=_EPSILON) ** balance
    return torch.where(positives > 0, weight, torch.ones_like(weight))


def total_loss(loss: Loss, logits: Logits, batch: Batch, auxiliary_weight: float) -> Tensor:
    """Return the loss of the fused logits plus `auxiliary_weight` times the losses of each input's own logits.

    An input's own loss is summed over the rows that have the input and divided by all rows of the batch, so that it
    does not grow where few rows have it. Where labels are unknown, known entries are counted instead of rows.
    """
    known = batch.known
    total = loss(logits.fused, batch.targets, known)
    if auxiliary_weight == 0.0:
        return total
    rows = len(batch.targets)
    has_caption = None if batch.attention_mask is None else batch.attention_mask.any(dim=1)
    for own, has in ((logits.picture, batch.has_picture), (logits.caption, has_caption)):
        if own is None or has is None:
            continue
        own_known = None if known is None else known[has]
        share = has.sum() / rows if known is None or own_known is None else own_known.sum() / known.sum().clamp(min=1)
        if share > 0:
            total = total + auxiliary_weight * share * loss(own[has], batch.targets[has], own_known)
    return total
