"""Reduced precisions in an export: what is written, what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mlic_runtime import Predictor
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.model_package import load_package
from mlic_runtime.providers.library import available_providers
from mlic_runtime.providers.names import AUTO, candidates
from mlic_train.cli.export import export
from mlic_train.config import DataOptions
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import ExportError
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.exporting.precisions import _quantize, largest_drop, make_graphs
from mlic_train.exporting.quantization import Block, Effect
from mlic_train.measure.collect import collect_splits, run_graph
from mlic_train.report.precisions import pareto_front
from mlic_train.runs.folder import TrainedModel

ALL = ("fp32", "fp16", "int8")
# The model of these tests has random weights: what rounding does to its F1 means nothing.
ANY_DROP = ExportOptions(precisions=ALL, max_drop=100.0)


@pytest.fixture
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


def test_a_package_has_a_graph_for_every_precision_asked_for(
    trained: TrainedModel, splits: Splits, tmp_path: Path, colours: Path
) -> None:
    manifest = export_package(trained, tmp_path / "package", ANY_DROP, splits=splits)
    assert manifest.precisions == ALL
    assert manifest.metrics.keys() == manifest.parity.keys() == set(ALL)
    sizes = [manifest.files[manifest.graph_name(precision)].bytes for precision in ALL]
    assert sizes == sorted(sizes, reverse=True)
    for precision in ALL:
        assert manifest.metrics[precision].keys() == manifest.parity[precision].splits.keys()
        assert len(manifest.metrics[precision]) == 6
    differences = [manifest.parity[precision].splits["val"].max_abs_difference for precision in ALL]
    assert differences[0] < 1e-4 < differences[1]
    assert len(set(differences)) == 3
    notes = manifest.provenance
    assert notes["fp16_left_in_fp32"] == "none"
    assert isinstance(notes["int8_blocks"], int)
    assert notes["int8_blocks"] >= 1
    picture, caption = colours / "images" / "train0.png", "a red wall"
    answers = [
        Predictor.load(tmp_path / "package", precision=precision).predict(picture, caption).probabilities
        for precision in ALL
    ]
    for answer in answers[1:]:
        assert answer == pytest.approx(answers[0], abs=0.1)
        assert answer != answers[0]


def test_an_int8_package_needs_no_other_graph(trained: TrainedModel, splits: Splits, tmp_path: Path) -> None:
    options = dataclasses.replace(ANY_DROP, precisions=("int8",))
    assert export_package(trained, tmp_path / "package", options, splits=splits).precisions == ("int8",)
    assert sorted(path.name for path in (tmp_path / "package").glob("*.onnx")) == ["model.int8.onnx"]


def test_all_precisions_are_the_same_bytes_again(trained: TrainedModel, splits: Splits, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_package(trained, tmp_path / name, ANY_DROP, splits=splits)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_weights_that_are_rounded_one_by_one_are_counted_once(
    trained: TrainedModel, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = collect_splits(trained, trained.run, splits)
    for precisions, most, count in ((("int8",), 5_000, 0), (("int8-full", "int8"), 27, 2)):
        monkeypatch.setattr("mlic_train.exporting.rounding.MOST_INPUTS", most)
        lines: list[str] = []
        make_graphs(trained, precisions, splits, expected, 100.0, lines.append)
        said = [line for line in lines if "one by one" in line]
        start = f"the weights of {count} of 3 convolutions are rounded one by one, not together, as one value has more"
        assert [line.startswith(start) for line in said] == [True] * (count > 0)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_reduced_precision_needs_data(trained: TrainedModel, tmp_path: Path, precision: str) -> None:
    with pytest.raises(ExportError, match=f"{precision} is fitted on training rows .*: give --data, or export"):
        export_package(trained, tmp_path / "package", ExportOptions(precisions=("fp32", precision)))
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("drop", [0.51, float("inf")])
def test_a_precision_that_costs_too_much_leaves_the_package_as_it_was(
    trained: TrainedModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop: float
) -> None:
    export_package(trained, tmp_path / "package")
    before = {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()}
    monkeypatch.setattr("mlic_train.exporting.package.largest_drop", lambda *_: drop)
    with pytest.raises(ExportError, match=r"fp16 costs (0\.51|inf) points of validation samples F1, at most 0.5 are"):
        export_package(trained, tmp_path / "package", ExportOptions(precisions=("fp32", "fp16")), splits=splits)
    assert {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()} == before


def test_the_drop_is_that_of_the_mode_where_it_is_largest(trained: TrainedModel, splits: Splits) -> None:
    expected = collect_splits(trained, trained.run, splits)
    assert largest_drop(trained, expected, expected) == 0.0
    for key, counts in (("val", True), ("val-picture-only", True), ("val-caption-only", True), ("test", False)):
        # The answer that is always right where F1 is to rise, always wrong where it is to fall.
        right = dataclasses.replace(expected[key], logits=np.where(expected[key].targets, 9.0, -9.0).astype(np.float32))
        wrong = dataclasses.replace(right, logits=-right.logits)
        drop = largest_drop(trained, {**expected, key: right}, {**expected, key: wrong})
        assert drop == (pytest.approx(100.0) if counts else 0.0), key


def test_val_is_measured_in_every_mode(trained: TrainedModel, splits: Splits) -> None:
    graph = make_graphs(trained, ("fp32",), splits, {}, 0.5, lambda _: None)["fp32"].content
    found = collect_splits(trained, run_graph(trained, create_session(graph)), splits, ("val",))
    expected = collect_splits(trained, trained.run, splits)
    assert found.keys() == {key for key in expected if key.startswith("val")}
    for key, outputs in found.items():
        assert outputs.logits == pytest.approx(expected[key].logits, abs=1e-4)


class Blocks:
    """A quantizer of blocks with known noise and savings; its graphs are the names of the blocks in int8."""

    def __init__(self, *mean_squares: float, savings: tuple[float, ...] | None = None) -> None:
        self.effects = [
            Effect(Block(f"/b{index}", (f"/b{index}/Conv",)), noise, saving)
            for index, (noise, saving) in enumerate(
                zip(mean_squares, savings or (1.0,) * len(mean_squares), strict=True)
            )
        ]
        self.blocks = [effect.block for effect in self.effects]

    def measure_effects(self, _: object) -> list[Effect]:
        return self.effects

    def quantize(self, blocks: list[Block]) -> bytes:
        return " ".join(block.name for block in blocks).encode()


def quantize(blocks: Blocks, drop: Callable[[bytes], float], log: Callable[[str], None] = lambda _: None) -> Any:
    return _quantize(blocks, [], drop, 0.5, log, "int8")  # type: ignore[arg-type] # a stand-in


def test_the_worst_blocks_are_left_out_until_the_noise_is_within_its_budget() -> None:
    made = quantize(Blocks(0.125, 0.05, 0.006), lambda _: 0.0)
    assert made.content == b"/b1 /b2"
    assert made.notes == {"int8_blocks": 2, "int8_left_in_fp32": "b0"}
    assert quantize(Blocks(0.003, 0.002), lambda _: 0.0).notes["int8_left_in_fp32"] == "none"


def test_the_budget_is_halved_until_the_drop_is_allowed() -> None:
    log: list[str] = []
    drops = {b"/b1 /b2 /b3 /b4": 0.9, b"/b3 /b4": 0.5}
    made = quantize(Blocks(0.125, 0.018, 0.018, 0.018, 0.0006), drops.__getitem__, log.append)
    assert made.notes["int8_left_in_fp32"] == "b0, b1, b2"
    assert log[1:] == [
        "int8 with 1 of 5 blocks in fp32: +0.90 points of validation samples F1 lost",
        "int8 with 3 of 5 blocks in fp32: +0.50 points of validation samples F1 lost",
    ]


def test_blocks_that_save_little_for_their_noise_are_left_out_first() -> None:
    # The noisiest block saves most. Without b1 and b2 the noise fits; b3 fits beside b0, b2 would not.
    blocks = Blocks(0.05, 0.02, 0.015, 0.003, savings=(1.0, 0.1, 0.2, 0.05))
    made = quantize(blocks, lambda _: 0.0)
    assert made.content == b"/b0 /b3"
    assert made.notes == {"int8_blocks": 2, "int8_left_in_fp32": "b1, b2"}


def test_a_graph_that_costs_too_much_is_followed_by_one_of_less_noise() -> None:
    # All fit the budget, and would after ten halvings; the next graph has at most 0.7 of the noise.
    drops = {b"/b0 /b1 /b2": 1.0, b"/b0": 0.2}
    made = quantize(Blocks(2e-5, 1e-5, 1e-5, savings=(1.0, 0.1, 0.1)), drops.__getitem__)
    assert made.notes["int8_left_in_fp32"] == "b1, b2"


def test_a_loss_that_does_not_come_from_int8_ends_the_search() -> None:
    with pytest.raises(ExportError, match=r"int8 costs 3\.00 points .* with 0 of 2 blocks in fp32, at most 0\.5 are"):
        quantize(Blocks(0.0, 0.0), lambda _: 3.0)


def test_a_model_that_bears_no_int8_is_refused_by_name() -> None:
    with pytest.raises(ExportError, match=r"int8 costs 3\.00 points .* with 1 of 2 blocks in fp32, at most 0\.5 are"):
        quantize(Blocks(0.001, 0.0005), lambda _: 3.0)
    with pytest.raises(ExportError, match="no operator that int8 could be used for"):
        quantize(Blocks(), lambda _: 0.0)


def test_latency_is_measured_only_when_asked_for_and_leads_to_a_recommendation(
    trained: TrainedModel, splits: Splits, tmp_path: Path
) -> None:
    providers = set(candidates(AUTO, available_providers()))  # OpenVINO where it is installed
    options = dataclasses.replace(ANY_DROP, precisions=("fp32", "int8"), latency=True)
    manifest = export_package(trained, tmp_path / "package", options, splits=splits)
    assert load_package(tmp_path / "package").manifest == manifest
    assert {precision: set(measured) for precision, measured in manifest.latency.items()} == {
        "fp32": providers,
        "int8": providers,
    }
    assert all(measured["cpu"].p50_ms > 0 for measured in manifest.latency.values())
    assert manifest.recommended["cpu"] in ("fp32", "int8")
    card = (tmp_path / "package" / "README.md").read_text()
    assert "| precision | MB | val samples F1 | test samples F1 | ms on cpu |" in card.replace("| ms on openvino ", "")
    assert f"`--precision auto` takes `{manifest.recommended['cpu']}` there" in card
    plain = export_package(trained, tmp_path / "plain", dataclasses.replace(options, latency=False), splits=splits)
    assert (plain.latency, plain.recommended) == ({}, {})


def test_the_card_has_hashes_and_says_how_to_make_it_again(
    trained: TrainedModel, splits: Splits, tmp_path: Path
) -> None:
    manifest = export_package(trained, tmp_path / "package", ANY_DROP, splits=splits)
    card = (tmp_path / "package" / "README.md").read_text()
    for name, spec in manifest.files.items():
        assert (f"| {name} | {spec.bytes} | `{spec.sha256}` |" in card) == (name != "README.md")
    assert "mlic-export --model hybrid --data DATA --precision fp32,fp16,int8 --package-version 0.1.0\n" in card
    for heading in ("Intended use", "Graphs", "Training data and licences", "Provenance", "Files", "Limits"):
        assert f"\n## {heading}\n" in card


def test_mlic_export_writes_precisions_and_draws_them(trained: TrainedModel, colours: Path, tmp_path: Path) -> None:
    given = ["--run", str(trained.folder), "--output", str(tmp_path / "package"), "--data", str(colours)]
    given += ["--precision", "fp32, int8", "--max-drop", "100", "--latency", "--plot", str(tmp_path / "front.png")]
    result = CliRunner().invoke(export, given)
    assert result.exit_code == 0, result.stderr
    assert "int8       val-caption-only" in result.stdout
    assert load_package(tmp_path / "package").manifest.precisions == ("fp32", "int8")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.width > picture.height > 300


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--precision", "fp64"], "'fp64' is none of fp32, fp16, int8-full, int8"),
        (["--precision", "int8,int8"], "'int8,int8' names a precision twice"),
        (["--plot", "front.png"], "--plot draws what --latency and --data measure; give both"),
        (["--layout", "triton", "--precision", "fp32,int8"], "a Triton model has one graph; give one --precision"),
    ],
)
def test_mlic_export_refuses_what_does_not_go_together(
    trained: TrainedModel, tmp_path: Path, given: list[str], message: str
) -> None:
    result = CliRunner().invoke(export, ["--run", str(trained.folder), "--output", str(tmp_path / "out"), *given])
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_front_has_no_point_that_another_beats() -> None:
    assert pareto_front([(3.0, 0.9), (1.0, 0.7), (2.0, 0.6), (2.5, 0.9), (4.0, 0.8)]) == [(1.0, 0.7), (2.5, 0.9)]
    assert pareto_front([]) == []
