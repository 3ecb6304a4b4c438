import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.cli.bench import bench

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plot_bench.py"
TINY = Path(__file__).parents[1] / "data" / "tiny"


def report(path: Path, *arguments: str) -> Path:
    options = ["--model", str(TINY), "--runs", "2", "--warmup", "1", "--precision", "fp32", "--json"]
    path.write_text(CliRunner().invoke(bench, [*options, *arguments]).stdout)
    return path


def plot(*arguments: "str | Path") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_what_mlic_bench_measured_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlic_runtime.bench.benchmark.entry_points", lambda group: [])
    single = report(tmp_path / "single.json", "--threads", "1")
    grid = report(tmp_path / "grid.json", "--batch-size", "1,2", "--threads", "1,2")
    stages = report(tmp_path / "stages.json", "--stages")
    done = plot(single, grid, stages, "--output", tmp_path / "all.svg")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all.svg").read_text().count('id="axes_') == 3
    done = plot(single, "--output", tmp_path / "one.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_what_it_cannot_draw_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for content in ("[]", "{}", '{"timings": []}', '{"combinations": [1]}', "no JSON"):
        other.write_text(content)
        done = plot(other, "--output", tmp_path / "x.svg")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: {other} has nothing to draw (")
    assert plot(other, "--output", tmp_path / "x.pdf").returncode == 2
    assert not (tmp_path / "x.svg").exists()
