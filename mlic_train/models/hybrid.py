import torch
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_train.config import CROSS, LATE, LSTM, OWN_TEXT_ENCODERS, ModelConfig
from mlic_train.errors import ConfigError

from .attention import EncoderLayer
from .backbone import Backbone
from .base import PictureAndCaption
from .calibration import Calibration
from .caption import LstmEncoder, MeanEncoder
from .heads import CaptionLabels, LabelOutput, Logits, PictureLabels, Positions

_UNLIKELY = -10.0  # a logit
_EVIDENCE = 3  # per label: the caption's logit, the picture's logit, and whether there is a picture


class Hybrid(PictureAndCaption):
    """A CNN reads the picture, an LSTM the caption, and label queries put both together in a Transformer encoder.

    Picture and caption have logits of their own, which late fusion adds up. With `fusion` "transformer" or "cross" the
    results of the label queries are added where there is a caption: they hold what neither input says alone.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.vocab_size = config.vocab_size
        width, num_labels = config.width, config.num_labels
        self.cells = Positions()  # not renamed: node names of the released graphs contain it
        self.feature_dropout = nn.Dropout(config.dropout)
        self.caption = _caption_encoder(config)
        self.dropout = nn.Dropout(config.dropout)
        self.picture_labels = PictureLabels(backbone.num_features, num_labels)
        self.caption_labels = CaptionLabels(width, num_labels)
        # The weights of both logits in rows with both inputs: below 1, since the two share their evidence.
        self.picture_share = nn.Parameter(torch.full((num_labels,), 0.6))
        self.caption_share = nn.Parameter(torch.full((num_labels,), 0.6))
        self.interaction = None if config.fusion == LATE else Interaction(config)
        self.output = LabelOutput(config.softmax_output)
        self.calibration = Calibration(num_labels)

    @property
    @override
    def explains(self) -> bool:
        return not self.output.softmax

    @override
    @torch.no_grad()
    def ignore_pictures(self) -> None:
        # Pictures change nothing where there is a caption, and no label is likely where there is none.
        self.picture_share.zero_()
        self.caption_share.fill_(1.0)
        self.picture_labels.scores.weight.zero_()
        self.picture_labels.scores.bias.fill_(_UNLIKELY)
        if self.interaction is not None:
            self.interaction.evidence.weight[:, 1:] = 0.0  # the picture's logit, and whether there is a picture

    @override
    def branches(
        self,
        features: Tensor | None,
        has_picture: Tensor | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        evidence: bool = False,
    ) -> Logits:
        present = attention_mask.to(self.picture_share.dtype)
        has_caption = present[:, :1]  # (B, 1): captions are padded on the right
        states = self.caption(input_ids, attention_mask)
        caption = self.caption_labels(self.dropout(states), present)
        picture = has = picture_evidence = caption_evidence = None
        caption_share = has_caption
        if features is None or has_picture is None:
            fused = has_caption * caption
        else:
            has = has_picture.to(present.dtype)[:, None]  # (B, 1)
            cells = self.feature_dropout(self.cells(features))
            picture = self.picture_labels(cells)
            both = has * has_caption
            picture_share = has - both * (1.0 - self.picture_share)  # (B, L): 1 alone, picture_share with a caption
            caption_share = has_caption - both * (1.0 - self.caption_share)
            fused = picture_share * picture + caption_share * caption
            if evidence:
                picture_evidence = picture_share[:, :, None] * self.picture_labels.evidence(cells)
        if evidence:
            caption_evidence = caption_share.expand_as(caption)[:, :, None] * self.caption_labels.evidence(
                states, present
            )
        if self.interaction is not None:
            fused = fused + has_caption * self.interaction(states, present, caption, has, picture)
        return Logits(self.output(fused), picture, caption, picture_evidence, caption_evidence)


class Interaction(nn.Module):
    """A Transformer encoder over label queries and caption states; its (B, L) is added to a captioned row's logits.

    A label's query contains the logits of both inputs, so that the caption is read again with the picture known. The
    output weights start at zero, so that training begins at late fusion.

    With `fusion` "transformer" queries attend to each other too, in time and memory that grow with the square of their
    number. With "cross" they attend to the caption alone (cross-attention), which grows with their number.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_caption = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(config.num_labels, width) * 0.02)
        self.evidence = nn.Linear(_EVIDENCE, width)
        self.encoder = nn.ModuleList(
            EncoderLayer(width, config.num_heads, config.encoder_dropout) for _ in range(config.num_layers)
        )
        self.first = config.num_labels if config.fusion == CROSS else 0  # that is attended to
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.label_weight = nn.Parameter(torch.zeros(config.num_labels, width))

    def forward(
        self, states: Tensor, present: Tensor, caption: Tensor, has_picture: Tensor | None, picture: Tensor | None
    ) -> Tensor:
        """Return float32 (B, L), to be added to the sum of both logits.

        Args:
            states: of the caption (B, T, D).
            present: (B, T) float 1/0.
            caption: logits (B, L) of the caption alone.
            has_picture: (B, 1) float 1/0; None, as `picture` is then, where no row has a picture.
            picture: logits (B, L) of the picture alone.
        """
        if has_picture is None or picture is None:
            has_picture, picture = torch.zeros_like(present[:, :1]), torch.zeros_like(caption)
        # Each branch learns from a loss of its own; the gradient of this module must not change its logits.
        evidence = (caption.detach(), has_picture * picture.detach(), has_picture.expand_as(caption))
        queries = self.queries + self.evidence(torch.stack(evidence, dim=-1))  # (B, L, D)
        x = torch.cat((queries, self.norm_caption(states)), dim=1)
        present_all = torch.cat((torch.ones_like(caption), present), dim=1)
        for layer in self.encoder:
            x = layer(x, present_all, self.first)
        labels = self.dropout(self.norm(x[:, : self.queries.shape[0]]))  # (B, L, D)
        return (labels * self.label_weight).sum(-1)  # type: ignore[no-any-return]


def _caption_encoder(config: ModelConfig) -> nn.Module:
    if config.text_encoder in OWN_TEXT_ENCODERS:
        encoder = LstmEncoder if config.text_encoder == LSTM else MeanEncoder
        return encoder(config.vocab_size, config.width, config.dropout, config.word_dropout)
    if config.text_config is None:
        raise ConfigError(
            f"text_encoder is {config.text_encoder!r} but text_config is missing: config.json is incomplete"
        )
    from .huggingface import HuggingFaceEncoder

    return HuggingFaceEncoder(config.text_config, config.width, config.dropout)
