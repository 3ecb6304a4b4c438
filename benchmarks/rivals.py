"""Compares engines on the same weights: time on one thread, logits, decisions and samples F1.

    pip install -r requirements-dev.txt -r benchmarks/rivals-requirements.txt
    python benchmarks/rivals.py --data DATA --output benchmarks/results/rivals.json --plot benchmarks/results/rivals.png

The weights are those of a model package and of the run folder that it was exported from. Each engine converts them,
and works, in processes of its own, so that no thread pool or setting of one disturbs another. Measured is one picture
with a caption, from pixels and tokens in memory to logits, and the backbone alone (float32 picture in, feature maps
out), since some engines convert no more than that.

All processes are loaded before the first turn. In each round every engine has one turn, in random order: one call that
is not measured, then --calls that are. A ratio is that of the medians of two turns of one round. On
Linux all processes may use one and the same CPU; elsewhere, the result says which engine used more than one.

Logits are compared with those of PyTorch in fp32 over rows of val, and scored there. For a backbone alone, ONNX Runtime
makes logits of its feature maps, with the rest of the model in fp32. What an engine needs to convert (NNCF measures
ranges of values) are rows of train. An engine that cannot be installed, converted or run stays in the table, with the
reason.

--work keeps conversions and logits: with --rounds 0 they are made and nothing is measured; later runs begin there.
"""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import COLOURS, ROOT, describe, markdown_table, output_option, read_json, rounds_option, write_json
from rival_engines import (
    BACKBONE,
    CALIBRATION,
    PICTURE,
    WHOLE,
    Engine,
    Sources,
    engines,
    head,
    read_rows,
    reference,
    write_inputs,
    write_rows,
)

from mlic_runtime import load_package
from mlic_runtime.base.machine import available_cpus
from mlic_runtime.base.text import error_line
from mlic_runtime.graph.opening import for_processor
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.predict.prediction import sigmoid

LIBRARIES = (
    "onnxruntime",
    "openvino",
    "nncf",
    "MNN",
    "ncnn",
    "pnnx",
    "ai-edge-litert",
    "litert-torch",
    "torch",
    "numpy",
)
ROWS = "rows.npz"
TARGETS = "targets.npy"
PYTORCH = "pytorch.npy"  # logits of the reference
KEY = "key.json"  # what --work was made from
_REASON = 240  # characters
_TOO_MUCH_CPU = 1.1  # times the wall time


@dataclass
class Found:
    """What is known of an engine: a reason why it is not measured, or logits and then times of each round."""

    engine: Engine
    reason: str | None = None
    logits: npt.NDArray[np.float64] | None = None
    turns: list[list[float]] | None = None
    cpu: float = 0.0


def prepare(sources: Sources, package: ModelPackage, data: Path, count: int | None, calibration: int) -> None:
    """Write the rows, the graphs of the backbone, and what PyTorch says; or check that the folder has them.

    Raises:
        click.ClickException: the run is not that of the package, the model reads no captions, or the folder was made
            from something else.
    """
    from mlic_train.config import DataOptions
    from mlic_train.data.splits import load_splits
    from mlic_train.exporting.inputs import draw_rows
    from mlic_train.runs.folder import checkpoint_digest, load_trained

    digest = checkpoint_digest(sources.run)
    if digest != package.manifest.provenance.get("checkpoint_sha256"):
        raise click.ClickException(f"{package.path} was not exported from {sources.run}: give its --run")
    if package.manifest.text is None:
        raise click.ClickException(f"{package.manifest.title} reads no captions; the engines are compared with one")
    graphs = {name: spec.sha256 for name, spec in package.manifest.files.items() if name.endswith(".onnx")}
    key = {"checkpoint": digest, "graphs": graphs, "rows": count, "calibration": calibration}
    if (sources.folder / KEY).exists():
        if read_json(sources.folder / KEY) != key:
            raise click.ClickException(f"{sources.folder} was made from another model or other rows: give a new --work")
        return
    trained = load_trained(sources.run)
    splits = load_splits(DataOptions(folder=data), None, runs=[sources.run])
    val = [record for record in splits.val.records if record.image is not None and record.captions][:count]
    train = [
        record for record in draw_rows(trained, splits.train.records, len(splits.train.records)) if record.captions
    ]
    rows, targets = _inputs(trained, val)
    write_rows(sources.folder / ROWS, rows)
    np.save(sources.folder / TARGETS, targets)
    drawn, _ = _inputs(trained, train[:calibration])
    write_rows(sources.folder / CALIBRATION, drawn, _pictures(trained, drawn))
    write_inputs(sources, package)
    run = reference(sources)
    np.save(sources.folder / PYTORCH, np.concatenate([run(*row) for row in rows]))
    write_json(sources.folder / KEY, key)


