import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlic_train.batches.dataset import Batch
from mlic_train.config import TrainConfig
from mlic_train.errors import ConfigError
from mlic_train.models import Cnn, Logits, Model


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
        elif config.freeze_stages:
            _check_stages(model, config.freeze_stages)
            for name, parameter in model.backbone.named_parameters():
                parameter.requires_grad_(model.backbone.stage_of(name) >= config.freeze_stages)

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

    def forward(self, batch: Batch) -> Tensor | Logits:
        """Calibrated logits float32 (B, L) in eval mode; `Logits`, what the losses need, in train mode."""
        features = batch.features
        if features is None and batch.pixels is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
                features = self.model.encode_picture(batch.pixels)
        if isinstance(self.model, Cnn):
            if features is None:
                raise ValueError("the model cnn needs a picture in every row")
            return self.model.branches(features) if self.training else self.model.classify(features)
        if batch.input_ids is None or batch.attention_mask is None:
            raise ValueError("a model that reads captions needs input_ids and attention_mask")
        read = self.model.branches if self.training else self.model.classify
        return read(features, batch.has_picture, batch.input_ids, batch.attention_mask)


def _check_stages(model: Model, frozen: int) -> None:
    if frozen >= model.backbone.num_stages:
        raise ConfigError(
            f"freeze_stages is {frozen}, but the backbone has {model.backbone.num_stages} stages; "
            "give fewer, or --freeze-backbone for all"
        )
