"""What the models share: a picture encoder in front, calibration at the end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, PIXELS
from mlic_train.config import ModelConfig

from .backbone import Backbone, Normalize, feature_grid
from .calibration import Calibration
from .heads import Logits


class Explained(NamedTuple):
    """Calibrated `logits` (B, L), and what each place contributes to them.

    `picture_evidence` is float32 (B, L, h, w), over the backbone's grid; `caption_evidence` is float32 (B, L, T), None
    for a model that reads no caption. Both are in logits, after the calibration's scale. What they leave of the logit
    belongs to no place: biases, the calibration's shift and, in the hybrid, the Transformer encoder's addition.
    """

    logits: Tensor
    picture_evidence: Tensor
    caption_evidence: Tensor | None


class Encoded(NamedTuple):
    """A batch as the models read it, with feature maps in the place of pictures.

    Attributes:
        features: feature maps float32 (B, C, h, w); None for a batch in which no row has a picture (the result is that
            of rows that `has_picture` masks, without their cost).
        has_picture: bool (B,); None exactly where `features` is None.
        input_ids: int64 (B, T); None for a model that reads no captions.
        attention_mask: int64 (B, T), 1 for a token, 0 for padding; None exactly where `input_ids` is None.
    """

    features: Tensor | None
    has_picture: Tensor | None
    input_ids: Tensor | None
    attention_mask: Tensor | None


class PictureModel(nn.Module, ABC):
    """A model with a picture encoder; a subclass of `PictureOnly` or of `PictureAndCaption`.

    What trains, exports and checks a model asks these two, and no model by name.

    Attributes:
        inputs: the names of what `forward` takes and the graph has, in order.
        vocab_size: token ids are below it; only in a model that takes `input_ids`.

    Raises:
        ConfigError: the pictures are too small for the backbone.
    """

    inputs: ClassVar[tuple[str, ...]]
    vocab_size: int
    calibration: Calibration

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.normalize = Normalize(config.mean or backbone.mean, config.std or backbone.std)
        self.backbone = backbone
        self.grid = feature_grid(backbone, config.image_size)  # (h, w)

    @property
    def explains(self) -> bool:
        """Whether the model can say where in its inputs its logits come from (see `explain`)."""
        return False

    @abstractmethod
    def arguments(self, encoded: Encoded) -> tuple[Any, ...]:
        """Return what `branches` and `classify` take of a batch.

        Raises:
            ValueError: one is None that the model cannot do without.
        """

    def start_captions(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the first weights of the caption encoder, by their names in it; without any nothing changes.

        Raises:
            RuntimeError: the model has no tensors of these names and shapes.
        """
        own = {f"caption.{name}": tensor for name, tensor in weights.items()}
        self.load_state_dict({**self.state_dict(), **own})

    def ignore_pictures(self) -> None:
        """Let pictures change nothing, for training without any: the picture branch would stay as it is made."""

    def on_grid(self, evidence: Tensor) -> Tensor:
        """Return evidence (B, L, h * w) as (B, L, h, w)."""
        return evidence.reshape(-1, evidence.shape[1], *self.grid)

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """Encode `pixels` uint8 (B, H, W, 3) as feature maps float32 (B, C, h, w)."""
        return self.backbone(self.normalize(pixels))  # type: ignore[no-any-return]


class PictureOnly(PictureModel):
    """A model that reads a picture and no caption.

    Graph: `pixels` uint8 (B, H, W, 3) -> `logits` float32 (B, L).
    """

    inputs = (PIXELS,)

    @override
    def arguments(self, encoded: Encoded) -> tuple[Any, ...]:
        if encoded.features is None:
            raise ValueError("a model that reads no captions needs a picture in every row")
        return (encoded.features,)

    @abstractmethod
    def branches(self, features: Tensor) -> Logits:
        """Return logits float32 (B, L) before calibration of feature maps float32 (B, C, h, w)."""

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
        raise TypeError(f"{type(self).__name__} does not explain its logits")


class PictureAndCaption(PictureModel):
    """A model that reads a picture and a caption, either of which a row may lack.

    Graph: `pixels` uint8 (B, H, W, 3), `input_ids` int64 (B, T), `attention_mask` int64 (B, T) -> `logits`
    float32 (B, L). An all-zero picture means "no picture", an all-zero mask row "no caption".
    """

    inputs = (PIXELS, INPUT_IDS, ATTENTION_MASK)

    @override
    def arguments(self, encoded: Encoded) -> tuple[Any, ...]:
        if encoded.input_ids is None or encoded.attention_mask is None:
            raise ValueError("a model that reads captions needs input_ids and attention_mask")
        return encoded

    @abstractmethod
    def branches(
        self,
        features: Tensor | None,
        has_picture: Tensor | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        evidence: bool = False,
    ) -> Logits:
        """Compute everything after the backbone, before calibration: the logits that the losses see.

        Args:
            features: see `Encoded`.
            has_picture: see `Encoded`.
            input_ids: see `Encoded`.
            attention_mask: see `Encoded`.
            evidence: also compute `Logits.picture_evidence` and `Logits.caption_evidence`, if the model `explains`.
        """

    def classify(
        self, features: Tensor | None, has_picture: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Return calibrated logits float32 (B, L); arguments as for `branches`."""
        logits = self.branches(features, has_picture, input_ids, attention_mask).fused
        has_caption = attention_mask[:, 0].to(logits.dtype)
        has = torch.zeros_like(has_caption) if has_picture is None else has_picture.to(logits.dtype)
        return self.calibration(logits, has, has_caption)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return `logits`, as the graph does."""
        return self.classify(self.encode_picture(pixels), _has_picture(pixels), input_ids, attention_mask)

    def explain(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Explained:
        """Return the logits with what each place of the picture and each token contributes; only if `explains`."""
        has_picture = _has_picture(pixels)
        raw = self.branches(self.encode_picture(pixels), has_picture, input_ids, attention_mask, evidence=True)
        has, has_caption = has_picture.to(raw.fused.dtype), attention_mask[:, 0].to(raw.fused.dtype)
        if raw.picture_evidence is None or raw.caption_evidence is None:
            raise TypeError(f"{type(self).__name__} does not explain its logits")
        scale = self.calibration.scale_of(has, has_caption)[:, :, None]
        picture = self.on_grid(scale * raw.picture_evidence)
        return Explained(self.calibration(raw.fused, has, has_caption), picture, scale * raw.caption_evidence)


def _has_picture(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).amax(dim=1) > 0
