"""What the models share: a picture encoder in front, calibration at the end."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlic_train.config import ModelConfig

from .backbone import Backbone, Normalize, feature_grid
from .calibration import Calibration
from .heads import Logits


class Explained(NamedTuple):
    """Calibrated `logits` (B, L), and what each place contributes to them.

    `picture_evidence` is float32 (B, L, h, w), over the backbone's grid; `caption_evidence` is float32 (B, L, T), None
    for a model that reads no caption. Both are in logits, after the calibration's scale. What they leave of the logit
    belongs to no place: biases, the calibration's shift and, in the hybrid, the Transformer encoder's addition.
    """

    logits: Tensor
    picture_evidence: Tensor
    caption_evidence: Tensor | None


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

    @property
    def explains(self) -> bool:
        """Whether the model can say where in its inputs its logits come from (see `explain`)."""
        return False

    def on_grid(self, evidence: Tensor) -> Tensor:
        """Return evidence (B, L, h * w) as (B, L, h, w)."""
        return evidence.reshape(-1, evidence.shape[1], *self.grid)

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
        self,
        features: Tensor | None,
        has_picture: Tensor | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        evidence: bool = False,
    ) -> Logits:
        """Compute everything after the backbone, before calibration: the logits that the losses see.

        Args:
            features: feature maps float32 (B, C, h, w); None for a batch in which no row has a picture (the result is
                that of rows that `has_picture` masks, without their cost).
            has_picture: bool (B,); None exactly where `features` is None.
            input_ids: int64 (B, T).
            attention_mask: int64 (B, T), 1 for a token, 0 for padding.
            evidence: also compute `Logits.picture_evidence` and `Logits.caption_evidence`, if the model `explains`.
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
        return self.classify(self.encode_picture(pixels), _has_picture(pixels), input_ids, attention_mask)

    def explain(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Explained:
        """Return the logits with what each place of the picture and each token contributes; only if `explains`."""
        has_picture = _has_picture(pixels)
        raw = self.branches(self.encode_picture(pixels), has_picture, input_ids, attention_mask, evidence=True)
        has, has_caption = has_picture.to(raw.fused.dtype), attention_mask[:, 0].to(raw.fused.dtype)
        if raw.picture_evidence is None or raw.caption_evidence is None:
            raise TypeError(f"{type(self).__name__} does not explain its logits")
        scale = self.calibration.scale_of(has, has_caption)[:, :, None]
        picture = self.on_grid(scale * raw.picture_evidence)
        return Explained(self.calibration(raw.fused, has, has_caption), picture, scale * raw.caption_evidence)


def _has_picture(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).amax(dim=1) > 0
