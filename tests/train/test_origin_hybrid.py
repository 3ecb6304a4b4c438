import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from mlic_runtime import Predictor
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.manifest import TextSpec
from mlic_train.captions.characters import VOCAB_SIZE, character_tokenizer
from mlic_train.config import (
    LSTM,
    MODEL_DEFAULTS,
    ORIGIN_HYBRID,
    DataOptions,
    ModelConfig,
    TrainConfig,
    resolve,
    threshold_goal,
)
from mlic_train.data.splits import load_splits
from mlic_train.errors import ConfigError
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.package import export_package
from mlic_train.exporting.parity import ATOL, SHAPES
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.models import OriginHybrid, create_model
from mlic_train.models.origin_hybrid import NUM_TRIGRAMS, Join, trigrams
from mlic_train.runs.folder import load_trained
from mlic_train.training.run import train_run

CAPTIONS = [
    "A man riding a horse",
    "on it: a B-52, no. 1234",
    "Bäume, Größe und İstanbul",
    "THE THE the",
    "two\nlines\tand  a \u00a0space",
    "of it is a an",
    "2 + 2 = 4!",
    "",
]


@pytest.fixture
def config(small_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(small_model, name=ORIGIN_HYBRID, vocab_size=VOCAB_SIZE, max_length=256)


@pytest.fixture
def model(config: ModelConfig) -> OriginHybrid:
    torch.manual_seed(0)
    made = create_model(config).eval()
    assert isinstance(made, OriginHybrid)
    torch.nn.init.normal_(made.join.trigrams.weight[:NUM_TRIGRAMS])  # they start so small that little would show
    return made


def encode(captions: list[str], max_length: int = 256) -> tuple[Tensor, Tensor]:
    ids, mask = CaptionTokenizer(character_tokenizer(), TextSpec(max_length, VOCAB_SIZE)).encode(captions)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def pictures(count: int) -> Tensor:
    return torch.randint(1, 256, (count, 16, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def by_hand(caption: str) -> Counter[str]:
    """The trigrams of a caption, counted as text."""
    words = re.findall("[a-z]+", caption.lower())
    return Counter(word[i : i + 3] for word in words for i in range(len(word) - 2))


def counts(captions: list[str]) -> Tensor:
    """The origin's vectors, float32 (B, 17576)."""
    vectors = torch.zeros(len(captions), 26**3)
    for row, caption in enumerate(captions):
        for trigram, count in by_hand(caption).items():
            first, second, third = (ord(letter) - ord("a") for letter in trigram)
            vectors[row, first * 676 + second * 26 + third] = count
    return vectors


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("horse", {"hor": 1, "ors": 1, "rse": 1}),
        ("The THE the", {"the": 3}),
        ("aaaa", {"aaa": 2}),
        ("a an of", {}),
        ("ab cd", {}),
        ("cat7dog", {"cat": 1, "dog": 1}),
        ("können", {"nne": 1, "nen": 1}),
        ("", {}),
        ("123 !", {}),
    ],
)
def test_trigrams_are_counted_within_words(caption: str, expected: dict[str, int]) -> None:
    assert by_hand(caption) == expected
    ids, mask = encode([caption])
    found = trigrams(ids, mask)[0]
    names = [f"{chr(97 + i // 676)}{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}" for i in found.tolist() if i < 26**3]
    assert Counter(names) == expected


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_graph_counts_what_counting_the_text_gives(caption: str) -> None:
    ids, mask = encode([caption])
    found = torch.bincount(trigrams(ids, mask)[0], minlength=NUM_TRIGRAMS + 1)[:NUM_TRIGRAMS]
    assert torch.equal(found.float(), counts([caption])[0])


def test_a_caption_without_letters_is_no_caption() -> None:
    _, mask = encode(["2 + 2 = 4!", "ä ö ü", ""])
    assert not mask.any()


def test_of_a_long_caption_the_first_characters_count() -> None:
    ids, mask = encode(["horses run"], max_length=4)
    assert torch.bincount(trigrams(ids, mask)[0])[:NUM_TRIGRAMS].sum() == 2


def test_the_tokenizer_is_the_same_for_everyone() -> None:
    assert character_tokenizer() == character_tokenizer()
    assert json.loads(character_tokenizer())["model"]["vocab"]["z"] == VOCAB_SIZE - 1


def test_the_join_is_a_linear_layer_over_picture_and_counts() -> None:
    torch.manual_seed(0)
    join = Join(width=8, hidden=32)
    dense = torch.nn.Linear(8 + NUM_TRIGRAMS, 32)
    with torch.no_grad():
        dense.weight.copy_(torch.cat([join.picture.weight, join.trigrams.weight[:NUM_TRIGRAMS].T], dim=1))
        dense.bias.copy_(join.picture.bias)
    picture = torch.randn(len(CAPTIONS), 8)
    expected = dense(torch.cat([picture, counts(CAPTIONS)], dim=1))
    torch.testing.assert_close(join(picture, trigrams(*encode(CAPTIONS))), expected)


def test_the_join_starts_with_the_weights_of_such_a_layer() -> None:
    join, bound = Join(width=8, hidden=32), (8 + NUM_TRIGRAMS) ** -0.5
    for weights in (join.picture.weight, join.trigrams.weight):
        assert 0.9 * bound < weights.abs().max() <= bound
    assert not join.trigrams.weight[NUM_TRIGRAMS].any()


def test_training_keeps_the_contribution_of_no_trigram_at_zero(model: OriginHybrid) -> None:
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    model(pictures(2), *encode(["a horse", "a"])).sum().backward()
    optimizer.step()
    assert not model.join.trigrams.weight[NUM_TRIGRAMS].any()


def test_it_gives_one_logit_per_label(model: OriginHybrid) -> None:
    assert model(pictures(8), *encode(CAPTIONS)).shape == (8, 3)


@pytest.mark.parametrize("size", [16, 30, 64])
def test_pictures_of_any_size_are_read(config: ModelConfig, size: int) -> None:
    model = create_model(dataclasses.replace(config, image_size=size))
    assert model(torch.ones(1, size, size, 3, dtype=torch.uint8), *encode(["a horse"])).shape == (1, 3)


def test_padding_does_not_change_a_row(model: OriginHybrid) -> None:
    ids, mask = encode(CAPTIONS)
    longer = [torch.nn.functional.pad(tensor, (0, 7), value=value) for tensor, value in ((ids, 5), (mask, 0))]
    torch.testing.assert_close(model(pictures(8), *longer), model(pictures(8), ids, mask))


def test_rows_do_not_see_each_other(model: OriginHybrid) -> None:
    alone = torch.cat([model(pictures(8)[i : i + 1], *encode([CAPTIONS[i]])) for i in range(8)])
    torch.testing.assert_close(model(pictures(8), *encode(CAPTIONS)), alone, atol=1e-5, rtol=0)


def test_an_all_zero_picture_is_the_same_as_no_picture(model: OriginHybrid) -> None:
    ids, mask = encode(CAPTIONS)
    black = model(torch.zeros_like(pictures(8)), ids, mask)
    torch.testing.assert_close(black, model.classify(None, None, ids, mask))


def test_without_a_caption_the_ids_do_not_matter(model: OriginHybrid) -> None:
    ids, mask = encode(CAPTIONS)
    nothing = torch.zeros_like(mask)
    torch.testing.assert_close(model(pictures(8), ids, nothing), model(pictures(8), nothing, nothing))


def test_picture_and_caption_both_matter(model: OriginHybrid) -> None:
    base = model(pictures(2), *encode(["a horse", "a train"]))
    assert not torch.allclose(base, model(255 - pictures(2), *encode(["a horse", "a train"])), atol=1e-6)
    assert not torch.allclose(base, model(pictures(2), *encode(["a train", "a horse"])), atol=1e-6)


def test_it_has_the_origins_convolutions_only(config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="three convolutions, not 'tf_efficientnet_lite0'; leave --backbone out"):
        create_model(dataclasses.replace(config, backbone="tf_efficientnet_lite0", image_size=64))


def test_its_convolutions_have_no_pretrained_weights(config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="no pretrained weights"):
        create_model(config, "hub")


def test_a_picture_too_small_is_refused(config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="image_size is 8"):
        dataclasses.replace(config, image_size=8)


@pytest.mark.parametrize(
    ("text_encoder", "embedding", "option"), [("some/bert", None, "--text-encoder"), (LSTM, "some/bert", "--embedding")]
)
def test_it_has_no_use_for_a_pretrained_text_encoder(
    config: ModelConfig, colours: Path, tmp_path: Path, text_encoder: str, embedding: str | None, option: str
) -> None:
    config = dataclasses.replace(config, text_encoder=text_encoder)
    with pytest.raises(ConfigError, match=f"origin_hybrid reads letters; leave {option} out"):
        train_run(tmp_path, config, TrainConfig(), load_splits(DataOptions(folder=colours)), embedding=embedding)


@pytest.mark.parametrize("targets", [np.ones((4, 3), dtype=bool), np.zeros((4, 3), dtype=bool)])
def test_a_fixed_threshold_is_not_fitted(targets: npt.NDArray[np.bool_]) -> None:
    probabilities = np.random.default_rng(0).random((4, 3))
    assert fit_thresholds(probabilities, targets, "fixed=0.5").tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("goal", ["fixed", "fixed=0", "fixed=1.5", "fixed=half"])
def test_a_fixed_threshold_is_a_probability(goal: str) -> None:
    with pytest.raises(ConfigError, match=r"fixed=T \(P, R, T in \(0, 1\]\)"):
        threshold_goal(goal)


def test_its_defaults_are_values_that_the_configurations_take() -> None:
    models, trains = ({field.name for field in dataclasses.fields(kind)} for kind in (ModelConfig, TrainConfig))
    own = MODEL_DEFAULTS[ORIGIN_HYBRID]
    assert set(own) <= models | trains
    assert (own["hidden"], own["loss"], own["threshold_for"]) == (1024, "multilabel_soft_margin", "fixed=0.5")


def from_options(**given: object) -> tuple[ModelConfig, TrainConfig]:
    options = resolve({"model": ORIGIN_HYBRID, **given})
    return options.model, options.train


def test_mlic_train_takes_the_origins_values() -> None:
    model, config = from_options()
    assert (model.name, model.hidden, model.max_length, model.image_size) == (ORIGIN_HYBRID, 1024, 256, 112)
    assert (config.loss, config.calibration, config.threshold_for) == ("multilabel_soft_margin", "none", "fixed=0.5")
    assert (config.drop_caption, config.drop_picture) == (0.0, 0.0)


def test_what_is_said_goes_before_the_origins_values() -> None:
    model, config = from_options(threshold_for="samples_f1", max_length=32, drop_caption=0.25)
    assert (config.threshold_for, model.max_length, config.drop_caption) == ("samples_f1", 32, 0.25)
    assert config.loss == "multilabel_soft_margin"


def test_from_training_to_the_runtime(config: ModelConfig, colours: Path, tmp_path: Path) -> None:
    _, settings = from_options(epochs=2, learning_rate=0.01)
    train_run(tmp_path / "run", config, settings, load_splits(DataOptions(folder=colours)), device="cpu")
    trained = load_trained(tmp_path / "run")
    assert trained.state.thresholds == [0.5, 0.5, 0.5]
    assert torch.equal(trained.model.calibration.scale, torch.ones(3, 3))
    manifest = export_package(trained, tmp_path / "package")
    assert manifest.parity["fp32"].shapes == len(SHAPES)
    assert [label.threshold for label in manifest.labels] == [0.5, 0.5, 0.5]
    assert manifest.text == TextSpec(256, VOCAB_SIZE)
    assert "Thresholds are fixed." in (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    predictor, picture = Predictor.load(tmp_path / "package"), colours / "images" / "test0.png"
    pictures_alone = predictor.predict(picture, None).probabilities
    assert predictor.predict(picture, "1 + 1").probabilities == pictures_alone
    assert predictor.predict(picture, "a red wall").probabilities != pictures_alone
    with torch.inference_mode():
        logits = trained.model(torch.zeros(1, 16, 16, 3, dtype=torch.uint8), *encode(["a red wall"]))
    expected = dict(zip(trained.config.model.labels, torch.sigmoid(logits)[0].tolist(), strict=True))
    assert predictor.predict(None, "a red wall").probabilities == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 3, 64])
@pytest.mark.parametrize("batch", [1, 7])
def test_parity_holds_at_shapes_that_were_not_traced(model: OriginHybrid, batch: int, tokens: int) -> None:
    session = create_session(export_graph(model, 256))
    inputs = example_inputs(model, batch, tokens, seed=99)
    with torch.inference_mode():
        expected = model(*inputs).numpy()
    np.testing.assert_allclose(session.run(*(tensor.numpy() for tensor in inputs)), expected, atol=ATOL, rtol=1e-4)