def _inputs(trained: Any, records: Any) -> tuple[list[Any], npt.NDArray[np.bool_]]:
    """Return (pixels, ids, mask) of each record, and the targets."""
    from mlic_train.batches.dataset import Examples, batch_loader, evaluation_batches
    from mlic_train.measure.collect import graph_inputs

    config = trained.config.model
    examples = Examples(records, config.num_labels, config.image_spec)
    rows, targets = [], []
    for batch in batch_loader(examples, trained.caption_tokenizer, evaluation_batches(len(examples), 1)):
        rows.append(tuple(tensor.numpy() for tensor in graph_inputs(batch, config.image_size)))
        targets.append(batch.targets.numpy() > 0.5)
    return rows, np.concatenate(targets)


def _pictures(trained: Any, rows: Any) -> npt.NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        pictures = [trained.model.normalize(torch.from_numpy(row[0])).numpy() for row in rows]
    return np.ascontiguousarray(np.concatenate(pictures))  # NCHW; they have the strides of NHWC


class Worker:
    """A process that has loaded one engine, and works when it is told to."""

    def __init__(self, engine: Engine, sources: Sources) -> None:
        self._log = (sources.folder / f"{engine.key}.log").open("ab")
        paths = [str(path) for path in (sources.package, sources.run, sources.folder)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", engine.key, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(self, *words: object) -> Any:
        """Return the answer of the process.

        Raises:
            RuntimeError: the engine failed, or ended the process.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its status follows
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise RuntimeError(f"ended its process: {'signal' if status < 0 else 'status'} {abs(status)}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # what was not read
                stream.close()


def work(key: str, sources: Sources) -> None:
    """Answer the lines of standard input, one line of JSON each: convert, score, load, time CALLS."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    engine = next(engine for engine in engines(load_package(sources.package)) if engine.key == key)
    state: dict[str, Any] = {}
    for line in sys.stdin:
        command, *words = line.split()
        try:
            answer = _answer(engine, sources, state, command, [int(word) for word in words])
        except Exception as error:  # each library has errors of its own
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error_line(error)}"}
        print(json.dumps(answer), file=answers, flush=True)


def _answer(engine: Engine, sources: Sources, state: dict[str, Any], command: str, numbers: list[int]) -> Any:
    if command == "convert":
        engine.convert(sources)
    elif command == "score":
        _score(engine, sources)
    elif command == "load":
        if hasattr(os, "sched_setaffinity"):  # Linux; MNN uses a second CPU when it is told to use one thread
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        row = _typical(read_rows(sources.folder / ROWS))
        state["inputs"] = row if engine.scope == WHOLE else (_picture(sources),)
        state["run"] = engine.load(sources)
        for _ in range(numbers[0]):
            state["run"](*state["inputs"])
    else:
        return _time(state["run"], state["inputs"], numbers[0])
    return {}


def _time(run: Any, inputs: Any, calls: int) -> Any:
    run(*inputs)  # the caches of the processor hold what another process used
    seconds = []
    cpu, begin = time.process_time(), time.perf_counter()
    for _ in range(calls):
        start = time.perf_counter()
        run(*inputs)
        seconds.append(time.perf_counter() - start)
    return {"ms": [1e3 * one for one in seconds], "cpu": (time.process_time() - cpu) / (time.perf_counter() - begin)}


def _score(engine: Engine, sources: Sources) -> None:
    """Write the logits of all rows."""
    rows = read_rows(sources.folder / ROWS)
    run = engine.load(sources)
    if engine.scope == WHOLE:
        logits = [run(*row).reshape(1, -1) for row in rows]
    else:
        from mlic_train.runs.folder import load_trained

        trained, finish = load_trained(sources.run), head(sources)
        logits = [finish(*row, np.ascontiguousarray(run(_pictures(trained, [row])))) for row in rows]
    np.save(sources.folder / f"{engine.key}.npy", np.concatenate(logits))


