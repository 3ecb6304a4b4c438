import csv
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import ModelConfig, TrainConfig, resolve_configs
from mlic_train.models import create_model
from mlic_train.runs.folder import RunConfig, State, TrainedModel, load_trained, save_checkpoint, write_run_config

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 210)}


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Make a picture file of noise that is the same for the same seed and size."""

    def make(file: Path, seed: int = 0, size: tuple[int, int] = (16, 12)) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        return file

    return make


@pytest.fixture
def at_most_a_minute() -> Iterator[None]:
    """Fail a test that waits for ever."""

    def fail(*_: object) -> None:
        raise TimeoutError("the test takes longer than a minute")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a model can learn: each picture has one or two coloured halves, the caption names them."""
    root = tmp_path_factory.mktemp("colours")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("LabelID", "Name"), *enumerate(names, start=1)])
    for split, count in (("train", 36), ("val", 12), ("test", 9)):
        rows: list[tuple[str, str, str]] = [("ImageID", "Labels", "Caption")]
        for index in range(count):
            picked = sorted(rng.choice(3, size=rng.integers(1, 3), replace=False))
            pixels = np.zeros((32, 32, 3), dtype=np.uint8)
            pixels[:16], pixels[16:] = COLOURS[names[picked[0]]], COLOURS[names[picked[-1]]]
            pixels += rng.integers(0, 20, pixels.shape, dtype=np.uint8)
            name = f"{split}{index}.png"
            Image.fromarray(pixels).save(root / "images" / name)
            caption = "" if index % 6 == 5 else "a wall in " + " and ".join(names[i] for i in picked)
            rows.append((name, " ".join(str(i + 1) for i in picked), caption))
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    with (root / "captions.csv").open("w", newline="") as file:
        pairs = [(str(i + 1), f"one {names[i]} thing number {n}") for n in range(6) for i in range(3)]
        csv.writer(file).writerows([("Labels", "Caption"), *pairs])
    return root


@pytest.fixture
def small_model() -> ModelConfig:
    return ModelConfig(
        labels=tuple(COLOURS), image_size=16, width=16, num_layers=1, num_heads=2, dropout=0.1, hidden=16, vocab_size=60
    )


@pytest.fixture
def small_train() -> TrainConfig:
    own = TrainConfig(epochs=3, batch_size=8, text_batch_size=8, learning_rate=0.01, patience=0)
    return resolve_configs(ModelConfig(), own)[1]


@pytest.fixture
def make_trained(tmp_path: Path) -> Callable[..., TrainedModel]:
    """Write the run folder `name` of a model with random weights, complete in every other way, and load it."""

    def make(config: ModelConfig, name: str = "run", seed: int = 0) -> TrainedModel:
        captions = ["a red wall", "a green wall and a blue door", "one red and one blue thing"] * 4
        tokenizer = train_tokenizer(captions) if config.reads_captions else None
        if tokenizer is not None:
            config = dataclasses.replace(config, vocab_size=vocabulary_size(tokenizer))
        torch.manual_seed(seed)
        model = create_model(config)
        for parameter_name, parameter in model.named_parameters():
            if parameter_name == "interaction.label_weight":  # it starts at zero, which would hide the Transformer
                torch.nn.init.normal_(parameter)
        state = State(thresholds=[0.1, 0.2, 0.3], metrics={"val": {"samples_f1": 0.5, "rows": 12}})
        folder = tmp_path / name
        write_run_config(folder, RunConfig(config, TrainConfig(), {"seed": seed, "data_note": "made up"}), tokenizer)
        save_checkpoint(folder / "best.safetensors", model.state_dict(), state)
        return load_trained(folder)

    return make


@pytest.fixture
def trained(make_trained: Callable[..., TrainedModel], small_model: ModelConfig) -> TrainedModel:
    return make_trained(small_model)


@pytest.fixture
def cnn(make_trained: Callable[..., TrainedModel], small_model: ModelConfig) -> TrainedModel:
    return make_trained(dataclasses.replace(small_model, name="cnn"), "cnn")
