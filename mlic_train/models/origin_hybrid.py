import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_train.captions.characters import FIRST_LETTER, NUM_LETTERS, VOCAB_SIZE
from mlic_train.config import ModelConfig
from mlic_train.errors import ConfigError

from .attention import EncoderLayer
from .backbone import Backbone, Conv3
from .base import PictureAndCaption
from .calibration import Calibration
from .heads import LabelOutput, Logits, Positions

NUM_TRIGRAMS = NUM_LETTERS**3  # 17,576


class OriginHybrid(PictureAndCaption):
    """The origin's hybrid, a baseline to measure against: it stays as it was and is not improved.

    The picture goes through the origin's three convolutions. An LSTM reads the positions of the feature maps one after
    the other, row by row, a Transformer encoder reads the LSTM's states, and their mean is the picture's vector. The
    caption becomes its counts of 17,576 letter trigrams (`input_ids` are those of `mlic_train.captions.characters`).
    Both are joined; one dense layer of `hidden` units (the origin had 1024), ReLU, dropout and the output layer follow.

    The origin leaves three things open. Chosen here: positions and not whole rows as time steps, the mean as pooling,
    and our own (pre-norm) encoder layer. A missing picture is a vector of zeros, a missing caption has counts of zero;
    the origin had neither.

    Raises:
        ConfigError: a backbone other than the origin's, or pictures too small for it.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        if not isinstance(backbone, Conv3):
            raise ConfigError(
                f"{config.name} has the origin's three convolutions, not {config.backbone!r}; leave --backbone out, "
                "or choose --model hybrid"
            )
        super().__init__(config, backbone)
        self.vocab_size = VOCAB_SIZE
        self.cells = Positions()  # not renamed: node names of the released graphs contain it
        self.lstm = nn.LSTM(backbone.num_features, config.width, batch_first=True)
        self.encoder = nn.ModuleList(
            EncoderLayer(config.width, config.num_heads, config.encoder_dropout) for _ in range(config.num_layers)
        )
        self.join = Join(config.width, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.scores = nn.Linear(config.hidden, config.num_labels)
        self.output = LabelOutput(config.softmax_output)
        self.calibration = Calibration(config.num_labels)

    @override
    @torch.no_grad()
    def ignore_pictures(self) -> None:
        self.join.picture.weight.zero_()  # what only pictures would train

    @override
    def branches(
        self,
        features: Tensor | None,
        has_picture: Tensor | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        evidence: bool = False,
    ) -> Logits:
        if features is None or has_picture is None:
            picture = self.scores.weight.new_zeros(len(input_ids), self.join.width)
        else:
            picture = self._read_picture(features) * has_picture.to(features.dtype)[:, None]
        joined = self.join(picture, trigrams(input_ids, attention_mask))
        return Logits(self.output(self.scores(self.dropout(torch.relu(joined)))))

    def _read_picture(self, features: Tensor) -> Tensor:
        """Encode feature maps float32 (B, C, h, w) as the picture's vector float32 (B, D)."""
        x, _ = self.lstm(self.cells(features))  # (B, h * w, D)
        present = torch.ones_like(x[:, :, 0])
        for layer in self.encoder:
            x = layer(x, present)
        return x.mean(dim=1)  # type: ignore[no-any-return]


class Join(nn.Module):
    """The dense layer over picture vector and trigram counts joined: (B, D) and trigrams (B, T) to (B, hidden).

    It equals a linear layer over D + 17,576 inputs, also in its initial weights. The product with a count vector is
    the sum of one row of weights for every trigram in the caption, and that sum is computed: some sixty rows instead
    of 17,576.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width = width
        self.picture = nn.Linear(width, hidden)
        self.trigrams = nn.Embedding(NUM_TRIGRAMS + 1, hidden, padding_idx=NUM_TRIGRAMS)
        bound = (width + NUM_TRIGRAMS) ** -0.5  # of torch's linear layer with as many inputs
        for weights in (self.picture.weight, self.picture.bias, self.trigrams.weight):
            nn.init.uniform_(weights, -bound, bound)
        with torch.no_grad():
            self.trigrams.weight[NUM_TRIGRAMS] = 0.0  # no trigram, no contribution; padding_idx keeps it so

    @override
    def forward(self, picture: Tensor, trigram_ids: Tensor) -> Tensor:
        return self.picture(picture) + self.trigrams(trigram_ids).sum(dim=1)  # type: ignore[no-any-return]


def trigrams(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the trigram that begins at each token: input_ids and attention_mask int64 (B, T) -> int64 (B, T).

    Three letters next to each other, numbered from a = 0, are the trigram first * 676 + second * 26 + third. A token
    at which no three letters begin (before a break or the end of the caption) has NUM_TRIGRAMS.
    """
    tokens = input_ids * attention_mask  # what lies beyond the caption becomes padding
    ends = torch.zeros_like(tokens[:, :1]).expand(-1, 2)
    letters = torch.cat([tokens, ends], dim=1) - FIRST_LETTER  # (B, T + 2), negative where there is no letter
    first, second, third = letters[:, :-2], letters[:, 1:-1], letters[:, 2:]
    whole = (first >= 0) & (second >= 0) & (third >= 0)
    number = (first * NUM_LETTERS + second) * NUM_LETTERS + third
    return torch.where(whole, number, torch.full_like(number, NUM_TRIGRAMS))
