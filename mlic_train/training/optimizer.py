"""The optimizer and its learning rates, a function of the step alone."""

import math

import torch
from torch import nn

from mlic_train.config import TrainConfig
from mlic_train.models import Model

_WARM_UP_STEPS = 100


def create_optimizer(model: Model, config: TrainConfig) -> torch.optim.Optimizer:
    """Create Adam or AdamW for all parameters that are not frozen, one group for each learning rate.

    The backbone and a pretrained caption encoder have rates of their own. With `layer_decay` d the rate of a backbone
    stage is d times that of the next stage.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    last = model.backbone.num_stages - 1
    backbone_rate = config.learning_rate if config.backbone_learning_rate is None else config.backbone_learning_rate
    text_rate = config.learning_rate if config.text_learning_rate is None else config.text_learning_rate
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = config.learning_rate
        if name.startswith("backbone."):
            stage = model.backbone.stage_of(name.removeprefix("backbone."))
            rate = backbone_rate * config.layer_decay ** (last - stage)
        elif name.startswith("caption.encoder."):
            rate = text_rate
        groups.setdefault(rate, []).append(parameter)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    parameters = [{"params": group, "base_lr": rate} for rate, group in groups.items()]
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total_steps: int) -> None:
    """Set the learning rates of step `step` in [0, total_steps), a function of the step alone: nothing is saved."""
    factor = 1.0
    if config.schedule == "cosine":
        warm_up = min(1.0, (step + 1) / min(_WARM_UP_STEPS, max(1, total_steps // 10)))
        factor = warm_up * 0.5 * (1.0 + math.cos(math.pi * step / max(1, total_steps)))
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
