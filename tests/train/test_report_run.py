import csv
import dataclasses
import html
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner, Result

from mlic_runtime.base.text import printable
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.cli.report import report
from mlic_train.config import DataOptions, ModelConfig, TrainConfig
from mlic_train.data import fingerprint
from mlic_train.data.splits import Splits, load_splits
from mlic_train.measure.collect import collect
from mlic_train.measure.collect import report as report_metrics
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import Outputs
from mlic_train.models import create_model
from mlic_train.report.calibration import calibration_error, reliability_bins
from mlic_train.report.confusion import confusion, confusion_section
from mlic_train.report.curves import shown_labels
from mlic_train.report.feature_maps import Stage, feature_maps
from mlic_train.report.label_metrics import label_metrics
from mlic_train.report.measurement import Measurement, measure
from mlic_train.report.mistakes import worst_mistakes
from mlic_train.report.page import render_page
from mlic_train.report.plots import drawable
from mlic_train.runs.folder import (
    BEST_NAME,
    LAST_NAME,
    RunConfig,
    State,
    load_trained,
    save_checkpoint,
    write_run_config,
)

SECTIONS = (
    "In short",
    "Metrics",
    "Labels",
    "Worst false positives",
    "Worst false negatives",
    "Confusion by co-occurrence",
    "Precision and recall",
    "Thresholds",
    "Calibration",
    "Training",
    "Feature maps",
    "The model",
)
NO_TEST = ["--train", "{data}/train.csv", "--val", "{data}/val.csv", "--labels", "{data}/labels.csv"]
EPOCH = {
    "train_loss": 0.5,
    "val_loss": 0.25,
    "val_samples_f1": 0.5,
    "val_micro_f1": 0.5,
    "val_map": 0.5,
    "seconds": 3.0,
}
SMALL = ModelConfig(image_size=16, width=16, num_layers=1, num_heads=2, hidden=16, vocab_size=60)


def make_run(folder: Path, splits: Splits, config: ModelConfig = SMALL, **state: object) -> Path:
    """A run folder of a model with random weights that is calibrated as if it had been trained."""
    tokenizer = train_tokenizer(caption for record in splits.train.records for caption in record.captions)
    config = dataclasses.replace(config, labels=splits.labels.names, vocab_size=vocabulary_size(tokenizer))
    torch.manual_seed(0)
    model = create_model(config)
    for mode in range(3):
        count = config.num_labels
        model.calibration.set(mode, torch.linspace(0.5, 1.5, count) + mode, torch.linspace(1.0, 3.0, count))
    provenance: dict[str, str | int | float] = {"data_fingerprint": fingerprint(splits.named()), "seed": 3}
    known: dict[str, object] = {"epoch": 1, "history": [{"epoch": 1, **EPOCH}], "thresholds": [0.5] * config.num_labels}
    write_run_config(folder, RunConfig(config, TrainConfig(epochs=2), provenance), tokenizer)
    save_checkpoint(folder / BEST_NAME, model.state_dict(), State(**{**known, **state}))  # type: ignore[arg-type] # its fields
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(report, [str(argument) for argument in arguments])


