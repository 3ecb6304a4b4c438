"""The whole road with the commands a user types: train, export, then predict with the runtime."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (220, 30, 30), "blue": (20, 40, 210)}


def command(entry: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a console script by its entry point, in another folder than the checkout."""
    module, function = entry.split(":")
    code = f"from {module} import {function}; {function}()"
    line = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("road")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        rows = [("ImageID", "Labels", "Caption")]
        for index in range(count):
            name = list(COLOURS)[index % 2]
            pixels = np.full((24, 24, 3), COLOURS[name], dtype=np.uint8) + rng.integers(0, 20, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{split}{index}.png")
            rows.append((f"{split}{index}.png", name, f"a {name} wall"))
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    options = [
        "--preset",
        "none",
        "--image-size",
        "16",
        "--epochs",
        "25",
        "--patience",
        "0",
        "--batch-size",
        "8",
        "--dropout",
        "0.1",
    ]
    options += ["--preset", "none", "--learning-rate", "0.01", "--device", "cpu", "--drop-caption", "0.5"]
    trained = command("mlic_train.cli.train:train", "--data", root, *options, cwd=root)
    assert trained.returncode == 0, trained.stderr
    exported = command("mlic_train.cli.export:export", "--model", "hybrid", cwd=root)
    assert exported.returncode == 0, exported.stderr
    return root / "runs" / "hybrid" / "package"


def test_the_runtime_predicts_with_what_was_trained(package: Path, tmp_path: Path) -> None:
    picture = package.parents[2] / "images" / "val1.png"
    done = command(
        "mlic_runtime.cli.infer:infer", picture, "a blue wall", "--model", package, "--format", "json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["labels"] == ["blue"]
    assert answer["model"] == "hybrid@0.1.0"
    assert list(answer) == ["image", "caption", "labels", "probabilities", "model"]


def test_the_picture_alone_is_enough(package: Path, tmp_path: Path) -> None:
    picture = package.parents[2] / "images" / "val0.png"
    done = command("mlic_runtime.cli.infer:infer", picture, "--model", package, "--format", "json", cwd=tmp_path)
    assert json.loads(done.stdout)["labels"] == ["red"]


def test_bench_compares_with_pytorch_on_the_same_inputs(package: Path, tmp_path: Path) -> None:
    run = package.parent
    options = ["--model", package, "--checkpoint", run, "--against", "pytorch", "--runs", 3, "--warmup", 1]
    done = command("mlic_runtime.cli.bench:bench", *options, "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [timing["name"] for timing in report["timings"]] == ["mlic-runtime", "pytorch eager"]
    assert report["comparisons"][0]["max_abs_difference"] < 1e-4
