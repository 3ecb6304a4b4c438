from pathlib import Path

import pytest
import torch
from torch import nn

from mlic_train.batches.dataset import Batch
from mlic_train.config import LOSSES
from mlic_train.data import Record
from mlic_train.errors import ConfigError
from mlic_train.models import Logits
from mlic_train.models.heads import LabelOutput
from mlic_train.training.losses import create_loss, positive_weight, total_loss

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


@pytest.mark.parametrize("name", ["bce", "multilabel_soft_margin", "asymmetric"])
def test_positive_weights_act_on_positives_only(name: str) -> None:
    weight = torch.tensor([3.0, 3.0, 3.0])
    plain, weighed = create_loss(name), create_loss(name, positive_weight=weight)
    ones, zeros = torch.ones_like(LOGITS), torch.zeros_like(LOGITS)
    torch.testing.assert_close(weighed(LOGITS, ones), 3 * plain(LOGITS, ones))
    torch.testing.assert_close(weighed(LOGITS, zeros), plain(LOGITS, zeros))


def test_balance_weighs_rare_labels_more() -> None:
    rows = [(0,), (0,), (0, 1), (0,), ()]
    records = [Record(None, None, ("a",), labels, Path("x.csv"), 1) for labels in rows]
    weight = positive_weight(records, 3, balance=1.0)
    assert weight is not None
    torch.testing.assert_close(weight, torch.tensor([0.25, 4.0, 1.0]))  # a label that never occurs keeps weight 1
    root = positive_weight(records, 3, balance=0.5)
    assert root is not None
    torch.testing.assert_close(root, torch.tensor([0.5, 2.0, 1.0]))
    assert positive_weight(records, 3, balance=0.0) is None


def batch_of(has_picture: torch.Tensor | None, mask: list[list[int]]) -> Batch:
    attention_mask = torch.tensor(mask)
    return Batch(None, None, has_picture, attention_mask, attention_mask, TARGETS)


def test_auxiliary_losses_count_the_rows_that_have_the_modality() -> None:
    bce = create_loss("bce")
    batch = batch_of(torch.tensor([True, False]), [[1, 1], [0, 0]])
    logits = Logits(LOGITS, LOGITS + 1, LOGITS - 1)
    expected = bce(LOGITS, TARGETS) + 0.5 * 0.5 * (bce(LOGITS[:1] + 1, TARGETS[:1]) + bce(LOGITS[:1] - 1, TARGETS[:1]))
    torch.testing.assert_close(total_loss(bce, logits, batch, 0.5), expected)
    torch.testing.assert_close(total_loss(bce, logits, batch, 0.0), bce(LOGITS, TARGETS))


def test_a_batch_of_captions_has_no_loss_of_the_picture() -> None:
    bce = create_loss("bce")
    logits = Logits(LOGITS, None, LOGITS - 1)
    expected = bce(LOGITS, TARGETS) + bce(LOGITS - 1, TARGETS)
    torch.testing.assert_close(total_loss(bce, logits, batch_of(None, [[1], [1]]), 1.0), expected)


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bce, multilabel_soft_margin, softmax_bce, asymmetric"):
        create_loss("hinge")
