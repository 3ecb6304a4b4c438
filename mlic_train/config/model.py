"""Options of a model: what it takes to build one and to feed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlic_runtime.base.option import check, option, options_of
from mlic_runtime.package.manifest import INTERPOLATIONS, RESIZE_MODES, ImageSpec, TextSpec
from mlic_train.errors import ConfigError

ORIGIN_HYBRID = "origin_hybrid"
MODELS = ("cnn", "hybrid", ORIGIN_HYBRID)
PICTURE_MODELS = ("cnn",)  # these read no captions
ORIGIN_BACKBONE = "conv3"
LATE, CROSS = "late", "cross"
FUSIONS = (LATE, "transformer", CROSS)
LSTM = "lstm"
MEAN = "mean"
OWN_TEXT_ENCODERS = (LSTM, MEAN)  # any other name is where a Hugging Face encoder is
# What a model takes instead of the usual defaults. The origin saw every row whole and tuned no threshold;
# `max_length` counts characters there.
MODEL_DEFAULTS: Mapping[str, Mapping[str, str | float]] = {
    ORIGIN_HYBRID: {
        "hidden": 1024,
        "max_length": 256,
        "loss": "multilabel_soft_margin",
        "drop_caption": 0.0,
        "drop_picture": 0.0,
        "calibration": "none",
        "threshold_for": "fixed=0.5",
    }
}
_CONV3_SIZE = 112  # the three convolutions divide by 8: 14 x 14 positions, as many as the encoder can attend to
_TIMM_SIZE = 224


def by_model(name: str) -> str:
    """Return in words what models take instead of an option's usual default."""
    return "; ".join(f"for {model} {own[name]}" for model, own in MODEL_DEFAULTS.items() if name in own)


_model = partial(option, group="Model")
_picture = partial(option, group="Picture encoder")
_caption = partial(option, group="Caption encoder")
_dropout = partial(option, group="Regularisation", low=0, high=0.95)


@dataclass(frozen=True)
class ModelConfig:
    """What it takes to build a model and to feed it.

    `labels` are those of the data. `text_config` is the architecture of a Hugging Face caption encoder (the content of
    its config.json), so that the run folder needs nothing else.
    """

    name: str = _model("hybrid", "What to train; cnn: pictures only.", choices=MODELS, flag="model", common=True)
    labels: tuple[str, ...] = ()
    image_size: int = _picture(
        None,
        "Pixels a side that the model sees.",
        low=16,
        high=4096,
        common=True,
        follows=f"{_CONV3_SIZE} for conv3, else {_TIMM_SIZE}",
    )
    interpolation: str = _picture("bilinear", "How pictures are resized.", choices=INTERPOLATIONS)
    resize: str = _picture(
        "stretch", "How a picture becomes a square: stretched, or its middle cut out.", choices=RESIZE_MODES
    )
    backbone: str = _picture(
        ORIGIN_BACKBONE,
        "Picture encoder: conv3 (three convolutions) or a timm model, e.g. tf_efficientnet_lite0.",
        common=True,
    )
    mean: tuple[float, float, float] | None = _picture(
        None, "Mean of red, green and blue, of the 0..1 picture.", low=0, high=1, follows="the backbone's"
    )
    std: tuple[float, float, float] | None = _picture(
        None,
        "Standard deviation of red, green and blue, of the 0..1 picture.",
        low=0,
        high=1,
        open_low=True,
        follows="the backbone's",
    )
    hidden: int = _model(
        128,
        "Width of the fully connected layer of cnn and origin_hybrid.",
        low=1,
        high=8192,
        follows=by_model("hidden"),
    )
    width: int = _model(128, "Width of the LSTM and the Transformer encoder.", low=1, high=8192)
    num_layers: int = _model(2, "Layers of the Transformer encoder.", low=1, high=8192)
    num_heads: int = _model(4, "Attention heads of the Transformer encoder.", low=1, high=8192)
    dropout: float = _dropout(0.5, "Dropout before the output layer and on picture features.")
    encoder_dropout: float = _dropout(0.1, "Dropout inside the Transformer encoder.")
    word_dropout: float = _dropout(0.0, "Probability that a token's embedding is left out for a step.")
    # Huang et al. 2016, "Deep Networks with Stochastic Depth"
    drop_path: float = _dropout(0.0, "Stochastic depth of a timm backbone (Huang et al. 2016).")
    fusion: str = _model(
        "transformer",
        "How picture and caption meet. late: their logits are added. transformer: so they are, and a query for each "
        "label reads the caption and the other queries. cross: the query reads the caption only, for thousands of "
        "labels.",
        choices=FUSIONS,
    )
    text_encoder: str = _caption(
        LSTM,
        "lstm, mean (a caption is the mean of its token embeddings, a baseline without order), or a Hugging Face "
        "encoder: folder or hub id.",
    )
    text_config: Mapping[str, Any] | None = None
    vocab_size: int = _caption(8000, "Largest vocabulary of the trained tokenizer.", low=2, high=10_000_000)
    max_length: int = _caption(
        64, "Tokens that are read of a caption.", low=1, high=8192, follows=by_model("max_length")
    )
    softmax_output: bool = None  # type: ignore[assignment] # follows from the loss, in `resolve_configs`

    def __post_init__(self) -> None:
        size = _CONV3_SIZE if self.backbone == ORIGIN_BACKBONE else _TIMM_SIZE
        own = {**MODEL_DEFAULTS.get(self.name, {}), "image_size": size}
        for name in ("image_size", "hidden", "max_length"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, own.get(name, options_of(self)[name].default))
        check(self, ConfigError)
        if self.width % (2 * self.num_heads):
            raise ConfigError(
                f"width {self.width} must be a multiple of 2 x num_heads ({2 * self.num_heads}): "
                "every head gets an equal share and the LSTM has two directions"
            )

    @property
    def num_labels(self) -> int:
        """The number of labels, L."""
        return len(self.labels)

    @property
    def reads_captions(self) -> bool:
        """Whether the model reads captions, not pictures alone."""
        return self.name not in PICTURE_MODELS

    @property
    def image_spec(self) -> ImageSpec:
        """How the runtime prepares a picture for this model."""
        return ImageSpec(self.image_size, self.image_size, self.interpolation, self.resize)

    @property
    def text_spec(self) -> TextSpec | None:
        """How the runtime prepares a caption for this model; None where it reads none."""
        return TextSpec(self.max_length, self.vocab_size) if self.reads_captions else None
