"""From features to logits: a head for each input, and the last step before the sigmoid."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override

from .attention import MASKED

_MAX_SHARE = 0.3  # weight of the best position beside the mean of all, in the range of Zhu and Wu 2021
_RARE = -2.5  # labels are rare: probabilities start near 0.08
_EPSILON = 1e-6  # keeps the log-odds of a saturated softmax finite: |logit| <= 13.8


class Logits(NamedTuple):
    """The logits of a model before calibration: `fused` (B, L), and those of `picture` and `caption` alone, or None.

    Where they were wanted, also the parts of the fused logits that come from each place of the picture,
    `picture_evidence` (B, L, N), and from each token of the caption, `caption_evidence` (B, L, T).
    """

    fused: Tensor
    picture: Tensor | None = None
    caption: Tensor | None = None
    picture_evidence: Tensor | None = None
    caption_evidence: Tensor | None = None


class Positions(nn.Module):
    """Feature maps (B, C, h, w) to positions (B, h * w, C), contiguous.

    Dropout fills memory in order: in one layout, one seed drops the same values wherever the features come from.
    """

    @override
    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2).contiguous()


class PictureLabels(nn.Module):
    """Picture positions (B, N, C) to logits (B, L): the mean over positions plus a share of their maximum.

    The maximum sees an object that fills one position only; this is the residual attention of Zhu and Wu 2021
    ("Residual Attention: A Simple but Effective Method for Multi-Label Recognition") at infinite temperature.
    """

    def __init__(self, channels: int, num_labels: int) -> None:
        super().__init__()
        self.scores = nn.Linear(channels, num_labels)
        nn.init.normal_(self.scores.weight, std=0.1 * channels**-0.5)
        nn.init.constant_(self.scores.bias, _RARE / (1 + _MAX_SHARE))

    @override
    def forward(self, positions: Tensor) -> Tensor:
        scores = self.scores(positions)  # (B, N, L)
        return scores.mean(dim=1) + _MAX_SHARE * scores.amax(dim=1)  # type: ignore[no-any-return]

    def evidence(self, positions: Tensor) -> Tensor:
        """Return what each position contributes to the logits, without the bias: (B, N, C) to (B, L, N).

        The logit is linear in the positions once the largest score is known, so this is exact: with w and b of a label,
        the contribution of x_n is w.x_n / N, and _MAX_SHARE * w.x_n more for the position of the largest score. The sum
        over n is the logit minus (1 + _MAX_SHARE) * b.
        """
        scores = self.scores(positions)
        largest = (scores >= scores.amax(dim=1, keepdim=True)).to(scores.dtype)
        weight = 1.0 / scores.shape[1] + _MAX_SHARE * largest / largest.sum(dim=1, keepdim=True)
        return ((scores - self.scores.bias) * weight).transpose(1, 2)  # type: ignore[no-any-return]


class CaptionLabels(nn.Module):
    """Caption states (B, T, D), mask (B, T) float 1/0 to logits (B, L): every label pools the tokens by attention.

    Label-wise attention of Mullenbach et al. 2018 ("Explainable Prediction of Medical Codes from Clinical Text").
    Rows without a token give meaningless logits; the caller masks them.
    """

    def __init__(self, width: int, num_labels: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_labels, width) * width**-0.5)
        self.weight = nn.Parameter(torch.randn(num_labels, width) * width**-0.5)
        self.bias = nn.Parameter(torch.full((num_labels,), _RARE))

    @override
    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        pooled = self._attention(states, present) @ states  # (B, L, D)
        return (pooled * self.weight).sum(-1) + self.bias

    def evidence(self, states: Tensor, present: Tensor) -> Tensor:
        """Return what each token contributes to the logits, without the bias: (B, L, T).

        With the attention a of a label, the contribution of the state h_t is a_t * w.h_t. The sum over t is the logit
        minus the bias: exact in the states. A state has read its neighbours too, so that a word's share is approximate.
        """
        return self._attention(states, present) * (states @ self.weight.T).transpose(1, 2)

    def _attention(self, states: Tensor, present: Tensor) -> Tensor:
        scores = states @ self.queries.T + ((1.0 - present) * MASKED)[:, :, None]  # (B, T, L)
        return torch.softmax(scores, dim=1).transpose(1, 2)


class LabelOutput(nn.Module):
    """The last step before `logits`, float32 (B, L) to (B, L).

    With `softmax` (the origin's softmax + BCE) the logits become the log-odds of the softmax probabilities, so that
    the runtime's sigmoid returns exactly these probabilities and needs no second mode.
    """

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax

    @override
    def forward(self, logits: Tensor) -> Tensor:
        if not self.softmax:
            return logits
        return torch.logit(torch.softmax(logits, dim=-1).clamp(_EPSILON, 1 - _EPSILON))
