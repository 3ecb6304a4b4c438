"""The released package says of the examples what it said when it was released, and is as good as it was."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlic_runtime.errors import ManifestError
from mlic_runtime.graph.opening import runnable_precisions
from mlic_runtime.package.manifest import FULL_RANGE, REDUCED_RANGE
from mlic_runtime.package.model_package import ModelPackage, load_package
from tests.released_probabilities import MODES, RELEASED, describe, example_rows, main, probabilities

STORED = Path(__file__).parents[1] / "data" / "released.json"
GENERATE = "python tests/released_probabilities.py tests/data/released.json"

# The largest differences of a probability that were seen: for fp32 none on an emulated processor with AVX2 alone and
# with ONNX Runtime 1.23, 2e-7 on emulated 64-bit ARM; for int8 none with AVX2, 0.004 on ARM, which rounds otherwise
# (docs/run/raspberry-pi.md); for int8-full 0.0004 with ONNX Runtime 1.23. Where int8-full is wrong it is off by 0.026.
TOLERANCES = {"fp32": 0.0002, "fp16": 0.005, REDUCED_RANGE: 0.01, FULL_RANGE: 0.01}

# Of every graph, on coco18's test rows. A release that is better raises them; one that is worse has to say why.
# 0.4.3 lowered 0.839 and 0.781: it is chosen on val, where it loses less than 0.4.2 did (docs/models/hybrid.md).
# 0.6.0 lowered 0.862 and 0.810, and raised 0.35, all with the caption alone: its empty_odds suits the other modes
# (docs/decisions/104-the-hybrid-sees-320-pixels.md).
AT_LEAST = {
    "test": {"samples_f1": 0.877, "map": 0.838},
    "test-picture-only": {"samples_f1": 0.791, "map": 0.751},
    "test-caption-only": {"samples_f1": 0.856, "map": 0.807},
}
AT_MOST = {
    "test": {"ece": 0.010, "false_labels_per_negative": 0.27},
    "test-picture-only": {"ece": 0.010, "false_labels_per_negative": 0.10},
    "test-caption-only": {"ece": 0.010, "false_labels_per_negative": 0.38},
}

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return load_package(RELEASED)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return content


def check(found: Array, expected: Array, thresholds: Array, tolerance: float) -> None:
    """Compare probabilities (N, L), and the decisions that do not lie within `tolerance` of a threshold."""
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)
    decided = np.abs(expected - thresholds) > tolerance
    assert decided.mean() > 0.95, f"{(~decided).sum()} probabilities lie on their thresholds: choose other examples"
    assert ((found >= thresholds) == (expected >= thresholds))[decided].all()


def check_probabilities(package: ModelPackage, found: dict[str, Any], expected: dict[str, Any], precision: str) -> None:
    thresholds = np.array([label.threshold for label in package.manifest.labels])
    for mode in MODES:
        rows = np.array(expected[precision][mode])
        assert rows.shape == (len(example_rows(mode)), len(thresholds))
        check(np.array(found[precision][mode]), rows, thresholds, TOLERANCES[precision])


def test_the_stored_probabilities_are_those_of_the_released_package(
    package: ModelPackage, stored: dict[str, Any]
) -> None:
    assert describe(package) == {key: value for key, value in stored.items() if key != "probabilities"}, GENERATE
    assert tuple(stored["probabilities"]) == package.manifest.precisions, GENERATE


@pytest.mark.parametrize("precision", load_package(RELEASED).manifest.precisions)
def test_every_graph_says_of_the_examples_what_it_said_when_it_was_released(
    package: ModelPackage, stored: dict[str, Any], precision: str
) -> None:
    if precision not in runnable_precisions(package.manifest):
        with pytest.raises(ManifestError, match="its results would be wrong"):
            probabilities(package, precision)
        return
    check_probabilities(package, {precision: probabilities(package, precision)}, stored["probabilities"], precision)


def test_another_answer_is_noticed(package: ModelPackage, stored: dict[str, Any]) -> None:
    for precision, by_mode in stored["probabilities"].items():
        for mode in MODES:
            rows = np.array(by_mode[mode])
            rows[0, 0] += 2 * TOLERANCES[precision] * (1 if rows[0, 0] < 0.5 else -1)
            with pytest.raises(AssertionError):
                check_probabilities(package, {precision: by_mode | {mode: rows}}, stored["probabilities"], precision)


def test_the_generator_writes_the_file(
    package: ModelPackage, stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = set(package.manifest.precisions) - set(runnable_precisions(package.manifest))
    if lacking:
        with pytest.raises(SystemExit, match="needs VNNI or the ARM dot product"):
            main(tmp_path / "released.json")
        return
    main(tmp_path / "released.json")
    text = (tmp_path / "released.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found.keys() == stored.keys()
    assert {**found, "probabilities": None} == {**stored, "probabilities": None}
    assert found["probabilities"].keys() == stored["probabilities"].keys()
    for precision in found["probabilities"]:
        check_probabilities(package, found["probabilities"], stored["probabilities"], precision)
    layout = [re.sub(r"[\d.e-]+", "0", each) for each in (text, STORED.read_text(encoding="utf-8"))]
    assert layout[0] == layout[1]


@pytest.mark.parametrize("split", AT_LEAST)
def test_no_graph_that_is_released_is_worse_than_before(package: ModelPackage, split: str) -> None:
    """What `mlic-export --data` measured; benchmarks/release.py measures it again."""
    metrics = package.manifest.metrics
    assert tuple(metrics) == package.manifest.precisions
    for precision, splits in metrics.items():
        found = splits[split]
        assert (found["rows"], found["negatives"]) == (500, 194), "the bounds are those of coco18's test rows"
        for name, bound in AT_LEAST[split].items():
            assert found[name] >= bound, (precision, name)
        for name, bound in AT_MOST[split].items():
            assert found[name] <= bound, (precision, name)
