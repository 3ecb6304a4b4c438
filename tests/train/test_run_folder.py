import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch

from mlic_runtime.base.output_files import atomic_path
from mlic_train.config import ModelConfig
from mlic_train.errors import CheckpointError, ConfigError
from mlic_train.models import create_model
from mlic_train.models.backbone import create_backbone
from mlic_train.runs.folder import (
    State,
    TrainedModel,
    load_backbone,
    load_checkpoint,
    load_trained,
    read_run_config,
    restore_optimizer,
    save_checkpoint,
)


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = State(epoch=2, step=5, thresholds=[0.3, 0.7], metrics={"val": {"map": 0.5}})
    save_checkpoint(
        tmp_path / "last.safetensors", layer.state_dict(), state, optimizer, {"bias": torch.tensor([1.0, 2.0])}
    )

    loaded = load_checkpoint(tmp_path / "last.safetensors")
    assert loaded.state == state
    torch.testing.assert_close(loaded.model["weight"], layer.weight.detach())
    torch.testing.assert_close(loaded.average["bias"], torch.tensor([1.0, 2.0]))
    fresh = torch.optim.Adam(layer.parameters())
    restore_optimizer(fresh, loaded.moments)
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            torch.testing.assert_close(fresh.state_dict()["state"][index][key], value)


def test_a_model_takes_over_the_picture_encoder_of_a_run(tmp_path: Path, small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    source = create_model(dataclasses.replace(small_model, name="cnn", mean=(0.4, 0.5, 0.6)))
    save_checkpoint(tmp_path / "best.safetensors", source.state_dict(), State())
    model = create_model(small_model)
    head = model.state_dict()["picture_labels.scores.weight"].clone()
    load_backbone(model, tmp_path)
    own = model.state_dict()
    for name in ("backbone.0.weight", "backbone.6.bias", "normalize.mean"):
        torch.testing.assert_close(own[name], source.state_dict()[name])
    torch.testing.assert_close(own["picture_labels.scores.weight"], head)


def test_a_picture_encoder_of_another_kind_is_refused(tmp_path: Path, small_model: ModelConfig) -> None:
    save_checkpoint(tmp_path / "best.safetensors", create_model(small_model).state_dict(), State())
    other = create_model(dataclasses.replace(small_model, backbone="tf_efficientnet_lite0", image_size=64))
    with pytest.raises(CheckpointError, match="has another backbone than the model"):
        load_backbone(other, tmp_path)


def test_a_failed_write_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_text("older")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pickled_checkpoint_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match=r"not a \.safetensors file; pickled checkpoints can run code"):
        load_checkpoint(path)


def test_a_pickle_named_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}) * 10)
    with pytest.raises(CheckpointError, match="is not a checkpoint of mlic-train"):
        load_checkpoint(path)


def test_safetensors_of_somebody_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of mlic-train"):
        load_checkpoint(path)


def test_a_missing_best_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": {"labels": ["a", "b"]}, "train": {}, "provenance": {}}')
    with pytest.raises(CheckpointError, match=r"has no best\.safetensors yet: let at least one epoch finish"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"colour": 1}, "train": {}, "provenance": {}}, "unknown key 'colour' for ModelConfig"),
        ({"model": {"width": 30}, "train": {}, "provenance": {}}, "width 30 must be a multiple of"),
        (
            {"model": {"image_size": "big"}, "train": {}, "provenance": {}},
            "json: image_size must be int, found 'big'",
        ),
    ],
)
def test_a_malformed_configuration_is_refused_by_name(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        read_run_config(tmp_path)


class _Bomb:
    """Runs code when it is unpickled: the file that it is given appears."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "model.bin", "best.safetensors"])
def test_a_foreign_checkpoint_of_pytorch_is_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    torch.save({"state": _Bomb(tmp_path / "it ran")}, tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / name)
    other = "is not a checkpoint of mlic-train" if name == "best.safetensors" else "pickled checkpoints can run code"
    assert other in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it ran").exists()


def test_a_run_folder_with_a_foreign_best_checkpoint_is_refused(tmp_path: Path, trained: TrainedModel) -> None:
    torch.save({"state": _Bomb(tmp_path / "it ran")}, trained.folder / "best.safetensors")
    with pytest.raises(CheckpointError, match=r"best\.safetensors is not a checkpoint of mlic-train"):
        load_trained(trained.folder)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"weight": torch.zeros(100)}, State())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="is not a checkpoint of mlic-train"):
        load_checkpoint(path)


def test_damaged_weights_of_a_backbone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ConfigError, match=r"weights\.safetensors cannot be read: "):
        create_backbone("tf_efficientnet_lite0", tmp_path / "weights.safetensors")
