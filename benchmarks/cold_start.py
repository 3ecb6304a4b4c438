"""Whole processes, from nothing to one prediction, in turns: what a cold start costs, and what the graph cache saves.

    python benchmarks/cold_start.py [--rounds N] [--precision P] [--checkpoint FOLDER] [--output FILE]

`imports` loads what the runtime needs and does nothing; `cached` and `uncached` are mlic-infer with a warm graph cache
and with --no-cache; `pytorch` makes the same prediction with torch, torchvision and mlic-train, if they are installed.
`mlic-bench --cold-start` measures the first two on a device that has nothing but the runtime.

The processes share a folder for byte code, which a first round fills, as pip does when it installs; the user's cache is
not touched. What is read from disk is in the system's memory after that round.
"""

import importlib.util
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click

from mlic_runtime.base.machine import machine_facts
from mlic_runtime.bench.cold_start import IMPORTS, INFER

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("onnxruntime", "tokenizers", "numpy", "pillow", "click")
PYTORCH = """
import sys
from pathlib import Path
import torch, torchvision
from mlic_runtime.bench.inputs import package_inputs
from mlic_runtime.package.model_package import load_package
from mlic_train.runs.checkpoint import load_trained
from mlic_train.runs.find import released_run
picture, caption, model, checkpoint, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
package = load_package(model or None)
trained = load_trained(Path(checkpoint) if checkpoint else released_run(package.manifest.name))
arrays = package_inputs(package, image=picture, caption=caption).arrays
with torch.inference_mode():
    probabilities = torch.sigmoid(trained.model(*map(torch.from_numpy, arrays)))[0].tolist()
print({label.name: p for label, p in zip(package.manifest.labels, probabilities)})
"""


class Process(NamedTuple):
    """Wall and CPU time in seconds, peak resident memory in bytes."""

    wall: float
    cpu: float
    peak: int


def start(command: list[str], environment: dict[str, str]) -> Process:
    """Run one process to its end.

    Raises:
        click.ClickException: it failed.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            raise click.ClickException(f"{shlex.join(command)[:200]} failed: {said}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Process(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def summary(runs: list[Process], base: list[Process]) -> dict[str, float | list[float]]:
    """Medians, and the median over the rounds of the ratio to another process of the same round."""
    ratios = sorted(run.wall / other.wall for run, other in zip(runs, base, strict=True))
    return {
        "wall_ms": round(statistics.median(run.wall for run in runs) * 1e3, 1),
        "wall_ms_min": round(min(run.wall for run in runs) * 1e3, 1),
        "cpu_ms": round(statistics.median(run.cpu for run in runs) * 1e3, 1),
        "peak_resident_mb": round(statistics.median(run.peak for run in runs) / 1e6, 1),
        "wall_ratio_to_imports": round(statistics.median(ratios), 3),
        "wall_ratio_to_imports_p10_p90": [round(ratios[int(share * (len(ratios) - 1))], 3) for share in (0.1, 0.9)],
        "cpu_ratio_to_imports": round(
            statistics.median(run.cpu / other.cpu for run, other in zip(runs, base, strict=True)), 3
        ),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
@click.option("--model", help="A model package.  [default: the released one]")
@click.option("--precision", default="auto", show_default=True, help="See mlic-infer.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--checkpoint", help="For PyTorch.  [default: the released one]")
@click.option(
    "--pytorch/--no-pytorch", default=True, help="Also with torch, where it is installed.  [default: pytorch]"
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def main(
    rounds: int,
    model: str | None,
    precision: str,
    threads: int,
    checkpoint: str | None,
    pytorch: bool,
    output: Path | None,
) -> None:
    """Measure cold starts."""
    picture, caption = str(ROOT / "examples" / "cat.png"), "a tabby"
    options = ["--precision", precision, "--threads", str(threads), *(["--model", model] if model else [])]
    python = [sys.executable, "-c"]
    commands = {
        "imports": [*python, IMPORTS],
        "cached": [*python, INFER, picture, caption, *options],
        "uncached": [*python, INFER, picture, caption, *options, "--no-cache"],
    }
    rivals = ("torch", "torchvision") if pytorch else ()
    if rivals and all(importlib.util.find_spec(name) for name in (*rivals, "mlic_train")):
        commands["pytorch"] = [*python, PYTORCH, picture, caption, model or "", checkpoint or "", str(threads)]
    runs: dict[str, list[Process]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "XDG_CACHE_HOME": f"{folder}/cache"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        for turn in range(-1, rounds):  # the first warms up: byte code, graph cache, files
            for name, command in commands.items():
                found = start(command, environment)
                if turn >= 0:
                    runs[name].append(found)
    result: dict[str, Any] = {
        "what": "whole processes in turns, from nothing to one prediction from a picture file and a caption",
        "command": shlex.join(["python", "benchmarks/cold_start.py", *sys.argv[1:]]),
        "rounds": rounds,
        "precision": precision,
        "threads": threads,
        "machine": machine_facts() | {"load_average": [round(load, 2) for load in os.getloadavg()]},
        "versions": {name: version(name) for name in (*LIBRARIES, *(rivals if "pytorch" in runs else ()))},
        "processes": {name: summary(found, runs["imports"]) for name, found in runs.items()},
    }
    if "pytorch" in runs:
        pairs = zip(runs["pytorch"], runs["cached"], strict=True)
        result["pytorch_to_cached_wall_ratio"] = round(statistics.median(a.wall / b.wall for a, b in pairs), 2)
    for name, found in result["processes"].items():
        times = f"{found['wall_ms']:7.0f} ms wall, {found['cpu_ms']:7.0f} ms CPU"
        ratio = f"{found['wall_ratio_to_imports']:.2f} x imports"
        click.echo(f"{name:9} {times}, {found['peak_resident_mb']:6.0f} MB, {ratio}")
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
