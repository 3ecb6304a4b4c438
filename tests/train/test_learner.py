import dataclasses

import pytest
import torch

from mlic_train.batches.dataset import Batch
from mlic_train.config import ModelConfig, TrainConfig
from mlic_train.errors import ConfigError
from mlic_train.models import create_model
from mlic_train.training.average import WeightAverage
from mlic_train.training.learner import Learner
from mlic_train.training.optimizer import create_optimizer, set_learning_rate

BATCH = Batch(
    pixels=torch.randint(1, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    features=None,
    has_picture=torch.tensor([True, True]),
    input_ids=torch.tensor([[3, 4], [5, 0]]),
    attention_mask=torch.tensor([[1, 1], [1, 0]]),
    targets=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
)


@pytest.fixture
def lite0(small_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(small_model, backbone="tf_efficientnet_lite0", image_size=64)


def step(config: ModelConfig, train: TrainConfig) -> tuple[Learner, dict[str, torch.Tensor]]:
    """One optimisation step; the learner and the model's state before it."""
    torch.manual_seed(0)
    learner = Learner(create_model(config), train).train()
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    optimizer = create_optimizer(learner.model, train)
    set_learning_rate(optimizer, train, 0, 1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(learner(BATCH).fused, BATCH.targets)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
    optimizer.step()
    return learner, before


def changed(learner: Learner, before: dict[str, torch.Tensor], part: str) -> set[str]:
    after = learner.model.state_dict()
    return {name for name in before if part in name and not torch.equal(before[name], after[name])}


def test_a_frozen_backbone_changes_in_nothing(lite0: ModelConfig) -> None:
    learner, before = step(lite0, TrainConfig(freeze_backbone=True))
    assert not changed(learner, before, "backbone.")
    assert changed(learner, before, "label_weight")


def test_frozen_stages_are_the_first_ones(lite0: ModelConfig) -> None:
    learner, before = step(lite0, TrainConfig(freeze_stages=3, freeze_batch_statistics=True))
    moved = changed(learner, before, "backbone.")
    assert moved
    assert {learner.model.backbone.stage_of(name.removeprefix("backbone.")) for name in moved} == {3, 4, 5, 6, 7}


def test_freezing_all_stages_is_told_apart_from_freezing_the_backbone(lite0: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="freeze_stages is 8, but the backbone has 8 stages"):
        Learner(create_model(lite0), TrainConfig(freeze_stages=8))


def test_layer_decay_lowers_the_rate_stage_by_stage(lite0: ModelConfig) -> None:
    model = create_model(lite0)
    optimizer = create_optimizer(model, TrainConfig(learning_rate=0.1, backbone_learning_rate=0.01, layer_decay=0.5))
    rate = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert rate[id(names["caption.embedding.weight"])] == 0.1
    assert rate[id(names["backbone.model.conv_head.weight"])] == 0.01
    assert rate[id(names["backbone.model.conv_stem.weight"])] == pytest.approx(0.01 * 0.5**7)
    assert len(rate) == len(names)


def test_the_origin_backbone_has_three_stages(small_model: ModelConfig) -> None:
    learner, before = step(dataclasses.replace(small_model, image_size=64), TrainConfig(freeze_stages=1))
    assert changed(learner, before, "backbone.") == {
        f"backbone.{i}.{kind}" for i in (3, 6) for kind in ("weight", "bias")
    }


def test_in_training_a_learner_shows_every_modality(small_model: ModelConfig) -> None:
    learner = Learner(create_model(dataclasses.replace(small_model, image_size=64)), TrainConfig())
    shown = learner.train()(BATCH)
    assert [tensor.shape for tensor in shown[:3] if tensor is not None] == [(2, 3)] * 3
    assert shown[3:] == (None, None)  # evidence is for predictions
    alone = dataclasses.replace(BATCH, pixels=None, has_picture=None)
    assert learner(alone).picture is None
    assert learner.eval()(BATCH).shape == (2, 3)


def test_fine_tuning_moves_weights_but_not_frozen_statistics(lite0: ModelConfig) -> None:
    learner, before = step(lite0, TrainConfig(freeze_batch_statistics=True))
    assert "backbone.model.conv_stem.weight" in changed(learner, before, "backbone.")
    assert not changed(learner, before, "running_mean")


def test_a_new_backbone_learns_its_statistics(lite0: ModelConfig) -> None:
    learner, before = step(lite0, TrainConfig())
    assert changed(learner, before, "running_mean")


def test_the_backbone_has_a_learning_rate_of_its_own(lite0: ModelConfig) -> None:
    learner, before = step(lite0, TrainConfig(backbone_learning_rate=0.0, freeze_batch_statistics=True))
    assert not changed(learner, before, "backbone.")
    assert changed(learner, before, "label_weight")


def test_cosine_warms_up_and_falls_to_nothing(small_model: ModelConfig) -> None:
    train = TrainConfig(schedule="cosine", learning_rate=0.1)
    optimizer = create_optimizer(create_model(small_model), train)
    rates = []
    for index in range(1000):
        set_learning_rate(optimizer, train, index, 1000)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.001, rel=0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates.index(max(rates)) == 99
    assert rates[-1] < 1e-6


def test_a_constant_rate_stays(small_model: ModelConfig) -> None:
    train = TrainConfig(learning_rate=0.02)
    optimizer = create_optimizer(create_model(small_model), train)
    for index in (0, 500, 999):
        set_learning_rate(optimizer, train, index, 1000)
        assert optimizer.param_groups[0]["lr"] == 0.02


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimizers_by_name(small_model: ModelConfig, name: str, kind: type[torch.optim.Optimizer]) -> None:
    assert type(create_optimizer(create_model(small_model), TrainConfig(optimizer=name))) is kind


def test_the_average_is_the_formulas_to_the_last_bit(small_model: ModelConfig) -> None:
    learner = Learner(create_model(small_model), TrainConfig())
    average = WeightAverage(learner, 0.9)
    expected = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    for step in (0, 1, 50, 10_000):
        decay = min(0.9, (1 + step) / (10 + step))
        for name, tensor in learner.state_dict().items():
            tensor.add_(torch.rand(tensor.shape))
            expected[name].lerp_(tensor, 1.0 - decay)
        average.update(learner, step)
        for name, tensor in average.module.state_dict().items():
            assert torch.equal(tensor, expected[name]), (step, name)


def test_the_average_follows_the_weights_slowly(small_model: ModelConfig) -> None:
    learner = Learner(create_model(small_model), TrainConfig())
    average = WeightAverage(learner, 0.9)
    source, followed = (each.model.state_dict()["picture_share"] for each in (learner, average.module))
    before = source.clone()
    source += 1.0
    average.update(learner, 10_000)
    torch.testing.assert_close(followed, before + 0.1)
    average.update(learner, 0)  # d = 1 / 10 at the very start: most of what is new
    torch.testing.assert_close(followed, before + 0.91)
