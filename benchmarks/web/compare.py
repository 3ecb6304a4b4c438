"""Do the graphs of a model package say in ONNX Runtime Web (WebAssembly, in Node.js) what they say in Python?

The inputs come from a fixed seed: pictures of noise at several scales, one black; captions of several lengths, one
empty; batches of several (B, T). Agreement is not judged here, only measured: int8 graphs round where they quantize, so
a float that differs in its last digit can move a value by a whole step.

Once: cd benchmarks/web && npm install
Usage: python benchmarks/web/compare.py PACKAGE [--precision NAME]... [--output FILE]
"""

import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from mlic_runtime import Manifest, MlicError, load_package
from mlic_runtime.base.machine import available_cpus, processor_name
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, PIXELS, create_session
from mlic_runtime.package.manifest import PRECISIONS
from mlic_runtime.predict.prediction import decide, sigmoid

HERE = Path(__file__).resolve().parent
# (B, T): one row, one token, odd ones, and the longest caption (cut to the model's max_length).
SHAPES = ((1, 1), (2, 5), (7, 1), (3, 17), (5, 31), (16, 8), (3, 512))
_SEED = 0
_GRIDS = (4, 16, 64, 256)  # noise of so many cells a side

Feeds = dict[str, npt.NDArray[Any]]
Logits = npt.NDArray[np.float32]


