"""Measures how far the graphs of a model package differ between ONNX Runtime Web (WebAssembly in Node.js) and Python.

    cd benchmarks/web && npm install && cd ../..        # once
    python benchmarks/compare_web.py exported/hybrid --output benchmarks/results/web-hybrid.json

The inputs come from a fixed seed: pictures of noise at several scales, one of them black; captions of several lengths,
one of them empty; batches of several (B, T). The script measures the difference and sets no limit: int8 graphs round
where they quantize, so a float that differs in its last digit can move a value by a whole step.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import ROOT, describe, output_option, write_json

from mlic_runtime import Manifest, MlicError, load_package
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, PIXELS, create_session
from mlic_runtime.package.manifest import PRECISIONS
from mlic_runtime.predict.prediction import decide, sigmoid

HERE = ROOT / "benchmarks" / "web"
# (B, T): one row, one token, odd ones, and the longest caption (cut to the model's max_length).
SHAPES = ((1, 1), (2, 5), (7, 1), (3, 17), (5, 31), (16, 8), (3, 512))
_SEED = 0
_GRIDS = (4, 16, 64, 256)  # cells on each side of a layer of noise

Feeds = dict[str, npt.NDArray[Any]]
Logits = npt.NDArray[np.float32]


def make_batch(manifest: Manifest, rows: int, tokens: int, random: np.random.Generator) -> Feeds:
    """Make the inputs of a graph; with three or more rows, the second has no caption and the third a black picture."""
    height, width = manifest.image.height, manifest.image.width
    pictures = np.zeros((rows, height, width, 3))
    for cells in _GRIDS:
        noise = random.normal(
            0, 80 / cells**0.5, (rows, cells, cells, 3)
        )  # coarse noise is stronger, as in photographs
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
    """Make one batch for each of SHAPES; equal manifests give equal batches."""
    random = np.random.default_rng(_SEED)
    most = 1 if manifest.text is None else manifest.text.max_length
    return [make_batch(manifest, rows, min(tokens, most), random) for rows, tokens in SHAPES]


def shape(feeds: Feeds) -> tuple[int, ...]:
    """Return (B, T), or (B,) for a model that reads no caption."""
    return feeds[INPUT_IDS].shape if INPUT_IDS in feeds else feeds[PIXELS].shape[:1]


def write_job(folder: Path, graph: bytes, batches: Sequence[Feeds]) -> None:
    """Write the files that run.mjs reads."""
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


def run_in_node(node: str, graph: bytes, batches: Sequence[Feeds]) -> tuple[dict[str, Any], Logits | None]:
    """Return the result of run.mjs, and the float32 logits of all batches in one array, or None if it failed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_job(folder, graph, batches)
        ended = subprocess.run([node, str(HERE / "run.mjs"), temporary], capture_output=True, text=True, check=False)
        written = folder / "result.json"
        if not written.exists():  # WebAssembly ended Node.js, for example because memory ran out
            lines = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
            return _failure(f"node ended with {ended.returncode}: {lines[0] if lines else 'it gave no reason'}"), None
        result = json.loads(written.read_text(encoding="utf-8"))
        if not result["runs"]:
            return result, None
        logits = [np.fromfile(folder / f"{index}.logits", np.float32) for index in range(len(batches))]
    return result, np.concatenate(logits)


def _failure(error: str) -> dict[str, Any]:
    return {"version": None, "loads": False, "runs": False, "error": error}


def compare(node: str, graph: bytes, manifest: Manifest, batches: Sequence[Feeds]) -> dict[str, Any]:
    """Return how far both runtimes differ on all rows, and the `version` of ONNX Runtime Web.

    `equal_decisions` is a share, as in the manifest. A graph that ONNX Runtime Web cannot run has an `error` instead.
    """
    session = create_session(graph)
    expected = np.concatenate([session.run(*feeds.values()) for feeds in batches])
    result, actual = run_in_node(node, graph, batches)
    facts = {**result, "rows": len(expected), "decisions": expected.size}
    if actual is None:
        return facts
    if actual.size != expected.size or not np.isfinite(actual).all():
        return {**facts, "error": f"{actual.size} logits, {np.isfinite(actual).sum()} finite; expected {expected.size}"}
    actual = actual.reshape(expected.shape)
    thresholds = [label.threshold for label in manifest.labels]
    difference = np.abs(actual.astype(np.float64) - expected)
    equal = decide(sigmoid(actual), thresholds) == decide(sigmoid(expected), thresholds)
    return {
        **facts,
        "max_abs_difference": float(difference.max()),
        "mean_abs_difference": float(difference.mean()),
        "equal_decisions": float(equal.mean()),
    }


def in_one_line(facts: dict[str, Any]) -> str:
    """Return the result of `compare` as a line."""
    if facts["error"] is not None:
        return f"failed: {facts['error']}"
    return (
        f"{facts['rows']} rows, logits differ by {facts['max_abs_difference']:.2g} at most, "
        f"{facts['equal_decisions']:.3%} of {facts['decisions']} decisions are equal"
    )


def find_node() -> str:
    """Return the path of Node.js.

    Raises:
        click.ClickException: Node.js, or a package that package.json lists, is not installed.
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
@output_option
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
            click.echo(f"{precision}: {in_one_line(results[precision])}")
    except MlicError as error:
        raise click.ClickException(str(error)) from None
    web = [facts.pop("version") for facts in results.values()]
    result = describe(
        "logits of ONNX Runtime Web's WebAssembly backend in Node.js against those of ONNX Runtime in Python"
    )
    result["versions"] |= {
        "onnxruntime-web": next(filter(None, web), None),
        "node": subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
    }
    result |= {
        "model": manifest.title,
        "inputs": f"noise at several scales and random tokens, seed {_SEED}; with an empty caption and a black picture",
        "batches": " ".join("x".join(map(str, shape(feeds))) for feeds in batches),
        "precisions": results,
    }
    write_json(output, result)


if __name__ == "__main__":
    main()
