import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.package.manifest import ImageSpec, TextSpec
from mlic_runtime.picture.decode import load_image, to_pixels
from mlic_train.batches.dataset import Collate, Example, Examples, batch_loader
from mlic_train.batches.transforms import GREY, augment, flip, mixup, random_crop, random_erasing
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import TrainConfig
from mlic_train.data import Record

SPEC = ImageSpec(height=12, width=16)
PLAIN = TrainConfig(drop_caption=0.0, drop_picture=0.0, vertical_flip=True)
ALL = {"random_crop": 0.5, "color_jitter": 0.4, "rand_augment": 9, "random_erasing": 0.5, "mixup": 1.0}


@pytest.fixture
def records(tmp_path: Path, draw: Callable[..., Path]) -> list[Record]:
    """Eight noise pictures of several sizes; every second one has captions, the label is the index."""
    captions = ("a red wall", "a blue wall")
    sizes = [(16, 12), (40, 30), (33, 70), (100, 20)]
    return [
        Record(str(i), draw(tmp_path / f"{i}.png", i, sizes[i % 4]), captions[: 2 * (i % 2)], (i,), tmp_path, i + 1)
        for i in range(8)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    data = train_tokenizer(["a red wall", "a blue wall"] * 3)
    return CaptionTokenizer(data, TextSpec(8, vocabulary_size(data)))


def pixels_of(records: list[Record], config: TrainConfig, epoch: int, index: int) -> npt.NDArray[np.uint8]:
    pixels = Examples(records, 8, SPEC, config)[epoch, index].pixels
    assert pixels is not None
    return pixels


def noise(size: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def row(index: int, *, caption: str | None = None, picture: bool = True, black: bool = False) -> Example:
    """A row of Collate's input with its own target."""
    pixels = noise((16, 12), index) * np.uint8(not black) if picture else None
    return Example(pixels, None, caption, np.eye(8, dtype=np.float32)[index], (3, index))


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_with_the_options_off_an_example_is_crop_resize_flip_and_nothing_else(
    records: list[Record], scale: float
) -> None:
    config = dataclasses.replace(PLAIN, random_crop=scale)
    for index, record in enumerate(records):
        assert isinstance(record.image, Path)
        rng = np.random.default_rng((config.seed, 4, index))
        if record.captions:
            rng.integers(2)
        _, flip_h, flip_v = rng.random(3)
        image = random_crop(load_image(record.image), scale, rng)
        expected = flip(to_pixels(image, SPEC), flip_h < 0.5, flip_v < 0.5)
        np.testing.assert_array_equal(pixels_of(records, config, 4, index), expected)


@pytest.mark.parametrize("option", ["color_jitter", "rand_augment", "random_erasing"])
def test_every_option_changes_pictures_and_keeps_their_form(records: list[Record], option: str) -> None:
    options: dict[str, Any] = {option: ALL[option]}
    config = dataclasses.replace(PLAIN, **options)
    for index in range(len(records)):
        plain = [pixels_of(records, PLAIN, epoch, index) for epoch in range(8)]
        varied = [pixels_of(records, config, epoch, index) for epoch in range(8)]
        assert any((one != other).any() for one, other in zip(plain, varied, strict=True))
        assert len({pixels.tobytes() for pixels in varied}) > 4  # two flips alone give no more than four
        assert {(pixels.shape, pixels.dtype.name) for pixels in varied} == {((12, 16, 3), "uint8")}


def test_batches_do_not_depend_on_workers_or_on_what_came_before(
    records: list[Record], tokenizer: CaptionTokenizer
) -> None:
    options: dict[str, Any] = ALL
    examples = Examples(records, 8, SPEC, dataclasses.replace(PLAIN, **options))
    plan = [[(1, 0), (1, 2), (1, 1), (1, 4)], [(1, 6), (1, 3)], [(2, 0), (2, 2), (2, 1), (2, 4)]]
    alone = list(batch_loader(examples, tokenizer, plan, 0))
    backwards = list(batch_loader(examples, tokenizer, plan[::-1], 0))[::-1]
    workers = list(batch_loader(examples, tokenizer, plan, 2))
    for others in (backwards, workers):
        for one, other in zip(alone, others, strict=True):
            assert torch.equal(one.pixels, other.pixels)
            assert torch.equal(one.targets, other.targets)
    assert not torch.equal(alone[0].pixels, alone[2].pixels)  # another epoch
    assert ((alone[0].targets > 0) & (alone[0].targets < 1)).any()  # mixed


@pytest.mark.parametrize(
    "change",
    [
        lambda rng: np.asarray(augment(Image.fromarray(noise((20, 20))), SPEC, 0.4, 9, rng)),
        lambda rng: random_erasing(noise((20, 20)), 0.5, rng),
    ],
)
def test_torchs_generator_neither_matters_nor_changes(
    change: Callable[[np.random.Generator], npt.NDArray[np.uint8]],
) -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append([change(np.random.default_rng(i)).tobytes() for i in range(5)])
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]


def test_what_is_off_returns_its_input_and_draws_nothing() -> None:
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    image, pixels = Image.fromarray(noise((64, 64))), noise((16, 12))
    assert augment(image, SPEC, 0.0, 0, rng) is image
    assert random_erasing(pixels, 0.0, rng) is pixels
    assert rng.random() == untouched.random()


def test_colour_jitter_stays_in_its_range() -> None:
    grey = Image.new("RGB", (16, 12), (100, 100, 100))  # contrast and saturation leave it, brightness does not
    values = [np.asarray(augment(grey, SPEC, 0.2, 0, np.random.default_rng(seed))) for seed in range(100)]
    assert all(value.min() == value.max() for value in values)
    assert 80 <= min(value.min() for value in values) < 85
    assert 115 < max(value.max() for value in values) <= 120


def test_colour_jitter_changes_contrast_and_saturation() -> None:
    image = Image.fromarray(noise((16, 12)) // 4 + 96)  # far enough from 0 and 255 that nothing is clipped
    varied = [
        np.asarray(augment(image, SPEC, 0.3, 0, np.random.default_rng(seed)), dtype=np.float64) for seed in range(30)
    ]
    # Brightness and contrast keep these ratios; the first is the spread of light, the second that of colour.
    contrast = [pixels.mean(axis=2).std() / pixels.mean() for pixels in varied]
    saturation = [pixels.std(axis=2).mean() / pixels.mean(axis=2).std() for pixels in varied]
    assert max(contrast) > 1.3 * min(contrast)
    assert max(saturation) > 1.3 * min(saturation)


def test_a_greater_magnitude_changes_more() -> None:
    image = Image.fromarray(noise((16, 12)))

    def change(magnitude: int) -> float:
        results = [np.asarray(augment(image, SPEC, 0.0, magnitude, np.random.default_rng(i))) for i in range(60)]
        return float(np.mean([np.abs(result.astype(int) - np.asarray(image)).mean() for result in results]))

    assert change(1) < change(9) < change(30)


def test_rand_augment_uncovers_grey() -> None:
    white = Image.new("RGB", (16, 12), "white")
    seen = [set(np.unique(np.asarray(augment(white, SPEC, 0.0, 15, np.random.default_rng(i))))) for i in range(30)]
    assert {GREY, 255} in seen


@pytest.mark.parametrize(
    ("size", "expected"), [((160, 96), (20, 12)), ((95, 47), (32, 16)), ((31, 90), (31, 90)), ((8, 8), (8, 8))]
)
def test_a_large_picture_is_made_smaller_first_but_still_covers_the_target(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert augment(Image.fromarray(noise(size)), SPEC, 0.4, 9, np.random.default_rng(0)).size == expected


def test_erasing_paints_one_grey_rectangle_of_2_to_33_percent() -> None:
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    for seed in range(50):
        erased = random_erasing(pixels, 1.0, np.random.default_rng(seed))
        rows, columns = erased.any(axis=(1, 2)), erased.any(axis=(0, 2))
        assert (erased[np.ix_(rows, columns)] == GREY).all()
        assert (erased > 0).sum() == 3 * rows.sum() * columns.sum()
        assert 0.019 < (erased > 0).mean() < 0.34
    assert not pixels.any()


def test_erasing_happens_as_often_as_asked() -> None:
    pixels = np.zeros((12, 16, 3), dtype=np.uint8)
    drawn = [random_erasing(pixels, 0.3, np.random.default_rng(seed)).any() for seed in range(400)]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.07)


def test_erasing_comes_last(records: list[Record]) -> None:
    config = dataclasses.replace(PLAIN, random_erasing=1.0)
    for index in range(0, len(records), 2):
        rng = np.random.default_rng((config.seed, 0, index))
        rng.random(3)  # caption or picture dropped, flips
        expected = random_erasing(pixels_of(records, PLAIN, 0, index), 1.0, rng)
        np.testing.assert_array_equal(pixels_of(records, config, 0, index), expected)


def test_mixup_mixes_pixels_and_targets_by_the_same_weight_and_permutation() -> None:
    pixels = torch.from_numpy(np.stack([noise((16, 12), i) for i in range(8)]))
    rows = np.array([0, 2, 3, 5, 6, 7])
    before = pixels.clone()
    for seed in range(10):
        targets = torch.eye(8)  # so that the mixed targets are the matrix that mixed them
        mixed, matrix = mixup(pixels, targets, rows, 1.0, np.random.default_rng(seed))
        weight = float(np.random.default_rng(seed).beta(1.0, 1.0))
        torch.testing.assert_close(matrix.sum(dim=0), torch.ones(8))
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(8))
        entries = matrix[matrix > 0].tolist()
        assert all(min(abs(entry - value) for value in (weight, 1 - weight, 1.0)) < 1e-6 for entry in entries)
        exact = torch.tensordot(matrix.double(), pixels.double(), dims=1)
        assert mixed.dtype == torch.uint8
        assert (mixed.double() - exact).abs().max() <= 0.501  # rounded, not cut off
        assert (matrix[[1, 4]] == torch.eye(8)[[1, 4]]).all()
        assert torch.equal(targets, torch.eye(8))
    assert torch.equal(pixels, before)


def test_mixup_mixes_more_evenly_the_greater_alpha_is() -> None:
    def distance(alpha: float) -> float:
        targets = torch.tensor([[1.0], [0.0]])
        pixels = torch.zeros(2, 1, 1, 3, dtype=torch.uint8)
        rows = np.array([0, 1])
        mixed = [mixup(pixels, targets, rows, alpha, np.random.default_rng(seed))[1] for seed in range(60)]
        return float(np.mean([abs(float(one[0, 0]) - 0.5) for one in mixed]))

    assert distance(10.0) < distance(1.0) < distance(0.1)


def test_only_pictures_without_caption_are_mixed(tokenizer: CaptionTokenizer) -> None:
    examples = [
        row(0),
        row(1, caption="a red wall"),
        row(2),
        row(3, picture=False, caption="a blue wall"),
        row(4, black=True),
        row(5, caption=" "),
        row(6, picture=False),
        row(7),
    ]
    plain = Collate(tokenizer)(examples)
    mixed = Collate(tokenizer, dataclasses.replace(PLAIN, mixup=1.0))(examples)
    assert plain.pixels is not None
    assert mixed.pixels is not None
    kept = [1, 3, 4, 6]
    assert torch.equal(mixed.pixels[kept], plain.pixels[kept])
    assert torch.equal(mixed.targets[kept], plain.targets[kept])
    assert not mixed.targets[:, kept].sum(dim=1)[[0, 2, 5, 7]].any()  # nor does another row get a part of them
    assert (mixed.targets != plain.targets).any(dim=1).sum() > 1
    assert (mixed.pixels != plain.pixels).flatten(1).any(dim=1).sum() > 1
    assert mixed.has_picture is not None
    assert mixed.has_picture.tolist() == [True, True, True, False, True, True, False, True]


def test_a_model_without_captions_mixes_every_picture() -> None:
    examples = [row(index, caption="a red wall") for index in range(8)]
    mixed = Collate(None, dataclasses.replace(PLAIN, mixup=1.0))(examples)
    assert (mixed.targets != torch.eye(8)).any(dim=1).sum() > 4


def test_mixup_depends_on_seed_epoch_and_indices() -> None:
    def mix(seed: int, epoch: int, first: int) -> bytes:
        keys = [(epoch, index) for index in range(first, first + 8)]
        examples = [dataclasses.replace(row(i), key=key) for i, key in enumerate(keys)]
        targets: bytes = (
            Collate(None, dataclasses.replace(PLAIN, mixup=1.0, seed=seed))(examples).targets.numpy().tobytes()
        )
        return targets

    assert mix(0, 0, 0) == mix(0, 0, 0)
    assert len({mix(0, 0, 0), mix(1, 0, 0), mix(0, 1, 0), mix(0, 0, 1)}) == 4


def test_without_mixup_or_without_pixels_nothing_is_mixed() -> None:
    examples = [row(index) for index in range(8)]
    features = [
        dataclasses.replace(example, pixels=None, features=np.ones((1, 1, 1), np.float32)) for example in examples
    ]
    mixing = dataclasses.replace(PLAIN, mixup=1.0)
    for config, rows in ((None, examples), (PLAIN, examples), (mixing, features), (mixing, examples[:1])):
        batch = Collate(None, config)(rows)
        assert torch.equal(batch.targets, torch.eye(8)[: len(rows)])