def make_batch(manifest: Manifest, rows: int, tokens: int, random: np.random.Generator) -> Feeds:
    """The inputs of the contract; of three or more rows the second has no caption and the third a black picture."""
    height, width = manifest.image.height, manifest.image.width
    pictures = np.zeros((rows, height, width, 3))
    for cells in _GRIDS:
        noise = random.normal(0, 80 / cells**0.5, (rows, cells, cells, 3))  # coarse ones stronger, as in photographs
        pictures += noise[:, np.arange(height) * cells // height][:, :, np.arange(width) * cells // width]
    feeds: Feeds = {PIXELS: (pictures + 128).clip(0, 255).astype(np.uint8)}
    if manifest.text is not None:
        ids = random.integers(1, manifest.text.vocab_size, (rows, tokens))
        lengths = random.integers(1, tokens + 1, (rows, 1))
        lengths[0] = tokens
        if rows >= 3:
            lengths[1] = 0
        mask = (np.arange(tokens) < lengths).astype(np.int64)
        feeds |= {INPUT_IDS: np.where(mask, ids, manifest.text.pad_id), ATTENTION_MASK: mask}
    if rows >= 3:
        feeds[PIXELS][2] = 0
    return feeds


def make_batches(manifest: Manifest) -> list[Feeds]:
    """One batch for each of SHAPES, the same for the same manifest."""
    random = np.random.default_rng(_SEED)
    most = 1 if manifest.text is None else manifest.text.max_length
    return [make_batch(manifest, rows, min(tokens, most), random) for rows, tokens in SHAPES]


def shape(feeds: Feeds) -> tuple[int, ...]:
    """(B, T), or (B,) for a model that reads no caption."""
    return feeds[INPUT_IDS].shape if INPUT_IDS in feeds else feeds[PIXELS].shape[:1]


def write_job(folder: Path, graph: bytes, batches: Sequence[Feeds]) -> None:
    """Write what run.mjs reads."""
    (folder / "graph.onnx").write_bytes(graph)
    job = []
    for index, feeds in enumerate(batches):
        tensors = {}
        for name, array in feeds.items():
            file = f"{index}.{name}"
            (folder / file).write_bytes(array.tobytes())
            tensors[name] = {"type": array.dtype.name, "dims": array.shape, "file": file}
        job.append(tensors)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def run_on_the_web(node: str, graph: bytes, batches: Sequence[Feeds]) -> tuple[dict[str, Any], Logits | None]:
    """What run.mjs says happened, and the logits of all batches one after the other, float32, or None if it failed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_job(folder, graph, batches)
        ended = subprocess.run([node, str(HERE / "run.mjs"), temporary], capture_output=True, text=True, check=False)
        written = folder / "result.json"
        if not written.exists():  # WebAssembly ended Node.js with it, for want of memory for instance
            lines = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
            return _failure(f"node ended with {ended.returncode}: {lines[0] if lines else 'it did not say why'}"), None
        result = json.loads(written.read_text(encoding="utf-8"))
        if not result["runs"]:
            return result, None
        found = [np.fromfile(folder / f"{index}.logits", np.float32) for index in range(len(batches))]
    return result, np.concatenate(found)


def _failure(error: str) -> dict[str, Any]:
    return {"version": None, "loads": False, "runs": False, "error": error}


def compare(node: str, graph: bytes, manifest: Manifest, batches: Sequence[Feeds]) -> dict[str, Any]:
    """How far both runtimes are apart on all rows, `version` of ONNX Runtime Web included.

    `equal_decisions` is a share, as in the manifest. A graph that the web cannot run has an `error` instead.
    """
    session = create_session(graph)
    expected = np.concatenate([session.run(*feeds.values()) for feeds in batches])
    result, found = run_on_the_web(node, graph, batches)
    facts = {**result, "rows": len(expected), "decisions": expected.size}
    if found is None:
        return facts
    if found.size != expected.size or not np.isfinite(found).all():
        return {**facts, "error": f"{found.size} logits, {np.isfinite(found).sum()} finite; expected {expected.size}"}
    found = found.reshape(expected.shape)
    thresholds = [label.threshold for label in manifest.labels]
    difference = np.abs(found.astype(np.float64) - expected)
    equal = decide(sigmoid(found), thresholds) == decide(sigmoid(expected), thresholds)
    return {
        **facts,
        "max_abs_difference": float(difference.max()),
        "mean_abs_difference": float(difference.mean()),
        "equal_decisions": float(equal.mean()),
    }


def describe(facts: dict[str, Any]) -> str:
    """A line on what `compare` found."""
    if facts["error"] is not None:
        return f"failed: {facts['error']}"
    return (
        f"{facts['rows']} rows, logits differ by {facts['max_abs_difference']:.2g} at most, "
        f"{facts['equal_decisions']:.3%} of {facts['decisions']} decisions are equal"
    )


def find_node() -> str:
    """The path of Node.js.

    Raises:
        click.ClickException: it, or what package.json lists, is not installed.
    """
    node = shutil.which("node")
    if node is None:
        raise click.ClickException("found no `node`: install Node.js, then run `npm install` in benchmarks/web")
    if not (HERE / "node_modules" / "onnxruntime-web").is_dir():
        raise click.ClickException("onnxruntime-web is not installed: run `npm install` in benchmarks/web")
    return node


@click.command()
@click.argument("package")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), help="[default: all]")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def main(package: str, precisions: tuple[str, ...], output: Path | None) -> None:
    """Compare the graphs of the model package PACKAGE in ONNX Runtime Web with the same graphs in Python."""
    node = find_node()
    results: dict[str, Any] = {}
    try:
        model = load_package(package)
        manifest = model.manifest
        batches = make_batches(manifest)
        for precision in precisions or manifest.precisions:
            results[precision] = compare(node, model.read_graph(precision), manifest, batches)
            click.echo(f"{precision}: {describe(results[precision])}")
    except MlicError as error:
        raise click.ClickException(str(error)) from None
    web = [facts.pop("version") for facts in results.values()]
    result = {
        "what": "logits of ONNX Runtime Web's WebAssembly backend in Node.js against those of ONNX Runtime in Python",
        "command": shlex.join(["python", "benchmarks/web/compare.py", *sys.argv[1:]]),
        "model": f"{manifest.name}@{manifest.version}",
        "inputs": f"noise at several scales and random tokens, seed {_SEED}; with an empty caption and a black picture",
        "batches": " ".join("x".join(map(str, shape(feeds))) for feeds in batches),
        "machine": {"platform": platform.platform(), "processor": processor_name(), "cpus": available_cpus()},
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": version("onnxruntime"),
            "onnxruntime-web": next(filter(None, web), None),
            "node": subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        },
        "precisions": results,
    }
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
