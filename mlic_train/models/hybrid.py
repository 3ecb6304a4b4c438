import torch
from torch import Tensor, nn

from mlic_train.config import ModelConfig

from .attention import EncoderLayer
from .backbone import Backbone, Normalize, feature_grid
from .caption import CaptionEncoder
from .output import LabelOutput


class Hybrid(nn.Module):
    """A CNN reads the picture, an LSTM the caption, and label queries ask both through a Transformer encoder.

    Graph: `pixels` uint8 (B, H, W, 3), `input_ids` int64 (B, T), `attention_mask` int64 (B, T) -> `logits`
    float32 (B, L). An all-zero picture means "no picture", an all-zero mask row "no caption".
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.image_size = config.image_size
        width = config.width
        self.normalize = Normalize(config.mean or backbone.mean, config.std or backbone.std)
        self.backbone = backbone
        self.feature_dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(backbone.num_features, width)
        height, grid_width = feature_grid(backbone, config.image_size)
        self.positions = nn.Parameter(torch.randn(height * grid_width, width) * 0.02)
        self.caption = CaptionEncoder(config.vocab_size, width, config.dropout)
        self.caption_kind = nn.Parameter(torch.randn(width) * 0.02)
        self.norm_picture = nn.LayerNorm(width)
        self.norm_caption = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(config.num_labels, width) * 0.02)
        self.encoder = nn.ModuleList(
            EncoderLayer(width, config.num_heads, config.encoder_dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.label_weight = nn.Parameter(torch.randn(config.num_labels, width) * width**-0.5)
        self.label_bias = nn.Parameter(torch.full((config.num_labels,), -2.0))  # labels are rare: p starts near 0.1
        self.output = LabelOutput(config.softmax_output)

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """`pixels` uint8 (B, H, W, 3) -> feature maps float32 (B, C, h, w)."""
        return self.backbone(self.normalize(pixels))  # type: ignore[no-any-return]

    def classify(
        self, features: Tensor | None, has_picture: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Everything after the backbone.

        Args:
            features: feature maps float32 (B, C, h, w); None for a batch in which no row has a picture (the same
                result as rows that `has_picture` masks, without their cost).
            has_picture: bool (B,); None exactly where `features` is None.
            input_ids: int64 (B, T).
            attention_mask: int64 (B, T), 1 for a token, 0 for padding.

        Returns:
            logits float32 (B, L).
        """
        batch, num_labels = input_ids.shape[0], self.queries.shape[0]
        mask = attention_mask.to(self.queries.dtype)
        tokens = [self.queries.expand(batch, -1, -1)]
        present = [torch.ones_like(mask[:, :1]).expand(-1, num_labels)]
        if features is not None and has_picture is not None:
            # (B, C, h, w) -> (B, h * w, C). Dropout fills memory in order: in one layout, the same seed drops the same
            # values, wherever the features come from.
            cells = features.flatten(2).transpose(1, 2).contiguous()
            tokens.append(self.norm_picture(self.project(self.feature_dropout(cells))) + self.positions)
            present.append(has_picture.to(mask.dtype)[:, None].expand(-1, self.positions.shape[0]))
        tokens.append(self.norm_caption(self.caption(input_ids, attention_mask)) + self.caption_kind)
        present.append(mask)
        x, present_all = torch.cat(tokens, dim=1), torch.cat(present, dim=1)
        for layer in self.encoder:
            x = layer(x, present_all)
        answers = self.dropout(self.norm(x[:, :num_labels]))  # (B, L, D)
        return self.output((answers * self.label_weight).sum(-1) + self.label_bias)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The graph: see the class."""
        has_picture = pixels.flatten(1).float().amax(dim=1) > 0
        return self.classify(self.encode_picture(pixels), has_picture, input_ids, attention_mask)
