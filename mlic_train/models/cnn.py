import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_train.config import ModelConfig

from .backbone import Backbone, Conv3
from .base import Explained, PictureOnly
from .calibration import Calibration
from .heads import LabelOutput, Logits, PictureLabels, Positions


class Cnn(PictureOnly):
    """The picture-only model: convolutions, pooling, fully connected layers.

    The origin's two fully connected layers follow its three convolutions. A timm backbone ends in a hundred times as
    many values: one layer follows it, whose results are pooled over the positions, as in the hybrid.
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

    @override
    def branches(self, features: Tensor) -> Logits:
        return Logits(self.output(self.fully_connected(features)))

    @override
    def explain(self, pixels: Tensor) -> Explained:
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
