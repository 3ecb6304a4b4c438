import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override

# Added to the scores of absent positions. exp(-1e4) is 0 in float32, and -1e4 still fits float16.
MASKED = -1e4


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017): x (B, N, D), present (B, N) float 1/0 -> (B, N, D).

    Every position attends to those from `first` on, 0 for all. Time and memory grow with N * (N - first).

    It is written out because both ONNX exporters turn `nn.MultiheadAttention` beside an LSTM into graphs that fail at
    another length or batch (pytorch#117209, #122321). These lines export to standard operators, B and N dynamic.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    @override
    def forward(self, x: Tensor, present: Tensor, first: int = 0) -> Tensor:
        batch, length, width = x.shape
        qkv = self.to_qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        if first:  # a slice from 0 on would be a node in every graph
            k, v, present = k[:, :, first:], v[:, :, first:], present[:, first:]
        scores = q @ k.transpose(-2, -1) * self.scale  # (B, heads, N, N - first)
        scores = scores + ((1.0 - present) * MASKED)[:, None, None, :]
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ v
        return self.to_output(mixed.transpose(1, 2).reshape(batch, length, width))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """One pre-norm Transformer encoder layer: x (B, N, D), present (B, N) float 1/0 -> (B, N, D).

    `first` is as for `SelfAttention`.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, dropout)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    @override
    def forward(self, x: Tensor, present: Tensor, first: int = 0) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), present, first))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))  # type: ignore[no-any-return]