def fetched(document: str) -> list[str]:
    """What a browser would go and get for the page."""
    found = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]*)""", document)
    return [source for source in found if not source.startswith("data:")] + re.findall(r"url\(|@import", document)


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture(scope="module")
def folder(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", splits)


@pytest.fixture(scope="module")
def document(folder: Path, colours: Path) -> str:
    result = call("run", folder, "--data", colours, "--worst", 4)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder / 'report.html'}\n"
    assert result.stderr == ""
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def measurement(folder: Path, splits: Splits) -> Measurement:
    return measure(load_trained(folder), splits.val.records)


def test_the_page_has_every_section_and_fetches_nothing(document: str) -> None:
    assert tuple(re.findall("<h2>(.*?)</h2>", document)) == SECTIONS
    assert fetched(document) == []
    assert document.count("<script") == 0
    assert "Warning" not in document
    assert document.count("image/png") == 6  # training, two sets of curves, calibration, confusion, feature maps
    assert 4 <= document.count("image/jpeg") <= 8


def test_the_page_begins_with_how_good_the_model_is(document: str, measurement: Measurement) -> None:
    short = document[document.index("<h2>In short") : document.index("<h2>Metrics")]
    wrong = measurement.decisions != measurement.targets
    expected = {
        "measured on": "val, whose rows chose epoch, calibration and thresholds",
        "rows with every label right": f"{(~wrong.any(axis=1)).sum()} of {len(wrong)}",
        "predicted labels that are wrong": f"{(wrong & measurement.decisions).sum()} of {measurement.decisions.sum()}",
        "true labels that are missed": f"{(wrong & measurement.targets).sum()} of {measurement.targets.sum()}",
    }
    found = dict(re.findall("<tr><td>(.*?)</td><td>(.*?)</td></tr>", short))
    assert {name: found[name] for name in expected} == expected
    assert found["samples F1"].startswith(f"{measurement.metrics['both']['samples_f1']:.4f}\u00a0[")
    weakest = [float(each) for each in re.findall(r"\d\.\d\d", found["weakest labels, with their F1"])]
    assert weakest
    assert weakest == sorted(weakest)


def test_the_page_says_what_the_run_is(document: str) -> None:
    assert "Run tiny, measured on val" in document
    assert "<td>epochs</td><td>2</td><td>10</td>" in document
    assert "<td>image_size</td><td>16</td><td>112</td>" in document
    assert "best.safetensors" in document
    assert "data fingerprint" in document


def test_the_same_run_gives_the_same_bytes(document: str, folder: Path, colours: Path, tmp_path: Path) -> None:
    assert call("run", folder, "--data", colours, "--worst", 4, "--output", tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_text() == document


def test_the_metrics_are_those_of_evaluation(
    document: str, folder: Path, splits: Splits, measurement: Measurement
) -> None:
    trained = load_trained(folder)
    expected = report_metrics(collect(trained, trained.run, splits.val.records), trained.state.thresholds)
    assert measurement.metrics.keys() == {"both", "picture-only", "caption-only"}
    for suffix, metrics in expected.items():
        assert measurement.metrics[suffix[1:] or "both"] == pytest.approx(metrics, abs=1e-5)
        assert f"<td>{metrics['samples_f1']:.4f}\u00a0[{metrics['samples_f1_low']:.3f}" in document


def test_a_labels_numbers_average_to_the_metrics(measurement: Measurement) -> None:
    numbers = label_metrics(["a", "b", "c"], measurement.probabilities, measurement.targets, measurement.thresholds)
    metrics = measurement.metrics["both"]
    assert np.mean([row.f1.value for row in numbers]) == pytest.approx(metrics["macro_f1"], abs=1e-5)
    assert np.mean([row.ap.value for row in numbers if row.ap]) == pytest.approx(metrics["map"], abs=1e-5)
    assert [row.support for row in numbers] == measurement.targets.sum(axis=0).tolist()
    for row in numbers:
        assert row.f1.low is None or row.f1.high is None or row.f1.low <= row.f1.value <= row.f1.high


def test_a_label_that_no_row_has_has_no_average_precision() -> None:
    targets = np.array([[True, False], [True, False], [False, False]])
    found = label_metrics(["a", "b"], np.array([[0.9, 0.1], [0.2, 0.1], [0.9, 0.9]]), targets, np.array([0.5, 0.5]))
    assert (found[0].support, found[0].predicted, found[0].precision.value, found[0].recall.value) == (2, 1, 1.0, 0.5)
    assert (found[1].support, found[1].predicted, found[1].ap, found[1].f1.low) == (0, 0, None, None)


def test_the_calibration_is_left_as_it_was(folder: Path, splits: Splits, measurement: Measurement) -> None:
    trained = load_trained(folder)
    before = {name: tensor.clone() for name, tensor in trained.model.calibration.state_dict().items()}
    measure(trained, splits.val.records[:2])
    for name, tensor in trained.model.calibration.state_dict().items():
        assert torch.equal(tensor, before[name])
    raw, calibrated = measurement.raw["both"], measurement.calibrated["both"]
    assert np.abs(raw.logits - calibrated.logits).max() > 0.5
    assert calibration_error(raw) != calibration_error(calibrated)


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (200, 3)).astype(np.float32)
    targets = rng.random((200, 3)) < 0.4
    outputs = Outputs(logits, targets, np.full(200, True), np.full(200, True))
    count, said, true = reliability_bins(outputs)
    labelled = targets.any(axis=1)
    assert count.sum() == 3 * labelled.sum()
    assert np.nansum(count * np.abs(said - true)) / count.sum() == pytest.approx(calibration_error(outputs), abs=1e-4)
    assert calibration_error(outputs) == compute_metrics(sigmoid(logits), targets, np.full(3, 0.5))["ece"]


def test_the_worst_mistakes_are_the_surest_ones() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.3], [0.95, 0.2], [0.6, 0.8]])
    targets = np.array([[False, True], [False, True], [True, False], [False, False]])
    decisions = probabilities >= 0.5
    positives, negatives = worst_mistakes(probabilities, targets, decisions, 3)
    assert [(found.row, found.label, found.probability) for found in positives] == [
        (0, 0, 0.9),
        (3, 1, 0.8),
        (1, 0, 0.6),
    ]
    assert [(found.row, found.label, found.probability) for found in negatives] == [(0, 1, 0.1), (1, 1, 0.3)]


def test_confusion_counts_what_was_said_instead() -> None:
    targets = np.array([[True, False, False], [True, False, False], [True, False, True], [False, False, True]])
    decisions = np.array([[False, True, False], [False, False, False], [True, False, False], [False, False, True]])
    found = confusion(targets, decisions)
    assert found.missed.tolist() == [2, 0, 1]
    assert found.instead.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.alone.tolist() == [1, 0, 1]
    names = ["cat", "dog", "cow"]
    assert "<td>cat</td><td>dog</td><td>1 of 2</td>" in render_page("", [confusion_section(names, found)])
    assert confusion_section(names, confusion(targets, targets)).caption == "No label was missed."


def test_labels_without_a_curve_are_not_drawn() -> None:
    targets = np.zeros((4, 70), dtype=bool)
    targets[:2, 1:] = True
    targets[:, 2] = True
    targets[:3, 69] = True
    shown = shown_labels(targets)
    assert len(shown) == 60
    assert shown[:2] == [1, 3]
    assert shown[-1] == 69


def test_a_dollar_sign_in_a_name_is_no_formula() -> None:
    assert drawable("$x^2$") == r"\$x^2\$"
    assert drawable("a" * 40) == "a" * 23 + "…"
    assert printable("a\x1b[31m\udcff") == r"a\x1b[31m\udcff"


@pytest.mark.parametrize("name", ["cnn", "hybrid"])
def test_feature_maps_are_those_of_every_convolution(splits: Splits, tmp_path: Path, name: str) -> None:
    trained = load_trained(make_run(tmp_path / "run", splits, dataclasses.replace(SMALL, name=name)))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    stages = feature_maps(trained.model, pixels)
    assert [stage.maps.shape for stage in stages] == [(128, 16, 16), (64, 8, 8), (64, 4, 4)]
    with torch.inference_mode():
        last = trained.model.encode_picture(torch.from_numpy(pixels)[None])[0]
    pooled = torch.nn.functional.max_pool2d(torch.from_numpy(stages[-1].maps), 2)
    torch.testing.assert_close(pooled, last)
    assert [stage.maps.shape for stage in feature_maps(trained.model, pixels)] == [stage.maps.shape for stage in stages]


def test_stages_of_a_timm_backbone_are_the_first_a_middle_and_the_last() -> None:
    model = create_model(ModelConfig(name="cnn", labels=("a", "b"), image_size=32, backbone="tf_efficientnet_lite0"))
    stages = feature_maps(model.eval(), np.zeros((32, 32, 3), dtype=np.uint8))
    assert [(stage.name, *stage.maps.shape) for stage in stages] == [
        ("blocks.0", 16, 16, 16),
        ("blocks.2", 40, 4, 4),
        ("blocks.6", 320, 1, 1),
    ]


def test_the_strongest_channels_have_the_largest_mean() -> None:
    maps: npt.NDArray[np.float32] = np.zeros((3, 2, 2), dtype=np.float32)
    maps[1], maps[2, 0, 0] = 0.5, 1.0
    assert Stage("last", maps).strongest(2) == [1, 2]


def test_a_run_without_history_and_of_other_data_says_so(splits: Splits, colours: Path, tmp_path: Path) -> None:
    """A model that reads pictures only, on rows of which some have none, with a picture of the user's own."""
    config = dataclasses.replace(SMALL, name="cnn")
    folder = make_run(tmp_path / "run", splits, config, history=[])
    other = ["--train", colours / "val.csv", "--val", colours / "val.csv", "--labels", colours / "labels.csv"]
    result = call("run", folder, *other, "--picture", colours / "images" / "test1.png")
    assert result.exit_code == 0, result.output
    document = (folder / "report.html").read_text()
    assert "the checkpoint has no history of its training." in document
    assert "<strong>Warning: this is not the data that the run was trained with" in document
    assert "Warning: this is not the data" in result.stderr
    assert "test1.png, as the model sees it" in document
    assert "<td>caption</td><td>none: the model reads pictures only" in document