def _typical(rows: list[Any]) -> Any:
    """Return the first row whose caption has the median number of tokens."""
    lengths = [row[1].shape[1] for row in rows]
    return rows[lengths.index(statistics.median_low(lengths))]


def _picture(sources: Sources) -> npt.NDArray[np.float32]:
    with np.load(sources.folder / CALIBRATION) as stored:
        return np.array(stored[PICTURE][:1])


def make(engine: Engine, sources: Sources) -> Found:
    """Convert the model for one engine and compute its logits, or take those of an earlier run."""
    file, failed = sources.folder / f"{engine.key}.npy", sources.folder / f"{engine.key}.failed"
    if failed.exists():
        return Found(engine, failed.read_text(encoding="utf-8"))
    if not file.exists():
        for step in ("convert", "score"):
            start = time.perf_counter()
            worker = Worker(engine, sources)
            try:
                worker.ask(step)
            except RuntimeError as error:
                reason = _reason(str(error), step)
                click.echo(f"{engine.scope}, {engine.name}: {step} failed: {reason}", err=True)
                failed.write_text(reason, encoding="utf-8")
                return Found(engine, reason)
            finally:
                worker.end()
            click.echo(f"{engine.scope}, {engine.name}: {step}, {time.perf_counter() - start:.0f} s", err=True)
    logits = np.load(file).astype(np.float64)
    if not np.isfinite(logits).all():
        return Found(engine, f"{(~np.isfinite(logits)).sum()} of its {logits.size} logits are not finite")
    return Found(engine, logits=logits)


def _reason(text: str, step: str) -> str:
    """Return what failed on one line, without the folders of this machine."""
    for folder in (ROOT, Path(sys.prefix), Path.home()):
        text = text.replace(f"{folder}/", "")
    text = " ".join(text.removeprefix("RuntimeError: ").split())
    return f"{step}: {text[:_REASON]}{'...' if len(text) > _REASON else ''}"


def measure(found: list[Found], sources: Sources, rounds: int, calls: int) -> None:
    """Load all engines, and give each one turn a round."""
    order = random.Random(0)
    workers: list[tuple[Found, Worker]] = []
    try:
        for one in found:
            worker = Worker(one.engine, sources)
            workers.append((one, worker))
            worker.ask("load", 5)
            one.turns = []
        click.echo(f"{len(workers)} engines are loaded", err=True)
        cpu: dict[str, list[float]] = {one.engine.key: [] for one in found}
        for _ in range(rounds):
            # The turns of one round are beside each other in time, and no engine follows always the same other one.
            for one, worker in order.sample(workers, len(workers)):
                answer = worker.ask("time", calls)
                assert one.turns is not None
                one.turns.append(answer["ms"])
                cpu[one.engine.key].append(answer["cpu"])
        for one in found:
            one.cpu = statistics.median(cpu[one.engine.key])
    finally:
        for _, worker in workers:
            worker.end()


def result_rows(found: list[Found], references: dict[str, str], sources: Sources, package: ModelPackage) -> list[Any]:
    """Return one entry for each engine: its reason, or accuracy and times."""
    thresholds = np.array([label.threshold for label in package.manifest.labels])
    targets, base = np.load(sources.folder / TARGETS), np.load(sources.folder / PYTORCH).astype(np.float64)
    medians = {
        one.engine.scope: [statistics.median(turn) for turn in one.turns or []]
        for one in found
        if one.engine.name == references[one.engine.scope]
    }
    entries = []
    for one in found:
        entry: dict[str, Any] = {
            "scope": one.engine.scope,
            "name": one.engine.name,
            "library": one.engine.library,
            "reason": one.reason,
        }
        if one.logits is not None:
            entry |= accuracy(one.logits, base, targets, thresholds)
        if one.turns:
            p10, p50, p90 = np.percentile([ms for turn in one.turns for ms in turn], (10, 50, 90))
            own = [statistics.median(turn) for turn in one.turns]
            ratios = np.array(own) / np.array(medians[one.engine.scope])
            entry |= {
                "ms": {"p10": round(float(p10), 2), "p50": round(float(p50), 2), "p90": round(float(p90), 2)},
                "ratio": dict(zip(("p10", "p50", "p90"), _rounded(np.percentile(ratios, (10, 50, 90))), strict=True)),
                "rounds_ms": [round(ms, 2) for ms in own],
                "cpu_per_wall": round(one.cpu, 2),
            }
        entries.append(entry)
    return entries


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in values]


