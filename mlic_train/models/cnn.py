import torch
from torch import Tensor, nn

from mlic_train.config import ModelConfig

from .backbone import Backbone, Conv3
from .base import PictureModel
from .calibration import Calibration
from .heads import LabelOutput, Logits, PictureLabels, Positions


class Cnn(PictureModel):
    """The picture-only model: convolutions, pooling, fully connected layers.

    The origin's two fully connected layers follow its three convolutions. A timm backbone ends in a hundred times as
    many values: one layer follows it, whose results are pooled over the positions, as in the hybrid.

    Graph: `pixels` uint8 (B, H, W, 3) -> `logits` float32 (B, L).
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.fully_connected = (
            _origin_layers(config, backbone.num_features * self.grid[0] * self.grid[1])
            if isinstance(backbone, Conv3)
            else nn.Sequential(
                Positions(), nn.Dropout(config.dropout), PictureLabels(backbone.num_features, config.num_labels)
            )
        )
        self.output = LabelOutput(config.softmax_output)
        self.calibration = Calibration(config.num_labels)

    def branches(self, features: Tensor) -> Logits:
        """Return logits float32 (B, L) before calibration of feature maps float32 (B, C, h, w)."""
        return Logits(self.output(self.fully_connected(features)))

    def classify(self, features: Tensor) -> Tensor:
        """Return calibrated logits float32 (B, L) of feature maps float32 (B, C, h, w)."""
        logits = self.branches(features).fused
        has_picture = torch.ones_like(logits[:, 0])
        return self.calibration(logits, has_picture, torch.zeros_like(has_picture))  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """Return `logits`, as the graph does."""
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
