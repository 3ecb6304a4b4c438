import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from mlic_train.config import DataOptions, ModelConfig, TrainConfig
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import CheckpointError, ConfigError, DataError, TrainError
from mlic_train.measure.predict import Outputs
from mlic_train.models.attention import SelfAttention
from mlic_train.runs.folder import BEST_NAME, CONFIG_NAME, LAST_NAME, State, load_checkpoint, load_trained
from mlic_train.training.fit import is_said
from mlic_train.training.optimizer import set_learning_rate
from mlic_train.training.parallel import Autocast
from mlic_train.training.run import resume_run, train_run


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


def weights(folder: Path, name: str = LAST_NAME) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(folder / name).model)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=name)


class Interrupt:
    """Sends Ctrl-C to this process after the given number of steps, as a user would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.left = after

        def count(*arguments: Any) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            set_learning_rate(*arguments)

        monkeypatch.setattr("mlic_train.training.fit.set_learning_rate", count)


def test_a_model_learns_the_colours(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    lines: list[str] = []
    state = train_run(
        tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=12), splits, log=lines.append
    )
    assert state.finished
    assert state.metrics["test"]["samples_f1"] > 0.9
    assert {"val", "test", "test-picture-only", "test-caption-only"} <= state.metrics.keys()
    assert len(state.history) == 12
    assert any(line.startswith("epoch 12/12: train loss") for line in lines)


def test_the_best_checkpoint_loads_and_carries_its_thresholds(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    train_run(tmp_path / "run", small_model, small_train, splits)
    trained = load_trained(tmp_path / "run")
    assert len(trained.state.thresholds) == 3
    assert trained.state.metrics["val"]["rows"] == 12
    assert trained.config.provenance["seed"] == 0
    assert not trained.model.training


def test_the_same_seed_gives_the_same_weights(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=1, random_crop=0.5)
    for name in ("a", "b"):
        train_run(tmp_path / name, small_model, config, splits)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    train_run(tmp_path / "c", small_model, dataclasses.replace(config, seed=1), splits)
    name = "picture_labels.scores.weight"
    assert not torch.equal(weights(tmp_path / "a")[name], weights(tmp_path / "c")[name])


# An epoch has 8 batches; those of one optimizer step belong together, and the last step of an epoch has fewer.
@pytest.mark.parametrize(
    ("after", "accumulate", "stopped"), [(1, 1, 1), (4, 1, 4), (9, 1, 9), (13, 1, 13), (2, 3, 3), (7, 3, 8), (9, 3, 11)]
)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    accumulate: int,
    stopped: int,
) -> None:
    config = dataclasses.replace(small_train, epochs=2, schedule="cosine", ema_decay=0.9, accumulate=accumulate)
    train_run(tmp_path / "whole", small_model, config, splits)
    with monkeypatch.context() as patch:
        Interrupt(patch, after)
        state = train_run(tmp_path / "parts", small_model, config, splits)
    assert not state.finished
    assert state.global_step == stopped
    assert resume_run(tmp_path / "parts", splits).finished
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert_same(weights(tmp_path / "whole", BEST_NAME), weights(tmp_path / "parts", BEST_NAME))


def test_a_run_killed_before_its_first_step_resumes(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: object, **__: object) -> State:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlic_train.training.run.fit", die)
        with pytest.raises(KeyboardInterrupt):
            train_run(tmp_path / "run", small_model, small_train, splits)
    left = tmp_path / "run" / f".{CONFIG_NAME}.0a_bcdef.tmp"  # as after kill -9; this file is not written again
    left.mkdir()
    assert resume_run(tmp_path / "run", splits).finished
    assert not left.exists()


def test_a_run_that_was_given_more_pieces_than_its_captions_have_resumes_with_the_same_options(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=1)
    train_run(tmp_path / "run", dataclasses.replace(small_model, vocab_size=5000), config, splits)
    assert resume_run(tmp_path / "run", splits, wanted={"vocab_size": 5000, "epochs": 1}).finished
    with pytest.raises(ConfigError, match="was started with vocab_size"):
        resume_run(tmp_path / "run", splits, wanted={"vocab_size": 10})


def test_a_finished_run_goes_on_when_it_is_given_more_epochs(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    train_run(tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=1), splits)
    state = resume_run(tmp_path / "run", splits, wanted={"epochs": 2})
    assert [row["epoch"] for row in state.history] == [1, 2]


def test_training_works_outside_the_main_thread(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train_run, tmp_path / "run", small_model, config, splits).result().finished


def test_the_average_is_what_is_released(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    train_run(tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=1, ema_decay=0.9), splits)
    last = load_checkpoint(tmp_path / "run" / LAST_NAME)
    best = weights(tmp_path / "run", BEST_NAME)
    fitted = {name: best.pop(name) for name in ("calibration.scale", "calibration.bias")}  # after the last epoch
    assert_same(best, {name: tensor for name, tensor in last.average.items() if name not in fitted})
    assert not torch.equal(last.average["picture_labels.scores.weight"], last.model["picture_labels.scores.weight"])


def test_accumulated_batches_equal_one_batch_of_all_their_rows(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    pictures = [record for record in splits.train.records if record.image is not None]  # 36
    only = dataclasses.replace(splits, train=dataclasses.replace(splits.train, records=tuple(pictures)))
    model = dataclasses.replace(small_model, dropout=0.0, encoder_dropout=0.0)
    config = dataclasses.replace(small_train, schedule="cosine", ema_decay=0.9, auxiliary_weight=0.5, balance=0.5)
    train_run(tmp_path / "one", model, dataclasses.replace(config, batch_size=36), only)
    train_run(tmp_path / "two", model, dataclasses.replace(config, batch_size=18, accumulate=2), only)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-4, atol=1e-4, msg=name)
    first, second = (load_checkpoint(tmp_path / name / LAST_NAME) for name in ("one", "two"))
    assert (first.state.global_step, second.state.global_step) == (3, 6)
    for one_row, other_row in zip(first.state.history, second.state.history, strict=True):
        assert one_row["train_loss"] == pytest.approx(other_row["train_loss"], abs=1e-5)


def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def note(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total_steps: int) -> None:
        steps.append(step)
        set_learning_rate(optimizer, config, step, total_steps)

    monkeypatch.setattr("mlic_train.training.fit.set_learning_rate", note)
    train_run(tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=2, accumulate=3), splits)
    assert steps == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5]
    last = load_checkpoint(tmp_path / "run" / LAST_NAME)
    assert max(int(entries["step"]) for entries in last.moments.values()) == 6


def test_bfloat16_trains_weights_that_stay_float32(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    original = SelfAttention.forward

    def forward(self: SelfAttention, x: torch.Tensor, present: torch.Tensor, queries: int) -> torch.Tensor:
        if self.training:
            seen.add(self.to_qkv(x).dtype)
        return original(self, x, present, queries)

    monkeypatch.setattr(SelfAttention, "forward", forward)
    config = dataclasses.replace(small_train, epochs=1, mixed_precision="bf16")
    state = train_run(tmp_path / "run", small_model, config, splits, device="cpu")
    assert seen == {torch.bfloat16}
    assert 0 < state.history[0]["train_loss"] < 10
    last = load_checkpoint(tmp_path / "run" / LAST_NAME)
    assert {tensor.dtype for tensor in last.model.values() if tensor.is_floating_point()} == {torch.float32}
    assert {tensor.dtype for entries in last.moments.values() for tensor in entries.values()} == {torch.float32}


def test_float16_needs_a_gpu(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, mixed_precision="fp16")
    with pytest.raises(ConfigError, match="fp16 needs a CUDA GPU, the device is cpu"):
        train_run(tmp_path / "run", small_model, config, splits, device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_loss_scale_of_float16_is_kept_over_an_interruption(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where PyTorch has float16 too, LSTMs aside; the scale grows every second step here."""

    def create(device: str, mixed_precision: str) -> Fabric:
        scaler = torch.amp.GradScaler(device, init_scale=8.0, growth_interval=2)
        precision = Autocast("16-mixed", device, scaler)
        return Fabric(accelerator=device, devices=1, plugins=[precision])

    monkeypatch.setattr("mlic_train.training.run.create_fabric", create)
    config = dataclasses.replace(small_train, epochs=1, mixed_precision="fp16")
    model = dataclasses.replace(small_model, name="cnn")
    train_run(tmp_path / "whole", model, config, splits, device="cpu")
    with monkeypatch.context() as patch:
        Interrupt(patch, 3)
        train_run(tmp_path / "parts", model, config, splits, device="cpu")
    assert load_checkpoint(tmp_path / "parts" / LAST_NAME).state.scaler["scale"] == 16.0
    resume_run(tmp_path / "parts", splits, device="cpu")
    assert load_checkpoint(tmp_path / "parts" / LAST_NAME).state.scaler["scale"] == 32.0  # after 5 steps
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_patience_stops_early(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=50, learning_rate=0.0, patience=2)
    state = train_run(tmp_path / "run", small_model, config, splits)
    assert len(state.history) == 3