def accuracy(logits: Any, base: Any, targets: Any, thresholds: Any) -> dict[str, Any]:
    """Return how far logits are from those of PyTorch, how many decisions differ, and what they score."""
    from mlic_train.measure.metrics import compute_metrics

    probabilities = sigmoid(logits)
    changed = (probabilities >= thresholds) != (sigmoid(base) >= thresholds)
    return {
        "max_difference": float(f"{np.abs(logits - base).max():.3g}"),
        "mean_difference": float(f"{np.abs(logits - base).mean():.3g}"),
        "other_decisions": int(changed.sum()),
        "equal_decisions_percent": round(100 * (1 - float(changed.mean())), 3),
        "samples_f1": compute_metrics(probabilities, targets, thresholds)["samples_f1"],
    }


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of both scopes, fastest first, and behind them what was not measured."""
    parts = []
    for scope, compared in result["references"].items():
        rows = [entry for entry in result["engines"] if entry["scope"] == scope]
        rows.sort(key=lambda entry: entry["ms"]["p50"] if "ms" in entry else float("inf"))
        header = [
            *(scope, "median ms", "p10-p90", f"time / {compared}", "p10-p90", "samples F1"),
            *("logits off by: mean", "max", f"other decisions of {result['decisions']:,}"),
        ]
        parts.append(markdown_table(header, [_cells(entry) for entry in rows if not entry["reason"]]))
        missing = [(entry["name"], entry["reason"]) for entry in rows if entry["reason"]]
        if missing:
            parts.append(markdown_table(["not measured", "reason"], missing))
    return "\n\n".join(parts)


def _cells(entry: dict[str, Any]) -> list[str]:
    times = ["", "", "", ""]
    if "ms" in entry:
        ms, ratio = entry["ms"], entry["ratio"]
        times = [
            *(f"{ms['p50']:.1f}", f"{ms['p10']:.1f}-{ms['p90']:.1f}"),
            *(f"{ratio['p50']:.2f}", f"{ratio['p10']:.2f}-{ratio['p90']:.2f}"),
        ]
    return [
        *(entry["name"] + _cpus(entry), *times, f"{entry['samples_f1']:.4f}"),
        *(f"{entry['mean_difference']:.2g}", f"{entry['max_difference']:.2g}", f"{entry['other_decisions']:,}"),
    ]


def _cpus(entry: dict[str, Any]) -> str:
    """Return the CPUs that an engine used, where it was told to use one thread and used more."""
    used = entry.get("cpu_per_wall", 0.0)
    return f" (used {used} CPUs)" if used > _TOO_MUCH_CPU else ""


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw samples F1 against time, and a panel for each scope; numbers stand for engines, colours for libraries."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.5), layout="constrained")
    measured = [entry for entry in result["engines"] if "ms" in entry]
    libraries = list(dict.fromkeys(entry["library"] for entry in measured))
    for axes, scope in zip(figure.subplots(1, 2, sharey=True), result["references"], strict=True):
        rows = sorted((entry for entry in measured if entry["scope"] == scope), key=lambda entry: entry["ms"]["p50"])
        for number, entry in enumerate(rows, 1):
            at, score, ms = entry["ms"]["p50"], entry["samples_f1"], entry["ms"]
            colour = (*COLOURS, "black")[libraries.index(entry["library"]) % (len(COLOURS) + 1)]
            axes.errorbar(
                at,
                score,
                xerr=[[at - ms["p10"]], [ms["p90"] - at]],
                fmt="o",
                color=colour,
                label=f"{number}  {entry['name']}{_cpus(entry)}: {at:.1f} ms",
            )
            # Engines in fp32 have one F1: their numbers take turns above and below.
            offset = 7 + 11 * (number // 2 % 3)
            place = (0, offset if number % 2 else -offset - 7)
            axes.annotate(str(number), (at, score), place, textcoords="offset points", ha="center", fontsize=8)
        axes.set(title=scope, xscale="log", xlabel="median ms (p10 to p90), one picture, one thread")
        axes.margins(y=0.25)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), handlelength=1)
    figure.axes[0].set_ylabel("samples F1 on val, picture and caption")
    machine = result["machine"]
    figure.suptitle(f"{result['model']} on {machine['processor']}, {machine['cpus']} CPUs", fontsize="medium")
    figure.savefig(file, dpi=110)


@click.command()
@click.option(
    "--package",
    "path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT / "exported" / "hybrid",
    help="A model package.  [default: exported/hybrid]",
)
@click.option(
    "--run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT / "mlic_train" / "released" / "hybrid",
    help="The run folder that it was exported from.  [default: the released one]",
)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for mlic-train.")
@click.option("--rows", "count", type=click.IntRange(1), help="Only the first rows of val.  [default: all]")
@click.option(
    "--calibration",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Rows of train for engines that measure ranges of values.",
)
@click.option("--only", help="Only engines whose name or scope contains this, and the references.")
@click.option("--work", "folder", type=click.Path(file_okay=False, path_type=Path), help="Keep conversions here.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=available_cpus,
    help="Conversions at once.  [default: the CPUs]",
)
@rounds_option(20, at_least=0)
@click.option("--calls", type=click.IntRange(1), default=5, show_default=True, help="Measured calls in a turn.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the result.")
@output_option
@click.option("--draw", "drawn", type=click.Path(exists=True, path_type=Path), help="Only draw and print this result.")
@click.option("--worker", nargs=4, type=(str, Path, Path, Path), hidden=True)
def main(
    path: Path,
    run: Path,
    data: Path | None,
    count: int | None,
    calibration: int,
    only: str | None,
    folder: Path | None,
    jobs: int,
    rounds: int,
    calls: int,
    plot: Path | None,
    output: Path | None,
    drawn: Path | None,
    worker: tuple[str, Path, Path, Path] | None,
) -> None:
    """Measure the same weights in several engines."""
    if worker is not None:
        work(worker[0], Sources(*worker[1:]))
        return
    if drawn is not None:
        result = read_json(drawn)
    elif data is None:
        raise click.UsageError("--data is missing: the engines are compared on rows of val")
    else:
        with tempfile.TemporaryDirectory() as temporary:
            sources = Sources(path.resolve(), run.resolve(), (folder or Path(temporary)).resolve())
            sources.folder.mkdir(parents=True, exist_ok=True)
            package = load_package(path)
            prepare(sources, package, data, count, calibration)
            result = compare(sources, package, only, jobs, rounds, calls)
        write_json(output, result)
    click.echo(table(result))
    if plot is not None and any("ms" in entry for entry in result["engines"]):
        draw(result, plot)


def compare(
    sources: Sources, package: ModelPackage, only: str | None, jobs: int, rounds: int, calls: int
) -> dict[str, Any]:
    """Convert, score and measure; return the result."""
    manifest = package.manifest
    recommended, _ = for_processor(manifest, manifest.recommended.get("cpu", manifest.precisions[0]), "")
    references = {WHOLE: f"MLIC, {recommended}", BACKBONE: f"ONNX Runtime, {recommended}"}
    chosen = [
        engine
        for engine in engines(package)
        if only is None or only in f"{engine.scope} {engine.name}" or engine.name == references[engine.scope]
    ]
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda engine: make(engine, sources), chosen))
    usable = [one for one in found if one.reason is None]
    for scope, name in references.items():
        if not any((one.engine.scope, one.engine.name) == (scope, name) for one in usable):
            raise click.ClickException(f"{name}, {scope}, does not run; the others are compared with it")
    begin = time.perf_counter()
    if rounds:
        measure(usable, sources, rounds, calls)
    entries = result_rows(found, references, sources, package)
    for entry in entries:
        if entry.get("cpu_per_wall", 0) > _TOO_MUCH_CPU:
            click.echo(f"Note: {entry['name']} used {entry['cpu_per_wall']} CPUs, not one", err=True)
    rows = read_rows(sources.folder / ROWS)
    return {
        **describe(
            "the same weights in several engines, one picture and caption, one thread, in turns; F1 and logits on val",
            LIBRARIES,
        ),
        "model": package.manifest.title,
        "rows": len(rows),
        "decisions": len(rows) * len(package.manifest.labels),
        "tokens": _typical(rows)[1].shape[1],
        "rounds": rounds,
        "calls": calls,
        "measured_for_s": round(time.perf_counter() - begin),
        "references": references,
        "engines": entries,
    }


if __name__ == "__main__":
    main()
