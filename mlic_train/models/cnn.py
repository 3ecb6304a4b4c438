import torch
from torch import Tensor, nn

from mlic_train.config import ModelConfig

from .backbone import Backbone, Conv3, Normalize, feature_grid
from .calibration import Calibration
from .heads import LabelOutput, Logits, PictureLabels, Positions


class Cnn(nn.Module):
    """The picture-only model: convolutions, pooling, fully connected layers.

    Over the origin's three convolutions stand its two fully connected layers. A timm backbone has a hundred times as
    many values at its end; over it stands one layer whose answers are pooled over the positions, as in the hybrid.

    Graph: `pixels` uint8 (B, H, W, 3) -> `logits` float32 (B, L).
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.normalize = Normalize(config.mean or backbone.mean, config.std or backbone.std)
        self.backbone = backbone
        grid = feature_grid(backbone, config.image_size)
        self.fully_connected = (
            _origin_layers(config, backbone.num_features * grid[0] * grid[1])
            if isinstance(backbone, Conv3)
            else nn.Sequential(
                Positions(), nn.Dropout(config.dropout), PictureLabels(backbone.num_features, config.num_labels)
            )
        )
        self.output = LabelOutput(config.softmax_output)
        self.calibration = Calibration(config.num_labels)

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """`pixels` uint8 (B, H, W, 3) -> feature maps float32 (B, C, h, w)."""
        return self.backbone(self.normalize(pixels))  # type: ignore[no-any-return]

    def branches(self, features: Tensor) -> Logits:
        """Feature maps float32 (B, C, h, w) -> logits float32 (B, L) before calibration."""
        return Logits(self.output(self.fully_connected(features)))

    def classify(self, features: Tensor) -> Tensor:
        """Feature maps float32 (B, C, h, w) -> calibrated logits float32 (B, L)."""
        logits = self.branches(features).fused
        has_picture = torch.ones_like(logits[:, 0])
        return self.calibration(logits, has_picture, torch.zeros_like(has_picture))  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """The graph: `pixels` uint8 (B, H, W, 3) -> `logits` float32 (B, L)."""
        return self.classify(self.encode_picture(pixels))


def _origin_layers(config: ModelConfig, values: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(values, config.hidden),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, config.num_labels),
    )
