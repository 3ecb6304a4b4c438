"""Options: one field is the command line, the documents, the file and the check."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from mlic_runtime.base.option import check, option, options_of
from mlic_runtime.cli.fields import GroupedCommand, field_options, given_options
from mlic_train.cli.train import train
from mlic_train.config import (
    DataOptions,
    Distillation,
    ModelConfig,
    TrainConfig,
    read_options,
    resolve,
    resolve_configs,
    threshold_goal,
    to_toml,
)
from mlic_train.config import options as all_options
from mlic_train.config.__main__ import options_page
from mlic_train.config.options import OPTION_CLASSES, as_arguments, searchable
from mlic_train.data.splits import load_splits
from mlic_train.errors import ConfigError
from mlic_train.runs.folder import load_trained, read_run_config
from mlic_train.training.run import train_run

DOCUMENT = Path(__file__).parents[2] / "docs" / "train" / "options.md"
RELEASED = Path(__file__).parents[2] / "mlic_train" / "released"
SMALL: dict[str, Any] = {"preset": "none", "image_size": 16, "epochs": 1, "batch_size": 12, "text_batch_size": 12}
SMALL |= {"learning_rate": 0.01, "seed": 3}


@dataclasses.dataclass(frozen=True)
class LongerTrainConfig(TrainConfig):
    """A training with one option more than there is."""

    warm_up: int = option(3, "Epochs with a rising learning rate.", "Optimizer", low=0, high=100)


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> type[LongerTrainConfig]:
    """The options, with `warm_up` among them."""
    kinds = tuple(LongerTrainConfig if kind is TrainConfig else kind for kind in OPTION_CLASSES)
    monkeypatch.setattr(all_options, "OPTION_CLASSES", kinds)
    monkeypatch.setattr(all_options, "OWNERS", {name: kind for kind in kinds for name in options_of(kind)})
    return LongerTrainConfig


def test_a_new_field_is_an_option_everywhere(one_more: type[LongerTrainConfig], tmp_path: Path) -> None:
    @click.command(cls=GroupedCommand)
    @field_options(one_more)
    @click.pass_context
    def command(ctx: click.Context, /, **_: object) -> None:
        click.echo(json.dumps(given_options(ctx, one_more)))

    shown = CliRunner().invoke(command, ["--help-all"], terminal_width=100).output
    assert "--warm-up NUMBER" in shown
    assert "Epochs with a rising learning rate.  [default: 3; from 0 to 100]" in shown
    assert "--warm-up" not in CliRunner().invoke(command, ["--help"]).output
    assert json.loads(CliRunner().invoke(command, ["--warm-up", "5"]).output) == {"warm_up": 5}
    assert "--warm-up" in CliRunner().invoke(command, ["--warm-up", "101"]).stderr
    assert "| `--warm-up` | 3 | from 0 to 100 | Epochs with a rising learning rate. |" in options_page()
    (tmp_path / "options.toml").write_text("warm-up = 7\n")
    assert read_options(tmp_path / "options.toml") == {"warm_up": 7}
    (tmp_path / "options.toml").write_text("warm_up = 101\n")
    with pytest.raises(ConfigError, match=r"options\.toml: warm_up is 101; it must be from 0 to 100"):
        read_options(tmp_path / "options.toml")
    with pytest.raises(ConfigError, match="warm_up is -1; it must be from 0 to 100"):
        one_more(warm_up=-1)
    assert "warm_up" in searchable()


def test_the_document_says_what_the_fields_say() -> None:
    """Make it anew with `python -m mlic_train.config > docs/train/options.md`."""
    assert DOCUMENT.read_text(encoding="utf-8") == options_page()


def test_every_option_has_a_name_of_its_own_and_a_help() -> None:
    names = [name for kind in OPTION_CLASSES for name in options_of(kind)]
    assert len(set(names)) == len(names)
    flags = [flag for parameter in train.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    assert len(set(flags)) == len(flags)
    assert all(about.help.endswith((".", "]")) for kind in OPTION_CLASSES for about in options_of(kind).values())


def test_help_shows_what_people_use_and_help_all_shows_all() -> None:
    short = CliRunner().invoke(train, ["--help"], terminal_width=80).output
    full = CliRunner().invoke(train, ["--help-all"], terminal_width=80).output
    assert len(short.splitlines()) <= 60
    assert max(map(len, short.splitlines())) <= 80
    assert "--epochs" in short
    assert "--rand-augment" not in short
    for kind in OPTION_CLASSES:
        for about in options_of(kind).values():
            assert f"\n{about.group}:\n" in full
    for parameter in train.params:
        assert parameter.opts[0] in full


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("train", "horizontal_flip", "no", "horizontal_flip must be bool, found 'no'"),
        ("train", "freeze_backbone", "false", "freeze_backbone must be bool, found 'false'"),
        ("train", "epochs", 2.5, "epochs must be int, found 2.5"),
        ("train", "backbone_learning_rate", -5, "backbone_learning_rate is -5.0; it must be from 0 to 10"),
        ("model", "labels", "ab", "labels must be a list, found 'ab'"),
        ("model", "mean", ["a", "b", "c"], "mean[0] must be float, found 'a'"),
        ("model", "std", [0.1, 0.0, 0.1], "std is 0.0; it must be above 0, up to 1"),
        ("model", "mean", [0.1, 0.2], "mean must be a list of 3, found [0.1, 0.2]"),
        ("model", "softmax_output", True, "softmax_output is True, but the loss is bce"),
        ("train", "epoch", 1, "unknown key 'epoch' for TrainConfig; did you mean 'epochs'?"),
    ],
)
def test_a_run_with_a_wrong_value_is_refused_by_file_and_key(
    tmp_path: Path, part: str, key: str, value: object, message: str
) -> None:
    content: dict[str, dict[str, object]] = {"model": {"labels": ["a"]}, "train": {"loss": "bce"}, "provenance": {}}
    content[part][key] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        read_run_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('horizontal_flip = "no"', "horizontal_flip must be bool, found 'no'"),
        ("epochs = 2.5", "epochs must be int, found 2.5"),
        ("backbone-learning-rate = -5", "backbone_learning_rate is -5.0; it must be from 0 to 10"),
        ("lerning_rate = 0.1", "unknown option 'lerning_rate'; did you mean 'learning_rate'?"),
        ("train = 3", "train must be a list, found 3"),
        ("epochs = ", "Invalid value"),
    ],
)
def test_a_file_with_a_wrong_option_is_refused_by_file_and_key(
    colours: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "options.toml"
    file.write_text(text)
    refused = CliRunner().invoke(train, ["--data", str(colours), "--config", str(file)])
    assert refused.exit_code == 1
    assert f"{file}" in refused.stderr
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (TrainConfig, {"learning_rate": 11}),
        (TrainConfig, {"workers": True}),
        (TrainConfig, {"monitor": "loss"}),
        (ModelConfig, {"dropout": 0.96}),
        (ModelConfig, {"text_config": []}),
        (DataOptions, {"data_format": "excel"}),
        (Distillation, {"sees": "nothing"}),
    ],
)
def test_what_is_built_directly_is_checked_too(kind: type, given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        kind(**given)


def test_values_take_the_type_of_their_annotation() -> None:
    model = ModelConfig(labels=["a", "b"], dropout=0, mean=[0, 0.5, 1])  # type: ignore[arg-type] # from a notebook
    assert (model.labels, model.mean) == (("a", "b"), (0.0, 0.5, 1.0))
    assert isinstance(model.dropout, float)
    assert DataOptions("data").folder == Path("data")  # type: ignore[arg-type] # from a notebook


def test_a_dataclass_that_is_checked_raises_the_error_of_its_package() -> None:
    @dataclasses.dataclass(frozen=True)
    class Small:
        size: int = option(1, "A size.", "Sizes", low=1)

        def __post_init__(self) -> None:
            check(self, KeyError)

    with pytest.raises(KeyError, match="size is 0; it must be at least 1"):
        Small(0)


def test_what_follows_from_other_options_is_filled_in() -> None:
    assert ModelConfig().image_size == 112
    assert ModelConfig(backbone="tf_efficientnet_lite0").image_size == 224
    softmax = resolve({"preset": "none", "loss": "softmax_bce", "backbone_weights": "package"})
    assert softmax.model.softmax_output
    assert softmax.train.freeze_batch_statistics
    assert resolve({}).train.freeze_batch_statistics
    assert not resolve({"preset": "none"}).train.freeze_batch_statistics
    assert not resolve({"backbone_weights": "hub", "freeze_batch_statistics": False}).train.freeze_batch_statistics
    assert resolve_configs(ModelConfig(softmax_output=True), TrainConfig())[1].loss == "softmax_bce"
    with pytest.raises(ConfigError, match="softmax_output is False, but the loss is softmax_bce"):
        resolve_configs(ModelConfig(softmax_output=False), TrainConfig(loss="softmax_bce"))
    again = resolve_configs(softmax.model, softmax.train, pretrained=True)
    assert again == (softmax.model, softmax.train)


def test_options_have_the_names_of_fields_and_of_the_command_line() -> None:
    assert resolve({"model": "cnn"}) == resolve({"name": "cnn"})
    assert resolve({"data-format": "csv", "labels": "l.csv"}).data == DataOptions(
        data_format="csv", labels_file=Path("l.csv")
    )
    with pytest.raises(ConfigError, match="unknown option 'drop_out'; did you mean 'dropout'"):
        resolve({"drop_out": 0.1})


def test_arguments_give_the_options_back() -> None:
    given = {
        "folder": Path("my data"),
        "train": (Path("a.csv"), Path("b.csv")),
        "name": "cnn",
        "mean": (0.1, 0.2, 0.3),
        "horizontal_flip": False,
        "freeze_backbone": True,
        "vertical_flip": False,
        "backbone_learning_rate": 1e-05,
    }
    arguments = as_arguments(given)
    assert arguments[:2] == ["--data", "my data"]

    path = click.Path(path_type=Path)

    @click.command()
    @field_options(*OPTION_CLASSES, path_types={"data file": path, "data folder": path})
    @click.pass_context
    def command(ctx: click.Context, /, **_: object) -> None:
        assert resolve(given_options(ctx, *OPTION_CLASSES)).given == given

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["cnn", "hybrid"])
def test_the_released_configurations_are_read_as_they_are(name: str) -> None:
    config = read_run_config(RELEASED / name)
    written = json.loads((RELEASED / name / "config.json").read_text())
    for part in ("model", "train"):
        read = json.loads(json.dumps(dataclasses.asdict(getattr(config, part))))
        assert {key: read[key] for key in written[part]} == written[part]


@pytest.mark.parametrize("given", [{"loss": "softmax_bce"}, {"name": "origin_hybrid", "hidden": 16}])
def test_python_and_the_command_line_train_the_same_model(colours: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    """The weights are the same bit for bit, from a command line, its options.toml, and dataclasses."""
    tiny = {**given, "width": 16, "num_heads": 2, "num_layers": 1}
    options = {**SMALL, **tiny, "folder": colours, "device": "cpu"}
    result = CliRunner().invoke(train, [*as_arguments(options), "--output", str(tmp_path / "shell")])
    assert result.exit_code == 0, result.output
    file = tmp_path / "shell" / "options.toml"
    assert f'data = "{colours}"\n' in file.read_text()
    result = CliRunner().invoke(train, ["--config", str(file), "--output", str(tmp_path / "file")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "file" / "options.toml").read_text() == file.read_text()
    fields = {kind: {f.name for f in dataclasses.fields(kind)} for kind in (ModelConfig, TrainConfig)}
    model = ModelConfig(**{name: value for name, value in options.items() if name in fields[ModelConfig]})
    config = TrainConfig(**{name: value for name, value in options.items() if name in fields[TrainConfig]})
    train_run(tmp_path / "python", model, config, load_splits(DataOptions(colours)), device="cpu")
    runs = {name: load_trained(tmp_path / name) for name in ("shell", "file", "python")}
    for run in runs.values():
        assert run.config == runs["shell"].config
        assert run.state.thresholds == runs["shell"].state.thresholds
        for name, tensor in runs["shell"].model.state_dict().items():
            torch.testing.assert_close(run.model.state_dict()[name], tensor, rtol=0, atol=0)
    if "loss" in given:
        assert runs["python"].config.model.softmax_output


def test_the_command_line_wins_over_the_file(colours: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text(
        f'preset = "none"\ndata = "{colours}"\nmodel = "cnn"\nepochs = 9\nimage-size = 16\nhorizontal-flip = false\n'
    )
    given = ["--config", str(file), "--epochs", "1", "--horizontal-flip", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(train, given)
    assert result.exit_code == 0, result.output
    config = read_run_config(tmp_path / "run")
    assert (config.train.epochs, config.train.horizontal_flip, config.model.image_size) == (1, True, 16)
    written = (tmp_path / "run" / "options.toml").read_text()
    assert "epochs = 1\n" in written
    assert "output" not in written


def test_texts_in_options_toml_come_back(tmp_path: Path) -> None:
    note = 'a "quoted" note \\ with\nlines, \x7f, é and 🙂'
    file = tmp_path / "options.toml"
    given = {"note": note, "mean": (0.0, 1e-05, 1.0), "freeze_backbone": True, "epochs": 3, "train": (Path("a b.csv"),)}
    file.write_text(to_toml(given), encoding="utf-8")
    assert read_options(file) == given


def test_a_threshold_goal_is_read() -> None:
    assert threshold_goal("precision=0.9") == ("precision", 0.9)
    assert threshold_goal("micro_f1") == ("micro_f1", None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"freeze_backbone": True}, True),
        ({"freeze_backbone": True, "horizontal_flip": True, "vertical_flip": True}, True),
        ({"freeze_backbone": True, "cache_features": False}, False),
        ({"freeze_backbone": True, "random_crop": 0.5}, False),
        ({"freeze_backbone": True, "color_jitter": 0.1}, False),
        ({"freeze_backbone": True, "mixup": 0.2}, False),
    ],
)
def test_features_are_kept_where_they_do_not_change(given: dict[str, Any], expected: bool) -> None:
    assert resolve({"preset": "none", **given}).train.cache_features is expected


def test_one_of_many_may_be_given_alone() -> None:
    assert resolve({"start_from": "hybrid"}).weights.start_from == ("hybrid",)