def test_the_history_goes_on_after_the_best_epoch(splits: Splits, tmp_path: Path) -> None:
    from mlic_train.report.run_facts import history

    trained = load_trained(make_run(tmp_path / "run", splits))
    assert len(history(trained)) == 1
    rows = [{"epoch": epoch, **EPOCH} for epoch in (1, 2)]
    save_checkpoint(tmp_path / "run" / LAST_NAME, {}, State(history=rows))
    assert history(trained) == rows


def test_a_run_that_saw_no_picture_is_shown_none(colours: Path, tmp_path: Path) -> None:
    stripped = load_splits(DataOptions(colours, pictures=False, skip_bad_rows=True))
    metrics = {"val": {"rows": 1}, "val-caption-only": {"rows": 1}}
    folder = make_run(tmp_path / "run", stripped, metrics=metrics)
    result = call("run", folder, "--data", colours)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""  # the captions are those that it was trained with
    document = (folder / "report.html").read_text()
    assert "<td>picture</td><td>none: trained without pictures, measured on captions only</td>" in document
    assert "Left out: the run was trained without pictures." in document
    assert "image/jpeg" not in document
    assert "picture only" not in document
    assert "a wall in" in document


def test_hostile_text_stays_text(draw: Callable[..., Path], tmp_path: Path) -> None:
    names = ["$a$ <b>bold</b>", "b_{2}$ & 猫", "</style><img src=http://x.invalid/>"]
    data = tmp_path / "data"
    for index in range(4):
        draw(data / "images" / f"{index}.png", index)
    caption = "<script>alert(1)</script> <img src=http://x.invalid/a.png> $\\frac{1}$"
    rows = [[f"{index}.png", str(index % 3 + 1), caption] for index in range(4)]
    for split in ("train", "val"):
        with (data / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["ImageID", "Labels", "Caption"], *rows])
    with (data / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["LabelID", "Name"], *enumerate(names, start=1)])
    folder = make_run(tmp_path / "run", load_splits(DataOptions(data)))
    result = call("run", folder, "--data", data)
    assert result.exit_code == 0, result.output
    document = (folder / "report.html").read_text()
    assert "<script" not in document
    assert "<b>" not in document
    assert "<img src" not in document
    assert html.escape(caption) in document
    assert all(html.escape(name) in document for name in names)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{tmp}", "--data", "{data}"], 1, "is not a run folder"),
        (["{run}"], 1, "no training data: give --data FOLDER"),
        (["{run}", "--data", "{data}", "--split", "train"], 2, "'train' is not one of"),
        (["{run}", "--train", "{data}/train.csv", "--val", "{data}/val.csv"], 1, "the data has the labels ('1', '2'"),
        (
            ["{run}", *NO_TEST, "--split", "test"],
            1,
            "the data has no split 'test'; give --test FILE",
        ),
        (["{run}", "--data", "{data}", "--picture", "{data}/val.csv"], 1, "cannot read picture"),
        (["{run}", "--data", "{data}", "--output", "{run}/config.json/report.html"], 1, "cannot be written"),
    ],
)
def test_wrong_use_is_one_clear_line(
    folder: Path, colours: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = call("run", *(argument.format(tmp=tmp_path, data=colours, run=folder) for argument in arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_help_loads_no_plots() -> None:
    code = (
        "import sys\nfrom mlic_train.cli.report import report\n"
        "for command in ('run', 'compare'):\n    try:\n        report([command, '--help'])\n    except SystemExit:\n"
        "        pass\n"
        "print([name for name in ('torch', 'matplotlib', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--worst" in done.stdout
