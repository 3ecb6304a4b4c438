import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override


class _TokenEmbedding(nn.Module):
    """Token embeddings, with dropout of their values.

    `word_dropout` drops whole tokens in training (Iyyer et al. 2015), so that no label depends on one word.
    """

    def __init__(self, vocab_size: int, width: int, dropout: float, word_dropout: float = 0.0, pad_id: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=pad_id)
        self.word_dropout = nn.Dropout1d(word_dropout)
        self.dropout = nn.Dropout(dropout)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed `input_ids` int64 (B, T) as (B, T, D)."""
        return self.dropout(self.word_dropout(self.embedding(input_ids)))  # type: ignore[no-any-return]


class MeanEncoder(_TokenEmbedding):
    """The mean of the token embeddings, at every token: input_ids, attention_mask int64 (B, T) -> (B, T, D).

    This bag of words is the baseline that shows the value of reading in order.
    """

    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.embed(input_ids)
        present = attention_mask.to(embedded.dtype)[:, :, None]
        mean = (embedded * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1.0)
        return mean.expand_as(embedded)


class LstmEncoder(_TokenEmbedding):
    """Token embedding and a bidirectional LSTM: input_ids int64 (B, T), attention_mask int64 (B, T) -> (B, T, D).

    The result at a token does not depend on the padding of its row: the backward direction reads each row reversed
    within its own length. (`pack_padded_sequence` would do so too, but refuses rows of length 0, which are our
    "no caption".) States at padded positions are meaningless; the caller masks them.
    """

    def __init__(self, vocab_size: int, width: int, dropout: float, word_dropout: float = 0.0, pad_id: int = 0) -> None:
        super().__init__(vocab_size, width, dropout, word_dropout, pad_id)
        self.forward_lstm = nn.LSTM(width, width // 2, batch_first=True)
        self.backward_lstm = nn.LSTM(width, width // 2, batch_first=True)

    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.embed(input_ids)
        mirror = self._mirror(attention_mask)[:, :, None]
        ahead, _ = self.forward_lstm(embedded)
        mirrored, _ = self.backward_lstm(embedded.gather(1, mirror.expand(-1, -1, embedded.shape[-1])))
        back = mirrored.gather(1, mirror.expand(-1, -1, mirrored.shape[-1]))
        return torch.cat([ahead, back], dim=-1)

    @staticmethod
    def _mirror(attention_mask: Tensor) -> Tensor:
        """Return the index int64 (B, T) that reverses each row within its length and leaves padding in place."""
        position = torch.cumsum(torch.ones_like(attention_mask), dim=1) - 1  # 0, 1, 2, ... in every row
        length = attention_mask.sum(dim=1, keepdim=True)
        return torch.where(position < length, length - 1 - position, position)
