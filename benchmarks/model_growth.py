"""Measures how time and memory of a prediction grow with labels, tokens of the caption, rows in a batch, and threads.

    python benchmarks/model_growth.py --rounds 3 --output benchmarks/results/model-growth.json --plot growth.png

One of the four changes at a time; the others stay at 18 labels, 16 tokens, 1 row and 1 thread. The models have the
architecture of the released hybrid, and untrained weights, for time does not depend on their values. Labels are
measured with all kinds of --fusion, because that of the released hybrid compares each label with each other. Each
measurement is a process of its own: it loads the package and predicts from pixels and tokens in memory to `Prediction`
objects. Its memory is the peak of what is resident; what it has after importing the libraries is subtracted in "mb".
Rounds go through all measurements in turns.

Time is CPU time, but for threads, because other work on the machine hardly changes it. An exponent is the slope between
the two largest of a series in logarithms: 1 is linear growth, 0 is none. What is there without it (the backbone, for
labels and tokens) makes it smaller. The result names what grows faster than linearly, by more than a tolerance. For
threads, it has the speedup instead.
"""

import dataclasses
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import COLOURS, describe, output_option, read_json, resident_bytes, rounds_option, write_json

from mlic_runtime import Predictor, Row
from mlic_runtime.base.machine import available_cpus, peak_bytes
from mlic_runtime.package.manifest import MANIFEST_NAME, TOKENIZER_NAME, FileSpec, LabelSpec, Manifest, dump_manifest
from mlic_runtime.predict.prediction import PredictionOptions

FUSIONS = {
    "labels": "transformer",
    "labels, cross fusion": "cross",
    "labels, late fusion": "late",
}  # series: the fusion of its models
RELEASED = "transformer"
BASE = {"labels": 18, "tokens": 16, "batch": 1, "threads": 1}
LABELS = (18, 100, 1_000, 3_000, 10_000)
SERIES = {
    "labels": LABELS,
    "labels, cross fusion": LABELS,
    "labels, late fusion": LABELS,
    "tokens": (1, 4, 16, 32, 64),
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "threads": (1, 2, 4, 8),
}
_AXES = {
    "labels": "labels, transformer fusion",
    "tokens": "tokens of the caption",
    "batch": "rows in a batch",
}
TOLERANCE = 0.15  # of an exponent above 1: what a busy cache or a busy machine makes of linear growth
SECONDS = 0.7  # that one measurement runs for, at least
PREDICTIONS = 3  # that one measurement makes, at least


def make_package(folder: Path, fusion: str, labels: int) -> None:
    """Write a model package of the released hybrid's architecture, untrained, with this fusion and number of labels."""
    import torch

    from mlic_train.exporting.graph import OPSET, export_graph
    from mlic_train.models import create_model
    from mlic_train.runs.find import released_run
    from mlic_train.runs.folder import load_trained

    run = released_run("hybrid")
    if run is None:
        raise click.ClickException("the released hybrid is not installed: pip install the training distribution")
    trained = load_trained(run)
    names = tuple(f"label {number}" for number in range(labels))
    config = dataclasses.replace(trained.config.model, labels=names, fusion=fusion)
    torch.manual_seed(0)
    model = create_model(config)
    files = {"model.fp32.onnx": export_graph(model, config.max_length), TOKENIZER_NAME: trained.tokenizer or b""}
    manifest = Manifest(
        name=config.name,
        version="0.0.0",
        labels=tuple(LabelSpec(name, 0.5) for name in names),
        image=config.image_spec,
        text=config.text_spec,
        files={
            name: FileSpec(hashlib.sha256(content).hexdigest(), len(content), "fp32" if name[0] == "m" else None)
            for name, content in files.items()
        },
        provenance={"opset": OPSET},
    )
    folder.mkdir()
    for name, content in {**files, MANIFEST_NAME: dump_manifest(manifest).encode()}.items():
        (folder / name).write_bytes(content)


def caption_of(predictor: Predictor, tokens: int) -> str:
    """Return a caption that this number of tokens is read of.

    Raises:
        click.ClickException: the tokenizer makes no such caption of the words that are tried.
    """
    for words in range(tokens + 1):
        caption = " ".join(["dog"] * words)
        if predictor._tokenise([caption])[1].sum() == tokens:
            return caption
    raise click.ClickException(f"found no caption of {tokens} tokens")


def measure_one(folder: Path, tokens: int, batch: int, threads: int) -> dict[str, float]:
    """Predict in this process; return milliseconds of loading and of a batch, and MB beyond the libraries'."""
    before = resident_bytes()
    start = time.perf_counter()
    predictor = Predictor.load(folder, threads=threads, cache=False)
    loaded = time.perf_counter() - start
    caption = caption_of(predictor, tokens)
    spec = predictor.manifest.image
    pixels = np.random.default_rng(0).integers(0, 256, (batch, spec.height, spec.width, 3), dtype=np.uint8)
    rows, options = [Row(caption=caption)] * batch, [PredictionOptions()] * batch
    predictor.predict_prepared(rows, pixels, options)
    times: list[float] = []
    cpu = time.process_time()
    while sum(times) < SECONDS or len(times) < PREDICTIONS:
        start = time.perf_counter()
        predictor.predict_prepared(rows, pixels, options)
        times.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    return {
        "load_ms": 1e3 * loaded,
        "ms": 1e3 * statistics.median(times),
        "cpu_ms": 1e3 * cpu / len(times),
        "mb": ((peak_bytes() or 0) - before) / 1e6,
    }


