import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .config import TrainConfig
from .dataset import Batch
from .models import Cnn, Model

_WARM_UP_STEPS = 100


class Learner(nn.Module):
    """A model as training sees it: a Batch of any kind in, logits float32 (B, L) out.

    Keeps what is frozen frozen: `train()` leaves a frozen backbone, or its batch statistics, in eval mode.
    """

    def __init__(self, model: Model, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.freeze_backbone = config.freeze_backbone
        self.freeze_batch_statistics = config.freeze_batch_statistics
        if config.freeze_backbone:
            model.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "Learner":
        """As torch's, except for what is frozen."""
        super().train(mode)
        if self.freeze_backbone:
            self.model.backbone.eval()
        elif self.freeze_batch_statistics:
            for module in self.model.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Logits float32 (B, L)."""
        features = batch.features
        if features is None and batch.pixels is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
                features = self.model.encode_picture(batch.pixels)
        if isinstance(self.model, Cnn):
            if features is None:
                raise ValueError("the model cnn needs a picture in every row")
            return self.model.classify(features)
        if batch.input_ids is None or batch.attention_mask is None:
            raise ValueError("the model hybrid needs input_ids and attention_mask")
        return self.model.classify(features, batch.has_picture, batch.input_ids, batch.attention_mask)


def create_optimizer(model: Model, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over what is not frozen; the backbone has a learning rate of its own."""
    backbone = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    owned = {id(parameter) for parameter in model.backbone.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in owned]
    groups = [{"params": rest, "base_lr": config.learning_rate}]
    if backbone:
        rate = config.learning_rate if config.backbone_learning_rate is None else config.backbone_learning_rate
        groups.append({"params": backbone, "base_lr": rate})
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total_steps: int) -> None:
    """Set the learning rates of step `step` in [0, total_steps); a function of the step alone, so nothing to save."""
    factor = 1.0
    if config.schedule == "cosine":
        warm_up = min(1.0, (step + 1) / min(_WARM_UP_STEPS, max(1, total_steps // 10)))
        factor = warm_up * 0.5 * (1.0 + math.cos(math.pi * step / max(1, total_steps)))
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
