import torch
from torch import Tensor, nn

_EPSILON = 1e-6  # keeps the log-odds of a saturated softmax finite: |logit| <= 13.8


class LabelOutput(nn.Module):
    """The last step before `logits`: what sigmoid will turn into probabilities, (B, L) -> (B, L).

    With `softmax` (the origin's softmax + BCE) the logits are the log-odds of the softmax probabilities, so that
    the runtime's sigmoid gives exactly those probabilities back and needs to know nothing about it.
    """

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax

    def forward(self, logits: Tensor) -> Tensor:
        """Float32 (B, L) -> float32 (B, L)."""
        if not self.softmax:
            return logits
        return torch.logit(torch.softmax(logits, dim=-1).clamp(_EPSILON, 1 - _EPSILON))
