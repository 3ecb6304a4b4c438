import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlic_runtime.base.override import override
from mlic_train.batches.dataset import Batch
from mlic_train.config import TrainConfig
from mlic_train.errors import ConfigError
from mlic_train.models import Logits, Model


class Learner(nn.Module):
    """A model as training sees it: a Batch of any kind in, logits float32 (B, L) out.

    `train()` leaves a frozen backbone, or its frozen batch statistics, in eval mode.

    Raises:
        ConfigError: `config` freezes more stages than the backbone has.
    """

    def __init__(self, model: Model, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.freeze_backbone = config.freeze_backbone
        self.freeze_batch_statistics = config.freeze_batch_statistics
        if config.freeze_backbone:
            model.backbone.requires_grad_(False)
        elif config.freeze_stages:
            stages = model.backbone.num_stages
            if config.freeze_stages >= stages:
                raise ConfigError(
                    f"freeze_stages is {config.freeze_stages}, but the backbone has {stages} stages; "
                    "give fewer, or --freeze-backbone for all"
                )
            for name, parameter in model.backbone.named_parameters():
                parameter.requires_grad_(model.backbone.stage_of(name) >= config.freeze_stages)

    @override
    def train(self, mode: bool = True) -> "Learner":
        super().train(mode)
        if self.freeze_backbone:
            self.model.backbone.eval()
        elif self.freeze_batch_statistics:
            for module in self.model.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, batch: Batch) -> Tensor | Logits:
        """Return calibrated logits float32 (B, L) in eval mode; `Logits`, which the losses need, in train mode."""
        if batch.features is None and batch.pixels is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
                batch = dataclasses.replace(batch, features=self.model.encode_picture(batch.pixels))
        apply = self.model.branches if self.training else self.model.classify
        return apply(*self.model.arguments(batch.encoded))
