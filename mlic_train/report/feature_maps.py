"""Feature maps of one picture: the strongest channels of the first, a middle and the last stage of the backbone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mlic_train.models import Model
from mlic_train.models.backbone import Backbone, Conv3

from .page import Plot
from .plots import drawable, plot

CHANNELS = 8


@dataclass(frozen=True)
class Stage:
    """The activations after one stage of a backbone for one picture, float32 (C, h, w)."""

    name: str
    maps: npt.NDArray[np.float32]

    def strongest(self, count: int = CHANNELS) -> list[int]:
        """Return the channels with the largest mean activation, largest first."""
        means = self.maps.mean(axis=(1, 2))
        return [int(i) for i in np.argsort(-means, kind="stable")[:count]]


def feature_maps(model: Model, pixels: npt.NDArray[np.uint8]) -> list[Stage]:
    """Run the backbone over one picture, uint8 (H, W, 3), and return the output of its stages."""
    stages: list[Stage] = []
    handles = [
        module.register_forward_hook(_keep(stages, name, channels))
        for name, module, channels in _stages(model.backbone)
    ]
    try:
        with torch.inference_mode():
            model.encode_picture(torch.from_numpy(pixels)[None])
    finally:
        for handle in handles:
            handle.remove()
    return stages


def feature_map_plot(pixels: npt.NDArray[np.uint8], stages: list[Stage]) -> Plot:
    """Return the picture as the model sees it, and beside it a row of feature maps per stage, each on its own scale."""
    figure = Figure(figsize=(11, 1.25 * max(2, len(stages)) + 0.1), layout="constrained")
    grid = figure.add_gridspec(len(stages), CHANNELS + 3)
    seen = figure.add_subplot(grid[:, :3])
    seen.imshow(pixels)
    seen.set_title(f"{pixels.shape[1]} x {pixels.shape[0]} pixels", fontsize=8)
    seen.set_axis_off()
    for row, stage in enumerate(stages):
        for column, channel in enumerate(stage.strongest()):
            axes = figure.add_subplot(grid[row, column + 3])
            values = stage.maps[channel]
            axes.imshow(values, cmap="viridis")
            axes.set(xticks=(), yticks=())
            axes.set_title(f"{channel}: {values.mean():.2g}", fontsize=7)
            if column == 0:
                size = f"{stage.maps.shape[0]} x {stage.maps.shape[1]} x {stage.maps.shape[2]}"
                axes.set_ylabel(f"{drawable(stage.name)}\n{size}", fontsize=7)
    return plot(figure, "Feature maps of " + ", ".join(stage.name for stage in stages))


def _stages(backbone: Backbone) -> list[tuple[str, nn.Module, int | None]]:
    """Return (name, module, channels) of the stages to show, in the order in which they run."""
    if isinstance(backbone, Conv3):
        activations = [module for module in backbone if isinstance(module, nn.ReLU)]
        return [(f"convolution {index}", module, None) for index, module in enumerate(activations, start=1)]
    timm_model: Any = backbone.model
    known = getattr(timm_model, "feature_info", None)
    # timm names the module at the end of each resolution; without such names, the last feature maps are shown.
    if not isinstance(known, list) or not known:
        return [("backbone", backbone, None)]
    stages = [(str(info["module"]), timm_model.get_submodule(info["module"]), int(info["num_chs"])) for info in known]
    return [stages[index] for index in sorted({0, len(stages) // 2, len(stages) - 1})]


def _keep(stages: list[Stage], name: str, channels: int | None) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
        maps = output[0].float()
        if channels is not None and maps.shape[0] != channels and maps.shape[-1] == channels:
            maps = maps.permute(2, 0, 1)  # some of timm's models keep channels last
        stages.append(Stage(name, maps.clone().numpy()))  # the next module may write into its input

    return hook
