from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 # torch's own convention

from .errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]

_NEGATIVE_FOCUS = 4
_MARGIN = 0.05
_EPSILON = 1e-6  # keeps log(1 - p) finite where float32 rounds p to 1


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets)


def _multilabel_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    return F.multilabel_soft_margin_loss(logits, targets)


def _asymmetric(logits: Tensor, targets: Tensor) -> Tensor:
    shifted = (torch.sigmoid(logits) - _MARGIN).clamp(min=0)
    positive = F.logsigmoid(logits)
    negative = shifted**_NEGATIVE_FOCUS * torch.log1p(-shifted.clamp(max=1 - _EPSILON))
    return -(targets * positive + (1 - targets) * negative).mean()


def create_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """A loss by name: logits float32 (B, L), targets float32 (B, L) in 0..1 -> scalar, the mean over the batch.

    - `bce`: binary cross-entropy with logits, mean over rows and labels.
    - `multilabel_soft_margin`: torch's MultiLabelSoftMarginLoss, the origin's loss of the hybrid.
    - `softmax_bce`: the origin's softmax followed by binary cross-entropy. The softmax is part of the model then
      (`ModelConfig.softmax_output`, whose logits are the log-odds of the softmax), so what is left here is bce.
    - `asymmetric`: Ridnik et al. 2021, with their gamma+ 0, gamma- 4 and margin 0.05: easy negatives hardly count,
      very easy ones (p < 0.05) not at all. Mean over rows and labels instead of their sum. Its probabilities are too
      high to be read as such; thresholds make up for it.

    Args:
        name: one of `config.LOSSES`.
        label_smoothing: s in [0, 1): targets y become y * (1 - s) + s / 2 (Szegedy et al. 2016, two outcomes a label).

    Raises:
        ConfigError: an unknown name.
    """
    losses: dict[str, Loss] = {
        "bce": _bce,
        "multilabel_soft_margin": _multilabel_soft_margin,
        "softmax_bce": _bce,
        "asymmetric": _asymmetric,
    }
    if name not in losses:
        raise ConfigError(f"loss is {name!r}; choose one of: {', '.join(losses)}")
    loss = losses[name]
    if label_smoothing == 0.0:
        return loss
    return lambda logits, targets: loss(logits, targets * (1 - label_smoothing) + label_smoothing / 2)
