from torch import Tensor, nn

from mlic_train.config import ModelConfig

from .backbone import Backbone, Normalize, feature_grid
from .output import LabelOutput


class Cnn(nn.Module):
    """The origin's picture-only model: convolutions, pooling, fully connected layers.

    Graph: `pixels` uint8 (B, H, W, 3) -> `logits` float32 (B, L).
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.normalize = Normalize(config.mean or backbone.mean, config.std or backbone.std)
        self.backbone = backbone
        height, width = feature_grid(backbone, config.image_size)
        self.fully_connected = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(backbone.num_features * height * width, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.num_labels),
        )
        self.output = LabelOutput(config.softmax_output)

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """`pixels` uint8 (B, H, W, 3) -> feature maps float32 (B, C, h, w)."""
        return self.backbone(self.normalize(pixels))  # type: ignore[no-any-return]

    def classify(self, features: Tensor) -> Tensor:
        """Feature maps float32 (B, C, h, w) -> logits float32 (B, L)."""
        return self.output(self.fully_connected(features.contiguous()))  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """The graph: `pixels` uint8 (B, H, W, 3) -> `logits` float32 (B, L)."""
        return self.classify(self.encode_picture(pixels))
