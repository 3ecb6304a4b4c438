import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_train.config import ModelConfig

from .backbone import Backbone, Conv3
from .base import Explained, PictureModel
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

    @property
    @override
    def explains(self) -> bool:
        return isinstance(self.fully_connected[-1], PictureLabels) and not self.output.softmax

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

    def explain(self, pixels: Tensor) -> Explained:
        """Return the logits with what each place of the picture contributes; only if `explains`."""
        *before, labels = self.fully_connected
        if not isinstance(labels, PictureLabels):
            raise TypeError("a cnn with the origin's layers does not explain its logits")
        features = self.encode_picture(pixels)
        cells = nn.Sequential(*before)(features)
        has_picture = torch.ones_like(pixels[:, 0, 0, 0], dtype=cells.dtype)
        scale = self.calibration.scale_of(has_picture, torch.zeros_like(has_picture))[:, :, None]
        return Explained(self.classify(features), self.on_grid(scale * labels.evidence(cells)), None)


def _origin_layers(config: ModelConfig, values: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(values, config.hidden),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, config.num_labels),
    )
