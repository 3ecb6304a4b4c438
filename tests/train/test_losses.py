import pytest
import torch
from torch import nn

from mlic_train.config import LOSSES
from mlic_train.errors import ConfigError
from mlic_train.losses import create_loss
from mlic_train.models.output import LabelOutput

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("name", LOSSES)
def test_every_named_loss_falls_as_the_logits_get_better(name: str) -> None:
    loss = create_loss(name)
    better = TARGETS * 8 - 4
    assert loss(better, TARGETS) < loss(LOGITS, TARGETS) < loss(-better, TARGETS)


def test_bce_is_the_mean_over_rows_and_labels() -> None:
    probabilities = torch.sigmoid(LOGITS)
    expected = -(TARGETS * probabilities.log() + (1 - TARGETS) * (1 - probabilities).log()).mean()
    torch.testing.assert_close(create_loss("bce")(LOGITS, TARGETS), expected)


def test_multilabel_soft_margin_is_torchs() -> None:
    torch.testing.assert_close(
        create_loss("multilabel_soft_margin")(LOGITS, TARGETS), nn.MultiLabelSoftMarginLoss()(LOGITS, TARGETS)
    )


def test_softmax_bce_is_bce_on_the_softmax() -> None:
    expected = nn.functional.binary_cross_entropy(torch.softmax(LOGITS, dim=1), TARGETS)
    torch.testing.assert_close(create_loss("softmax_bce")(LabelOutput(True)(LOGITS), TARGETS), expected)


def test_asymmetric_is_the_papers_formula() -> None:
    p = torch.sigmoid(LOGITS)
    shifted = (p - 0.05).clamp(min=0)
    expected = -(TARGETS * p.log() + (1 - TARGETS) * shifted**4 * (1 - shifted).log()).mean()
    torch.testing.assert_close(create_loss("asymmetric")(LOGITS, TARGETS), expected)


def test_asymmetric_stays_finite_where_the_model_is_sure_and_wrong() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = create_loss("asymmetric")(logits, torch.tensor([[0.0, 1.0]]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_label_smoothing_moves_targets_towards_one_half() -> None:
    expected = create_loss("bce")(LOGITS, TARGETS * 0.8 + 0.1)
    torch.testing.assert_close(create_loss("bce", label_smoothing=0.2)(LOGITS, TARGETS), expected)


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bce, multilabel_soft_margin, softmax_bce, asymmetric"):
        create_loss("hinge")
