import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mlic_train.cli.train import train
from mlic_train.config import DataOptions, ModelConfig, Options
from mlic_train.config.options import resolve
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import CheckpointError, ConfigError
from mlic_train.models import create_model
from mlic_train.runs.find import run_called
from mlic_train.runs.folder import Checkpoint, TrainedModel, load_checkpoint, load_trained, read_run_config
from mlic_train.runs.starting_point import architecture, start_from
from mlic_train.training.adapt import adapt
from mlic_train.training.first_model import make_first_model

QUICK = ["--device", "cpu", "--batch-size", "8", "--text-batch-size", "8", "--epochs", "1"]


def logits(model: torch.nn.Module) -> torch.Tensor:
    pixels = torch.arange(2 * 16 * 16 * 3, dtype=torch.float32).reshape(2, 16, 16, 3).remainder(251).to(torch.uint8)
    ids = torch.tensor([[3, 4, 5], [6, 7, 0]])
    with torch.no_grad():
        result: torch.Tensor = model.eval()(pixels, ids, (ids > 0).long())
    return result


def start(data: Path, trained: TrainedModel) -> tuple[Options, Splits]:
    splits = load_splits(DataOptions(data))
    return adapt(resolve({"start_from": str(trained.folder)}), splits), splits


def test_a_model_starts_where_the_run_ended(trained: TrainedModel) -> None:
    config = trained.config.model
    torch.manual_seed(5)
    model = create_model(config)
    line = start_from(model, config, [trained.folder])
    torch.testing.assert_close(logits(model), logits(trained.model))
    assert line == "start from run: it knows 3 of 3 labels"


def test_labels_are_found_by_their_names(trained: TrainedModel) -> None:
    config = dataclasses.replace(trained.config.model, labels=("blue", "a new one", "red", "another"), fusion="late")
    source = dataclasses.replace(trained.config.model, fusion="late")
    old = create_model(source)
    old.load_state_dict({name: trained.model.state_dict()[name] for name in old.state_dict()})
    model = create_model(config)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    line = start_from(model, config, [trained.folder])
    torch.testing.assert_close(logits(model)[:, [0, 2]], logits(old)[:, [2, 0]])
    bias = model.state_dict()["picture_labels.scores.bias"]
    torch.testing.assert_close(bias[[1, 3]], fresh["picture_labels.scores.bias"][[1, 3]])
    assert line == "start from run: it knows 2 of 4 labels; new: a new one, another"


def test_many_new_labels_are_counted(trained: TrainedModel) -> None:
    names = ("red", *(f"new{number}" for number in range(8)))
    config = dataclasses.replace(trained.config.model, labels=names)
    line = start_from(create_model(config), config, [trained.folder])
    assert line.endswith("1 of 9 labels; new: new0, new1, new2, new3, new4, ... 3 more")


def test_a_picture_encoder_of_its_own_stays(trained: TrainedModel) -> None:
    config = trained.config.model
    torch.manual_seed(5)
    model = create_model(config)
    fresh = model.state_dict()["backbone.0.weight"].clone()
    start_from(model, config, [trained.folder], with_backbone=False)
    torch.testing.assert_close(model.state_dict()["backbone.0.weight"], fresh)
    scores = "picture_labels.scores.weight"
    torch.testing.assert_close(model.state_dict()[scores], trained.model.state_dict()[scores])


def test_several_runs_give_their_mean(trained: TrainedModel, make_trained: Callable[..., TrainedModel]) -> None:
    other = make_trained(trained.config.model, "second", seed=3)
    model = create_model(trained.config.model)
    line = start_from(model, trained.config.model, [trained.folder, other.folder, other.folder])
    name = "backbone.0.weight"
    expected = (trained.model.state_dict()[name] + 2 * other.model.state_dict()[name]) / 3
    torch.testing.assert_close(model.state_dict()[name], expected)
    assert line == "start from the mean of run, second, second: it knows 3 of 3 labels"


def test_runs_that_differ_have_no_mean(trained: TrainedModel, make_trained: Callable[..., TrainedModel]) -> None:
    config = trained.config.model
    other = make_trained(dataclasses.replace(config, width=32, labels=("red", "blue", "green")), "second")
    with pytest.raises(CheckpointError, match=r"have no mean, as they differ in labels, width: start from runs that"):
        start_from(create_model(config), config, [trained.folder, other.folder])


def test_another_architecture_is_refused(trained: TrainedModel) -> None:
    config = dataclasses.replace(trained.config.model, width=32)
    with pytest.raises(CheckpointError, match=r"does not fit the new model: found .* expected"):
        start_from(create_model(config), config, [trained.folder])


def test_the_architecture_is_that_of_the_run(trained: TrainedModel, small_model: ModelConfig) -> None:
    options = architecture(trained.folder, {"dropout": 0.3, "width": 16})
    assert (options["width"], options["backbone"], options["name"]) == (16, "conv3", "hybrid")
    assert "dropout" not in options
    assert "labels" not in options
    with pytest.raises(ConfigError, match=r"--width is 32, but the run run to start from has 16: leave the option out"):
        architecture(trained.folder, {"width": 32})
    with pytest.raises(ConfigError, match=r"--model is 'cnn', but the run"):
        architecture(trained.folder, {"name": "cnn"})


def test_released_models_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_called("hybrid") == run_called("hybrid").resolve()
    assert read_run_config(run_called("cnn")).model.name == "cnn"
    for name in ("nothing", "../hybrid", str(tmp_path / "hybrid")):
        with pytest.raises(CheckpointError, match="neither a run folder nor a released model"):
            run_called(name)


