import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablation.py"
PLAN = """
data = "--data '{data}'"
options = "--preset none --image-size 16 --epochs 1 --width 8 --num-layers 1 --num-heads 1 --device cpu"

[variants."all parts"]
seeds = [0, 1]

[variants."without LSTM (mean)"]
add = "--text-encoder mean"
"""


def ablation(plan: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPT), str(plan), "--runs", str(plan.parent / "runs"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_variants_are_trained_once_and_compared_over_their_seeds(tmp_path: Path, colours: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.format(data=colours))
    first = ablation(plan, "--variant", "all parts")
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("mlic-train ") == 2
    assert "without LSTM (mean): not all of its trainings have ended" in first.stderr
    second = ablation(plan, "--output", tmp_path / "ablation.json")
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("mlic-train ") == 1
    found = json.loads((tmp_path / "ablation.json").read_text())["variants"]
    parts = found["all parts"]
    scores = [parts["seeds"][seed]["metrics"]["test"]["map"] for seed in ("0", "1")]
    assert parts["summary"]["test"]["map"]["mean"] == pytest.approx(sum(scores) / 2, abs=1e-5)
    assert parts["summary"]["test"]["map"]["sd"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5, abs=1e-5)
    assert "sd" not in found["without LSTM (mean)"]["summary"]["test"]["map"]
    assert found["without LSTM (mean)"]["arguments"].endswith("--text-encoder mean")
    lines = second.stdout.splitlines()
    assert lines[0] == "|  | seeds | val loss | val | test | test, picture only | test, caption only |"
    assert lines[2].startswith("| all parts | 2 | ")
    assert lines[3].startswith("| without LSTM (mean) | 1 | ")


def test_options_can_be_left_out_with_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    read_plan = importlib.import_module("ablation").read_plan
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'data = "--data colours --soft-labels a.csv"\n'
        "options = \"--epochs 1 --soft-labels=b.csv --quantize --seed 1 --soft-labels 'c d.csv' --width 8\"\n"
        "[variants.all]\n"
        '[variants."without soft labels"]\nwithout = "--soft-labels"\nadd = "--epochs 2"\n'
        '[variants."without two"]\nwithout = "--quantize --seed"\n'
    )
    whole, without, two = (shlex.join(variant.arguments) for variant in read_plan(plan))
    assert "--soft-labels a.csv --epochs 1 --soft-labels=b.csv" in whole
    assert without == "--data colours --epochs 1 --quantize --seed 1 --width 8 --epochs 2"
    assert two == whole.replace(" --quantize --seed 1", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[variants.a]\nwithout = '--soft-labels'",
            "[variants.a] is without --soft-labels, which the plan does not give",
        ),
        ("data = ", "cannot be read as TOML"),
        ("seeds = [0]", "has no variant; write a table [variants.NAME] for each"),
        ("optoins = ''\n[variants.a]", "the top level has the unknown key 'optoins'; known: data, options, seeds"),
        ("[variants.a]\nads = ''", "[variants.a] has the unknown key 'ads'; known: data, options, seeds, without, add"),
        ("[variants.b]", "has no variant 'a'; it has: b"),
        ("[variants.a]", "mlic-train ended with"),  # without data
    ],
)
def test_a_plan_that_says_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    refused = ablation(plan, "--variant", "a")
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
