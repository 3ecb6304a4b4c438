"""Measures whole processes from nothing to one prediction, in turns: the runtime, its imports alone, and PyTorch.

    python benchmarks/cold_start.py --rounds 20 --output benchmarks/results/cold-start.json

`imports` loads the runtime's libraries and does nothing; `cached` and `uncached` are mlic-infer with a warm graph cache
and with --no-cache; `pytorch` makes the same prediction with torch, torchvision and mlic-train, if they are installed.
Each --tree is the checkout of another version, whose mlic-infer runs in the same turns with a graph cache of its own.
On a device that has only the runtime, `mlic-bench --cold-start` measures `imports` and `cached`.

A first round, which is not measured, fills the folder for byte code, as pip does on installation, and the graph cache;
the user's own caches are not used. After that round the files are in the system's memory.
"""

import importlib.util
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import click
from common import (
    ROOT,
    RUNTIME_LIBRARIES,
    ProcessCost,
    describe,
    measure_process,
    model_option,
    output_option,
    rounds_option,
    write_json,
)

from mlic_runtime.bench.cold_start import IMPORTS
from mlic_train.config import read_toml

PYTORCH = """
import sys
from pathlib import Path
import torch, torchvision
from mlic_runtime.bench.inputs import package_inputs
from mlic_runtime.package.model_package import load_package
from mlic_train.runs.folder import load_trained
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


class Candidate(NamedTuple):
    """A Python process to measure: the checkout that it imports from, its code, and its arguments."""

    tree: Path
    code: str
    arguments: tuple[str, ...] = ()


def infer_code(tree: Path) -> str:
    """Return the code of mlic-infer in a checkout, by its entry point: older versions have it in another module."""
    project = read_toml(tree / "mlic_runtime" / "pyproject.toml")["project"]
    module, _, function = project["scripts"]["mlic-infer"].partition(":")
    return f"from {module} import {function}; {function}()"


def measure_in_turns(candidates: dict[str, Candidate], rounds: int) -> dict[str, list[ProcessCost]]:
    """Run every candidate once per round, after a round that warms up."""
    costs: dict[str, list[ProcessCost]] = {name: [] for name in candidates}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, rounds):
            for name, candidate in candidates.items():
                environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
                environment |= {
                    "PYTHONPYCACHEPREFIX": f"{folder}/bytecode",
                    "XDG_CACHE_HOME": f"{folder}/cache{candidate.tree}",
                    "PYTHONPATH": os.pathsep.join(filter(None, [str(candidate.tree), os.environ.get("PYTHONPATH")])),
                }
                command = [sys.executable, "-c", candidate.code, *candidate.arguments]
                # With -c, Python looks for modules in the working folder first.
                cost = measure_process(command, env=environment, cwd=candidate.tree)
                if turn >= 0:
                    costs[name].append(cost)
    return costs


def summary(costs: list[ProcessCost], references: dict[str, list[ProcessCost]]) -> dict[str, Any]:
    """Return medians, and the ratios to each reference: medians over the rounds of the ratio within a round."""
    result: dict[str, Any] = {
        "wall_ms": round(statistics.median(cost.wall for cost in costs) * 1e3, 1),
        "wall_ms_min": round(min(cost.wall for cost in costs) * 1e3, 1),
        "cpu_ms": round(statistics.median(cost.cpu for cost in costs) * 1e3, 1),
        "peak_resident_mb": round(statistics.median(cost.peak for cost in costs) / 1e6, 1),
    }
    for name, reference in references.items():
        pairs = list(zip(costs, reference, strict=True))
        wall = sorted(cost.wall / other.wall for cost, other in pairs)
        result[f"wall_ratio_to_{name}"] = round(statistics.median(wall), 3)
        result[f"wall_ratio_to_{name}_p10_p90"] = [round(wall[int(share * (len(wall) - 1))], 3) for share in (0.1, 0.9)]
        result[f"cpu_ratio_to_{name}"] = round(statistics.median(cost.cpu / other.cpu for cost, other in pairs), 3)
    return result


@click.command()
@rounds_option(20)
@model_option
@click.option("--precision", default="auto", show_default=True, help="See mlic-infer.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the graph and of PyTorch.")
@click.option("--checkpoint", help="For PyTorch.  [default: the released one]")
@click.option("--pytorch/--no-pytorch", default=True, help="Also measure PyTorch, if installed.  [default: pytorch]")
@click.option(
    "--tree",
    "trees",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Also measure the mlic-infer of this checkout. Repeat.",
)
@output_option
def main(
    rounds: int,
    model: str | None,
    precision: str,
    threads: int,
    checkpoint: str | None,
    pytorch: bool,
    trees: tuple[Path, ...],
    output: Path | None,
) -> None:
    """Measure cold starts."""
    inputs = (str(ROOT / "examples" / "cat.png"), "a tabby")
    options = ("--precision", precision, "--threads", str(threads), *(("--model", model) if model else ()))
    candidates = {
        "imports": Candidate(ROOT, IMPORTS),
        "cached": Candidate(ROOT, infer_code(ROOT), (*inputs, *options)),
        "uncached": Candidate(ROOT, infer_code(ROOT), (*inputs, *options, "--no-cache")),
        **{f"cached, {tree.name}": Candidate(tree, infer_code(tree), (*inputs, *options)) for tree in trees},
    }
    competitors = ("torch", "torchvision") if pytorch else ()
    if competitors and all(importlib.util.find_spec(name) for name in (*competitors, "mlic_train")):
        candidates["pytorch"] = Candidate(ROOT, PYTORCH, (*inputs, model or "", checkpoint or "", str(threads)))
    result = describe(
        "whole processes in turns, from nothing to one prediction from a picture file and a caption",
        (*RUNTIME_LIBRARIES, "click", *competitors),
    )
    costs = measure_in_turns(candidates, rounds)
    references = {name: costs[name] for name in ("imports", "cached")}
    result |= {"rounds": rounds, "precision": precision, "threads": threads}
    result["processes"] = {name: summary(runs, references) for name, runs in costs.items()}
    for name, process in result["processes"].items():
        times = f"{process['wall_ms']:7.0f} ms wall, {process['cpu_ms']:7.0f} ms CPU"
        ratios = f"{process['wall_ratio_to_imports']:.2f} x imports, {process['wall_ratio_to_cached']:.3f} x cached"
        click.echo(f"{name:9} {times}, {process['peak_resident_mb']:6.0f} MB, {ratios}")
    write_json(output, result)


if __name__ == "__main__":
    main()