def test_a_run_is_fine_tuned_with_one_option(
    colours: Path, tmp_path: Path, make_trained: Callable[..., TrainedModel], small_model: ModelConfig
) -> None:
    source = make_trained(dataclasses.replace(small_model, labels=("red", "yellow", "blue")))
    arguments = ["--data", colours, "--output", tmp_path / "new", "--start-from", source.folder, *QUICK]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "start from run: it knows 2 of 3 labels; new: green\n" in result.stderr
    config = read_run_config(tmp_path / "new")
    assert config.model.width == small_model.width
    assert config.model.labels == ("red", "green", "blue")
    assert str(config.provenance["start_from"]).startswith("run ")
    assert config.provenance["start_note"] == "made up"
    assert config.provenance["backbone_weights"] == "run"
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == source.tokenizer
    tuned = load_checkpoint(tmp_path / "new" / "best.safetensors").model["backbone.0.weight"]
    torch.testing.assert_close(tuned, source.model.state_dict()["backbone.0.weight"], atol=0.03, rtol=0)  # 5 steps on


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embedding", "package"], "--start-from brings token embeddings of its own: leave --embedding out"),
        (["--num-layers", "3"], "--num-layers is 3, but the run run to start from has 1"),
        (["--start-from", "nowhere"], "'nowhere' is neither a run folder nor a released model"),
    ],
)
def test_what_cannot_start_is_one_line(
    colours: Path, tmp_path: Path, trained: TrainedModel, options: list[str], message: str
) -> None:
    arguments = ["--data", colours, "--output", tmp_path / "new", "--start-from", trained.folder, *QUICK, *options]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_no_epoch_calibrates_and_measures_the_mean(
    colours: Path, tmp_path: Path, trained: TrainedModel, make_trained: Callable[..., TrainedModel]
) -> None:
    other = make_trained(dataclasses.replace(trained.config.model), "second", seed=3)
    arguments = ["--data", colours, "--output", tmp_path / "new", "--epochs", "0", "--device", "cpu"]
    for folder in (trained.folder, other.folder):
        arguments += ["--start-from", folder]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "calibrating the model that it starts from, on " in result.stderr
    assert "caching features" not in result.stderr
    new = load_trained(tmp_path / "new")
    name = "backbone.0.weight"
    both = (trained.model.state_dict()[name], other.model.state_dict()[name])
    torch.testing.assert_close(new.model.state_dict()[name], torch.stack(both).mean(0))
    assert set(new.state.metrics) >= {"val", "val-picture-only", "test", "test-caption-only"}
    assert new.state.thresholds != [0.5] * 3
    assert str(new.config.provenance["start_from"]).count("run ") == 1
    assert ", second " in str(new.config.provenance["start_from"])
    assert new.config.provenance["start_note"] == "made up"
    more = ["--data", colours, "--output", tmp_path / "new", "--resume", "--epochs", "1"]
    result = CliRunner().invoke(train, [str(argument) for argument in more])
    assert result.exit_code == 0, result.output
    assert load_trained(tmp_path / "new").state.epoch == 1


def test_a_model_is_measured_at_another_size(colours: Path, tmp_path: Path, trained: TrainedModel) -> None:
    size = 2 * trained.config.model.image_size
    arguments = ["--data", colours, "--output", tmp_path / "new", "--epochs", "0", "--device", "cpu"]
    arguments += ["--start-from", trained.folder, "--image-size", size]
    result = CliRunner().invoke(train, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    new = load_trained(tmp_path / "new")
    assert new.config.model.image_size == size
    assert new.model.grid == tuple(2 * side for side in trained.model.grid)
    for name, tensor in trained.model.state_dict().items():
        if not name.startswith("calibration."):
            torch.testing.assert_close(new.model.state_dict()[name], tensor, rtol=0, atol=0)
    pixels = torch.randint(1, 256, (2, size, size, 3), dtype=torch.uint8)
    assert new.model(pixels, *(torch.ones(2, 3, dtype=torch.long),) * 2).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--epochs 0 trains nothing: give the model to calibrate and measure with --start-from"),
        (
            ["--start-from", "run", "--soft-labels", "soft.csv"],
            "so no one can teach: leave --teacher and --soft-labels",
        ),
        (["--start-from", "hybrid"], "but some labels have to be learned (start from hybrid: it knows 0 of 3 "),
    ],
)
def test_no_epoch_is_refused_where_something_is_to_be_learned(
    colours: Path, tmp_path: Path, trained: TrainedModel, options: list[str], message: str
) -> None:
    options = [str(trained.folder) if option == "run" else option for option in options]
    (tmp_path / "soft.csv").write_text("picture,red\n0.png,0.5\n")
    options = [str(tmp_path / option) if option == "soft.csv" else option for option in options]
    arguments = ["--data", str(colours), "--output", str(tmp_path / "new"), "--epochs", "0", *options]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_start_reads_its_checkpoint_once(
    colours: Path, tmp_path: Path, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def load(path: Path) -> Checkpoint:
        read.append(path)
        return load_checkpoint(path)

    monkeypatch.setattr("mlic_train.runs.folder.load_checkpoint", load)
    make_first_model(*start(colours, trained), lambda _: None)
    assert read == [trained.folder / "best.safetensors"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("best.safetensors", r"run has no best\.safetensors yet: let at least one epoch finish"),
        ("tokenizer.json", r"run has no tokenizer\.json; the run folder is incomplete"),
    ],
)
def test_an_unfinished_run_is_no_start(colours: Path, trained: TrainedModel, missing: str, message: str) -> None:
    (trained.folder / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        make_first_model(*start(colours, trained), lambda _: None)
