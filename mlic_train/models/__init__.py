"""The models, by name: `create_model(ModelConfig(...))`."""

from pathlib import Path

from mlic_train.config import ModelConfig
from mlic_train.errors import ConfigError

from .backbone import create_backbone
from .base import PictureAndCaption, PictureOnly
from .cnn import Cnn
from .heads import Logits
from .hybrid import Hybrid
from .origin_hybrid import OriginHybrid

__all__ = ["Cnn", "Hybrid", "Logits", "Model", "OriginHybrid", "create_model"]

Model = PictureOnly | PictureAndCaption
_KINDS: dict[str, type[Model]] = {"cnn": Cnn, "hybrid": Hybrid, "origin_hybrid": OriginHybrid}


def create_model(config: ModelConfig, backbone_weights: str | Path | None = None) -> Model:
    """Build a model with random weights; those of its backbone may be pretrained.

    Args:
        config: the architecture; `config.name` is one of "cnn", "hybrid" and "origin_hybrid".
        backbone_weights: see `mlic_train.models.backbone.create_backbone`.

    Raises:
        ConfigError: fewer than two labels, an unknown backbone, or weights that do not fit.
    """
    if config.num_labels < 2:
        raise ConfigError(f"a multi-label model needs at least two labels, found {config.num_labels}")
    backbone = create_backbone(config.backbone, backbone_weights, config.drop_path)
    return _KINDS[config.name](config, backbone)
