from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 # torch's own convention

from .errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets)


def _multilabel_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    return F.multilabel_soft_margin_loss(logits, targets)


def create_loss(name: str) -> Loss:
    """A loss by name: logits float32 (B, L), targets float32 (B, L) in 0..1 -> scalar, the mean over the batch.

    - `bce`: binary cross-entropy with logits, mean over rows and labels.
    - `multilabel_soft_margin`: torch's MultiLabelSoftMarginLoss, the origin's loss of the hybrid.
    - `softmax_bce`: the origin's softmax followed by binary cross-entropy. The softmax is part of the model then
      (`ModelConfig.softmax_output`, whose logits are the log-odds of the softmax), so what is left here is bce.

    Raises:
        ConfigError: an unknown name.
    """
    losses: dict[str, Loss] = {
        "bce": _bce,
        "multilabel_soft_margin": _multilabel_soft_margin,
        "softmax_bce": _bce,
    }
    if name not in losses:
        raise ConfigError(f"loss is {name!r}; choose one of: {', '.join(losses)}")
    return losses[name]
