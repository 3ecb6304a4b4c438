import torch
from torch import Tensor, nn


class _TokenEmbedding(nn.Module):
    """Tokens to vectors, with dropout of their values and of whole tokens.

    `word_dropout` leaves whole tokens' embeddings out in training (Iyyer et al. 2015): no label shall hang on one word.
    """

    def __init__(self, vocab_size: int, width: int, dropout: float, word_dropout: float = 0.0, pad_id: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=pad_id)
        self.word_dropout = nn.Dropout1d(word_dropout)
        self.dropout = nn.Dropout(dropout)

    def embed(self, input_ids: Tensor) -> Tensor:
        """`input_ids` int64 (B, T) -> (B, T, D)."""
        return self.dropout(self.word_dropout(self.embedding(input_ids)))  # type: ignore[no-any-return]


class MeanEncoder(_TokenEmbedding):
    """The mean of the token embeddings at every token: input_ids, attention_mask int64 (B, T) -> (B, T, D).

    A bag of words: the baseline that shows what reading in order is worth.
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See the class."""
        embedded = self.embed(input_ids)
        present = attention_mask.to(embedded.dtype)[:, :, None]
        mean = (embedded * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1.0)
        return mean.expand_as(embedded)


class LstmEncoder(_TokenEmbedding):
    """Token embedding and a bidirectional LSTM: input_ids int64 (B, T), attention_mask int64 (B, T) -> (B, T, D).

    The result at a token does not depend on how far its row is padded: the backward direction reads each row
    reversed within its own length. (`pack_padded_sequence` would do the same but refuses rows of length 0,
    which are our "no caption".) States at padded positions are meaningless; the caller masks them.
    """

    def __init__(self, vocab_size: int, width: int, dropout: float, word_dropout: float = 0.0, pad_id: int = 0) -> None:
        super().__init__(vocab_size, width, dropout, word_dropout, pad_id)
        self.forward_lstm = nn.LSTM(width, width // 2, batch_first=True)
        self.backward_lstm = nn.LSTM(width, width // 2, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See the class."""
        embedded = self.embed(input_ids)
        mirror = self._mirror(attention_mask)[:, :, None]
        ahead, _ = self.forward_lstm(embedded)
        mirrored, _ = self.backward_lstm(embedded.gather(1, mirror.expand(-1, -1, embedded.shape[-1])))
        back = mirrored.gather(1, mirror.expand(-1, -1, mirrored.shape[-1]))
        return torch.cat([ahead, back], dim=-1)

    @staticmethod
    def _mirror(attention_mask: Tensor) -> Tensor:
        """Index int64 (B, T) that reverses each row within its length and leaves padding where it is."""
        position = torch.cumsum(torch.ones_like(attention_mask), dim=1) - 1  # 0, 1, 2, ... in every row
        length = attention_mask.sum(dim=1, keepdim=True)
        return torch.where(position < length, length - 1 - position, position)
