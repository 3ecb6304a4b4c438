"""What is released: the package in exported/ and the checkpoint that it came from."""

import hashlib
from pathlib import Path

import pytest

from mlic_runtime.bench.latency import fastest
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.runs.find import find_run, released_run
from mlic_train.runs.folder import load_trained

ROOT = Path(__file__).parents[2]


RELEASED = ("hybrid", "cnn")


def released_package(name: str) -> ModelPackage:
    return load_package(ROOT / "exported" / name)


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_package_is_whole(name: str) -> None:
    released_package(name).verify()


def test_the_hybrid_beats_the_constant_answer_and_its_own_picture_only_mode() -> None:
    package = released_package("hybrid")
    metrics = package.manifest.metrics[package.manifest.precisions[0]]
    always_person = 0.58  # samples F1 on the 500 labelled test rows
    assert metrics["test"]["rows"] == 500
    assert metrics["test"]["samples_f1"] > metrics["test-picture-only"]["samples_f1"] > always_person
    assert metrics["test"]["map"] > metrics["test-picture-only"]["map"]
    assert {"samples_f1", "micro_f1", "macro_f1", "map"} <= metrics["val"].keys() & metrics["test"].keys()


def test_the_hybrid_comes_in_int8_too_and_no_precision_costs_more_than_half_a_point_on_val() -> None:
    manifest = released_package("hybrid").manifest
    assert {"fp32", "int8"} <= set(manifest.precisions)
    for mode in ("", "-picture-only", "-caption-only"):
        f1 = {precision: splits[f"val{mode}"]["samples_f1"] for precision, splits in manifest.metrics.items()}
        assert min(f1.values()) > f1["fp32"] - 0.005, mode
    int8 = manifest.graph_name("int8")
    others = [name for name, spec in manifest.files.items() if spec.precision is None]
    assert sum(manifest.files[name].bytes for name in (int8, *others)) < 8e6
    assert manifest.recommended["cpu"] == fastest({name: specs["cpu"] for name, specs in manifest.latency.items()})


@pytest.mark.parametrize("name", RELEASED)
def test_exporting_the_released_checkpoint_gives_the_released_graph(name: str, tmp_path: Path) -> None:
    released = released_package(name).manifest
    folder = find_run(tmp_path / "no-runs-here", name)
    assert folder == released_run(name)
    manifest = export_package(load_trained(folder), tmp_path / name, ExportOptions(version=released.version))
    assert manifest.labels == released.labels
    assert manifest.provenance["checkpoint_sha256"] == released.provenance["checkpoint_sha256"]
    assert manifest.parity["fp32"].equal_decisions == 1.0


@pytest.mark.parametrize("name", RELEASED)
def test_the_manifest_names_the_released_checkpoint(name: str) -> None:
    folder = released_run(name)
    assert folder is not None
    digest = hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()
    assert released_package(name).manifest.provenance["checkpoint_sha256"] == digest


def test_all_weights_together_stay_small() -> None:
    weights = [*ROOT.glob("exported/*/*.onnx"), *ROOT.glob("mlic_train/released/*/*.safetensors")]
    assert weights
    assert sum(path.stat().st_size for path in weights) < 45e6
