import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 # torch's own convention

BOTH, PICTURE_ONLY, CAPTION_ONLY = range(3)


class Calibration(nn.Module):
    """The last step of a finished model: a shift for fewer empty rows, then scale * logit + bias per label and mode.

    Empty rows have none of the labels. Where they are rarer in use than in training, by a factor `empty_odds` r on
    their odds, Bayes' rule divides every label's probability p by 1 - (1 - r) * N (Saerens et al. 2002, "Adjusting the
    Outputs of a Classifier to New a Priori Probabilities"). N is the probability of an empty row: the product of all
    1 - p, as if labels were independent. In logits that is z - log(1 - (1 - r) * N / (1 - p)).

    With both inputs a model is more confident, and makes other errors, than with one. So each of the three modes has
    its own numbers. They are buffers and not trained: the identity until `mlic_train.measure.calibration` fits them on
    the validation split.

    `scale` and `bias` float32 (3, L); rows BOTH, PICTURE_ONLY, CAPTION_ONLY. `empty_odds` float32 () in (0, 1].
    """

    empty_odds: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("empty_odds", torch.tensor(1.0))
        self.register_buffer("scale", torch.ones(3, num_labels))
        self.register_buffer("bias", torch.zeros(3, num_labels))

    def forward(self, logits: Tensor, has_picture: Tensor, has_caption: Tensor) -> Tensor:
        """Calibrate logits.

        Args:
            logits: float32 (B, L).
            has_picture: bool or 0 and 1 (B).
            has_caption: bool or 0 and 1 (B); a row without picture and caption counts as a caption alone.

        Returns:
            float32 (B, L).
        """
        mode = self._mode(has_picture, has_caption)
        # A sum instead of a matrix product, because quantizers would round the constants of a product to eight bits.
        logits = self.with_fewer_empty_rows(logits)
        return logits * (mode * self.scale).sum(dim=1) + (mode * self.bias).sum(dim=1)

    def scale_of(self, has_picture: Tensor, has_caption: Tensor) -> Tensor:
        """Return the factor float32 (B, L) of each row's logits; arguments as in `forward`."""
        return (self._mode(has_picture, has_caption) * self.scale).sum(dim=1)

    def _mode(self, has_picture: Tensor, has_caption: Tensor) -> Tensor:
        """Return the mode of each row, one-hot float32 (B, 3, 1)."""
        picture, caption = has_picture.to(self.scale.dtype), has_caption.to(self.scale.dtype)
        return torch.stack([picture * caption, picture * (1 - caption), 1 - picture], dim=1)[:, :, None]

    def with_fewer_empty_rows(self, logits: Tensor) -> Tensor:
        """Apply the shift alone: float32 (B, L) to (B, L)."""
        log_absent = -F.softplus(logits)  # log(1 - p)
        none_of_the_others = torch.exp(log_absent.sum(dim=1, keepdim=True) - log_absent)
        return logits - torch.log(1.0 - (1.0 - self.empty_odds) * none_of_the_others)

    def set(self, mode: int, scale: Tensor, bias: Tensor) -> None:
        """Set the numbers of one mode.

        Args:
            mode: BOTH, PICTURE_ONLY or CAPTION_ONLY.
            scale: float (L), greater than 0, which keeps the order of the rows.
            bias: float (L).

        Raises:
            ValueError: a scale that is not greater than 0, or a number that is not finite.
        """
        if not (bool((scale > 0).all()) and bool(torch.isfinite(scale).all()) and bool(torch.isfinite(bias).all())):
            raise ValueError(f"calibration needs finite scales greater than 0 and finite biases, found {scale}, {bias}")
        self.scale[mode], self.bias[mode] = scale, bias

    def reset(self) -> None:
        """Restore the identity in every mode."""
        self.empty_odds.fill_(1.0)
        self.scale.fill_(1.0)
        self.bias.zero_()
