import torch
from torch import Tensor, nn

from .backbone import Backbone, Normalize
from .calibration import Calibration
from .heads import Logits


class PictureAndCaption(nn.Module):
    """What every model that reads both does around its `branches`: preprocessing, calibration, the graph.

    Graph: `pixels` uint8 (B, H, W, 3), `input_ids` int64 (B, T), `attention_mask` int64 (B, T) -> `logits`
    float32 (B, L). An all-zero picture means "no picture", an all-zero mask row "no caption".
    """

    normalize: Normalize
    backbone: Backbone
    calibration: Calibration

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """`pixels` uint8 (B, H, W, 3) -> feature maps float32 (B, C, h, w)."""
        return self.backbone(self.normalize(pixels))  # type: ignore[no-any-return]

    def branches(
        self, features: Tensor | None, has_picture: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> Logits:
        """Everything after the backbone, before calibration; see the models."""
        raise NotImplementedError

    def classify(
        self, features: Tensor | None, has_picture: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Everything after the backbone: calibrated logits float32 (B, L); arguments as for `branches`."""
        logits = self.branches(features, has_picture, input_ids, attention_mask).fused
        has_caption = attention_mask[:, 0].to(logits.dtype)
        has = torch.zeros_like(has_caption) if has_picture is None else has_picture.to(logits.dtype)
        return self.calibration(logits, has, has_caption)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The graph: see the class."""
        has_picture = pixels.flatten(1).float().amax(dim=1) > 0
        return self.classify(self.encode_picture(pixels), has_picture, input_ids, attention_mask)