def exponent(points: list[dict[str, float]], key: str) -> float:
    """Return the growth between the two largest points of a series, as the slope of their logarithms."""
    last, before = points[-1], points[-2]
    return math.log(last[key] / before[key]) / math.log(last["at"] / before["at"])


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw time and memory against each of the four, time on the left axis and memory on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for unused in panels[len(result["series"]) :]:
        unused.remove()
    panels = panels[: len(result["series"])]
    for axes, (name, series) in zip(panels, result["series"].items(), strict=True):
        at = [point["at"] for point in series["points"]]
        twin = axes.twinx()
        for where, key, colour, style in (
            (axes, "ms" if name == "threads" else "cpu_ms", COLOURS[0], "-o"),
            (twin, "mb", COLOURS[1], "--s"),
        ):
            where.plot(at, [point[key] for point in series["points"]], style, color=colour)
            where.set_ylim(0, 1.08 * max(point[key] for point in series["points"]))
            where.tick_params(axis="y", colors=colour)
        axes.set_xlabel(_AXES.get(name, name))
        if name == "threads":
            axes.set_xticks(at)
        axes.set_ylabel("ms for a batch" if name == "threads" else "ms of CPU time for a batch", color=COLOURS[0])
        twin.set_ylabel("MB beyond the libraries", color=COLOURS[1])
        twin.spines["top"].set_visible(False)
        axes.spines["top"].set_visible(False)
    figure.savefig(file, dpi=110)


def summarise(runs: dict[tuple[str, int], list[dict[str, float]]]) -> dict[str, Any]:
    """Return the medians of each series, with the exponents of time and memory, or the speedup of threads."""
    series: dict[str, Any] = {}
    for name in dict.fromkeys(series_name for series_name, _ in runs):
        points = [
            {"at": value, **{key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}}
            for (series_name, value), found in runs.items()
            if series_name == name
        ]
        series[name] = {"points": points}
        if name == "threads":
            series[name]["speedup"] = {str(point["at"]): round(points[0]["ms"] / point["ms"], 2) for point in points}
        else:
            keys = ("cpu_ms", "mb", "load_ms") if name in FUSIONS else ("cpu_ms", "mb")
            series[name]["exponents"] = {key: round(exponent(points, key), 2) for key in keys}
    return series


@click.command()
@rounds_option(3, at_least=0)
@click.option(
    "--packages",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the models in this folder, and use those that are there; with --rounds 0 only make them.",
)
@click.option("--series", "chosen", multiple=True, type=click.Choice(list(SERIES)), help="Only this.  [default: all]")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the result.")
@output_option
@click.option("--one", nargs=4, type=(Path, int, int, int), hidden=True)
@click.option("--draw", "drawn", type=click.Path(exists=True, path_type=Path), help="Only draw this result.")
def main(
    rounds: int,
    packages: Path | None,
    chosen: tuple[str, ...],
    plot: Path | None,
    output: Path | None,
    one: tuple[Path, int, int, int] | None,
    drawn: Path | None,
) -> None:
    """Measure how time and memory grow with the size of the model and of its inputs."""
    if one is not None:
        click.echo(json.dumps(measure_one(*one)))
        return
    if drawn is not None:
        if plot is None:
            raise click.UsageError("--draw needs --plot")
        draw(read_json(drawn), plot)
        return
    result = describe(
        "time and memory of a prediction, from pixels and tokens to Prediction objects; medians, in turns"
    )
    cases = [(name, value) for name, values in SERIES.items() for value in values if name in (chosen or SERIES)]
    cases = [case for case in cases if case[0] != "threads" or case[1] <= available_cpus()]
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = packages or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        needed = {(FUSIONS.get(name, RELEASED), value if name in FUSIONS else BASE["labels"]) for name, value in cases}
        for fusion, labels in sorted(needed):
            if not (folder / f"{fusion}-{labels}" / MANIFEST_NAME).is_file():
                make_package(folder / f"{fusion}-{labels}", fusion, labels)
        if rounds == 0:
            return
        for turn in range(rounds):
            for name, value in cases:
                at = {**BASE, name.partition(",")[0]: value}
                package = folder / f"{FUSIONS.get(name, RELEASED)}-{at['labels']}"
                arguments = [str(package), *(str(at[key]) for key in ("tokens", "batch", "threads"))]
                command = [sys.executable, __file__, "--one", *arguments]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs.setdefault((name, value), []).append(json.loads(done.stdout))
            click.echo(f"round {turn + 1} of {rounds}", err=True)
    result |= {"rounds": rounds, "base": BASE, "precision": "fp32", "series": summarise(runs)}
    result["faster_than_linear"] = [
        f"{key} with {name}: exponent {found}"
        for name, series in result["series"].items()
        for key, found in series.get("exponents", {}).items()
        if found > 1 + TOLERANCE
    ]
    write_json(output, result)
    if plot is not None:
        draw(result, plot)
    for name, series in result["series"].items():
        for point in series["points"]:
            took = f"{point['ms']:8.1f} ms, {point['cpu_ms']:8.1f} CPU-ms, {point['mb']:7.1f} MB"
            took += f", loaded in {point['load_ms']:6.0f} ms"
            click.echo(f"{name} {point['at']:6}: {took}")
        click.echo(f"  {series.get('exponents') or series['speedup']}")
    click.echo(f"faster than linear: {'; '.join(result['faster_than_linear']) or 'nothing'}")


if __name__ == "__main__":
    main()
