"""What the models share: a picture encoder in front, calibration at the end."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mlic_train.config import ModelConfig

from .backbone import Backbone, Normalize, feature_grid
from .calibration import Calibration
from .heads import Logits


class PictureModel(nn.Module, ABC):
    """A model with a picture encoder.

    Raises:
        ConfigError: the pictures are too small for the backbone.
    """

    calibration: Calibration

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.normalize = Normalize(config.mean or backbone.mean, config.std or backbone.std)
        self.backbone = backbone
        self.grid = feature_grid(backbone, config.image_size)  # (h, w)

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """Encode `pixels` uint8 (B, H, W, 3) as feature maps float32 (B, C, h, w)."""
        return self.backbone(self.normalize(pixels))  # type: ignore[no-any-return]


class PictureAndCaption(PictureModel):
    """A model that reads a picture and a caption, either of which a row may lack.

    Graph: `pixels` uint8 (B, H, W, 3), `input_ids` int64 (B, T), `attention_mask` int64 (B, T) -> `logits`
    float32 (B, L). An all-zero picture means "no picture", an all-zero mask row "no caption".
    """

    @abstractmethod
    def branches(
        self, features: Tensor | None, has_picture: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> Logits:
        """Compute everything after the backbone, before calibration: the logits that the losses see.

        Args:
            features: feature maps float32 (B, C, h, w); None for a batch in which no row has a picture (the result is
                that of rows that `has_picture` masks, without their cost).
            has_picture: bool (B,); None exactly where `features` is None.
            input_ids: int64 (B, T).
            attention_mask: int64 (B, T), 1 for a token, 0 for padding.
        """

    def classify(
        self, features: Tensor | None, has_picture: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Return calibrated logits float32 (B, L); arguments as for `branches`."""
        logits = self.branches(features, has_picture, input_ids, attention_mask).fused
        has_caption = attention_mask[:, 0].to(logits.dtype)
        has = torch.zeros_like(has_caption) if has_picture is None else has_picture.to(logits.dtype)
        return self.calibration(logits, has, has_caption)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return `logits`, as the graph does."""
        has_picture = pixels.flatten(1).float().amax(dim=1) > 0
        return self.classify(self.encode_picture(pixels), has_picture, input_ids, attention_mask)