def test_of_epochs_with_equal_scores_the_one_with_the_lowest_loss_is_kept(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    # On rows this easy mAP reaches 1 long before the loss stops falling.
    config = dataclasses.replace(small_train, epochs=12, monitor="map", patience=0)
    state = train_run(tmp_path / "run", small_model, config, splits)
    best = max(row["val_map"] for row in state.history)
    equal = [row for row in state.history if row["val_map"] == best]
    assert len(equal) > 1
    assert load_trained(tmp_path / "run").state.epoch == min(equal, key=lambda row: row["val_loss"])["epoch"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlic_train.training.fit.create_loss", lambda *_: lambda logits, *_: logits.sum() * torch.nan)
    with pytest.raises(
        TrainError, match=r"the loss is nan in epoch 1, batch 1 \(step 1; .*(train|captions)\.csv, record \d+"
    ):
        train_run(tmp_path / "run", small_model, small_train, splits)
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).state.global_step == 0


def test_a_gradient_that_is_not_finite_stops_too(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(logits: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().sum()  # 0, with an infinite slope

    monkeypatch.setattr("mlic_train.training.fit.create_loss", lambda *_: loss)
    with pytest.raises(TrainError, match=r"the gradient is (nan|inf) in epoch 1, batch 1 "):
        train_run(tmp_path / "run", small_model, small_train, splits)
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).state.global_step == 0


def test_a_gradient_that_is_not_finite_stops_without_a_bound_too(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last batch of an epoch: behind it a checkpoint would be written, with weights that are not finite."""
    config, batches = dataclasses.replace(small_train, gradient_clip=0.0), 8
    left = batches

    def loss(logits: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
        nonlocal left
        left -= torch.is_grad_enabled()
        return (logits - logits.detach()).abs().sqrt().sum() if left == 0 else logits.square().mean()

    monkeypatch.setattr("mlic_train.training.fit.create_loss", lambda *_: loss)
    with pytest.raises(TrainError, match=r"the gradient is (nan|inf) in epoch 1, batch 8 \(step 8; the batch's first "):
        train_run(tmp_path / "run", small_model, dataclasses.replace(config, auxiliary_weight=0.0), splits)
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).state.global_step == 0


def test_a_gradient_bound_of_zero_changes_no_gradient(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    for name, bound in (("none", 0.0), ("far", 1e6)):
        train_run(tmp_path / name, small_model, dataclasses.replace(small_train, epochs=1, gradient_clip=bound), splits)
    assert_same(weights(tmp_path / "none"), weights(tmp_path / "far"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_on_val_that_is_not_finite_keeps_both_checkpoints(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    folder = tmp_path / "run"
    train_run(folder, small_model, dataclasses.replace(small_train, epochs=1), splits)
    older = {name: (folder / name).read_bytes() for name in (BEST_NAME, LAST_NAME)}
    monkeypatch.setattr(
        "mlic_train.training.fit.predict_modes",
        lambda *_, **__: {"both": Outputs(np.full((12, 3), value, np.float32), *[np.zeros((12, 3), bool)] * 3)},
    )
    with pytest.raises(
        TrainError, match=r"the loss on val is (nan|inf) after epoch 2 \(step 16\); the last checkpoint"
    ):
        resume_run(folder, splits, wanted={"epochs": 2})
    assert {name: (folder / name).read_bytes() for name in older} == older


def test_an_epoch_is_reported_when_it_is_saved(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    saved: list[int] = []

    def log(line: str) -> None:
        if line.startswith("epoch "):
            saved.append(load_checkpoint(tmp_path / "run" / LAST_NAME).state.epoch)

    train_run(tmp_path / "run", small_model, small_train, splits, log=log)
    assert saved == [1, 2, 3]


def test_batch_normalisation_gets_no_batch_of_one_value(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    model = dataclasses.replace(small_model, backbone="tf_efficientnet_lite0", image_size=32)  # features of 1 x 1
    config = dataclasses.replace(small_train, epochs=1, batch_size=35)  # 36 pictures
    assert train_run(tmp_path / "run", model, config, splits).finished


@pytest.mark.parametrize(("size", "said"), [(35, 1), (7, 1), (36, 0), (1, 0), (64, 0)])
def test_a_last_batch_of_one_picture_is_said_once(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, size: int, said: int
) -> None:
    config = dataclasses.replace(small_train, epochs=2, batch_size=size)  # 36 pictures
    lines: list[str] = []
    train_run(tmp_path / "run", small_model, config, splits, log=lines.append)
    line = "the last batch of an epoch would have one picture: it joins the batch before"
    assert lines.count(line) == said


def test_an_existing_run_is_not_overwritten(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    train_run(tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=1), splits)
    with pytest.raises(CheckpointError, match="holds a run already; continue with --resume"):
        train_run(tmp_path / "run", small_model, small_train, splits)


def test_what_training_would_refuse_leaves_no_run_behind(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    with pytest.raises(ConfigError, match="freeze_stages is 3, but the backbone has 3 stages"):
        train_run(tmp_path / "run", small_model, dataclasses.replace(small_train, freeze_stages=3), splits)
    assert not (tmp_path / "run").exists()


def test_resuming_refuses_other_data_and_other_options(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
) -> None:
    folder = tmp_path / "run"
    train_run(folder, small_model, dataclasses.replace(small_train, epochs=1), splits)
    with pytest.raises(ConfigError, match=r"started with learning_rate 0\.01, not 0\.5"):
        resume_run(folder, splits, wanted={"learning_rate": 0.5})
    other = dataclasses.replace(splits, val=splits.train)
    with pytest.raises(CheckpointError, match="trained on other data"):
        resume_run(folder, other)
    (folder / CONFIG_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"not a run folder: it has no config\.json"):
        resume_run(folder, splits)


def test_cnn_leaves_captions_alone_out_and_says_so(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    lines: list[str] = []
    config = dataclasses.replace(small_train, loss="softmax_bce", epochs=1)
    model = dataclasses.replace(small_model, name="cnn", softmax_output=True)
    train_run(tmp_path / "run", model, config, splits, log=lines.append)
    assert "train: 18 rows without a picture are left out, cnn reads only pictures" in lines
    assert not (tmp_path / "run" / "tokenizer.json").exists()


def test_a_split_without_labels_is_refused(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("ImageID\nval0.png\n")
    with pytest.raises(DataError, match=r"val\.csv: record 1 of the split 'val' is not labelled"):
        load_splits(DataOptions(colours, val=(tmp_path / "val.csv",), images=colours / "images"))


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_split_of_negatives_alone_is_refused(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, name: str
) -> None:
    split = getattr(splits, name)
    bare = dataclasses.replace(split, records=tuple(dataclasses.replace(r, labels=()) for r in split.records))
    with pytest.raises(DataError, match=f"no row of the split '{name}' has a label"):
        train_run(tmp_path / "run", small_model, small_train, dataclasses.replace(splits, **{name: bare}))
    assert not (tmp_path / "run").exists()


def test_the_feature_cache_changes_nothing(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=2, freeze_backbone=True, vertical_flip=True)
    train_run(tmp_path / "plain" / "run", small_model, config, splits)
    train_run(tmp_path / "cached" / "run", small_model, dataclasses.replace(config, cache_features=True), splits)
    plain, cached = weights(tmp_path / "plain" / "run"), weights(tmp_path / "cached" / "run")
    for name, tensor in plain.items():
        # Kept features are rounded to float16, once.
        torch.testing.assert_close(tensor, cached[name], rtol=1e-2, atol=1e-2, msg=name)


def test_the_feature_cache_is_reused_and_not_mistaken(
    tmp_path: Path,
    colours: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
) -> None:
    config = dataclasses.replace(small_train, epochs=1, freeze_backbone=True, cache_features=True)
    files: Callable[[], dict[str, int]] = lambda: {  # noqa: E731 # read twice
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "feature-cache").iterdir()
    }
    train_run(tmp_path / "a", small_model, config, splits)
    before = files()
    train_run(tmp_path / "b", small_model, config, splits)
    assert files() == before
    moved = tmp_path / "moved"
    shutil.copytree(colours, moved, copy_function=shutil.copyfile)  # with other times of change
    train_run(tmp_path / "moved-run", small_model, config, load_splits(DataOptions(moved)))
    assert files() == before
    Image.new("RGB", (16, 16), "white").save(
        next(r.image for r in load_splits(DataOptions(moved)).train.records if isinstance(r.image, Path))
    )
    train_run(tmp_path / "changed", small_model, config, load_splits(DataOptions(moved)))
    assert len(files()) == len(before) + 1
    train_run(tmp_path / "c", dataclasses.replace(small_model, image_size=24), config, splits)
    assert len(files()) == len(before) + 3


def test_a_frozen_backbone_without_pictures_needs_no_cache(
    tmp_path: Path, colours: Path, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=1, freeze_backbone=True, cache_features=None)  # type: ignore[arg-type] # follows
    captions = load_splits(DataOptions(colours, pictures=False, skip_bad_rows=True))
    train_run(tmp_path / "run", small_model, config, captions)
    assert not (tmp_path / "feature-cache").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_features": True}, "needs --freeze-backbone"),
        ({"cache_features": True, "freeze_backbone": True, "random_crop": 0.5}, "does not go with --random-crop"),
        ({"drop_caption": 0.7, "drop_picture": 0.6}, "at most 1"),
        ({"loss": "hinge"}, "choose one of: bce"),
        ({"epochs": -1}, "epochs is -1"),
        ({"learning_rate": float("nan")}, "learning_rate must be float, found nan"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)  # type: ignore[arg-type] # wrong on purpose


def test_of_many_short_epochs_every_tenth_part_has_a_line() -> None:
    assert not is_said(11, 60, tenths=1, silence=0.1)
    assert is_said(12, 60, tenths=1, silence=0.1)
    assert is_said(11, 60, tenths=1, silence=10.0)
    assert is_said(11, 20, tenths=5, silence=0.1)
    assert not is_said(48, 80, tenths=6, silence=0.1)  # fewer were planned at the last line
