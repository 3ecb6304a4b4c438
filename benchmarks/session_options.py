"""Measures CPU time and memory with ONNX Runtime's memory arena, memory patterns and execution modes, in turns.

    python benchmarks/session_options.py --rounds 4 --output benchmarks/results/session-options-2cpu-xeon.json

Each measurement is a process of its own, because the peak of resident memory never falls. Captions have either another
length in every run, as in use, or always the same one: ONNX Runtime makes a memory pattern for every shape. Linux only.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
from common import describe, model_option, output_option, resident_bytes, rounds_option, write_json

from mlic_runtime import load_package
from mlic_runtime.base.machine import available_cores, peak_bytes

# (arena, pattern, parallel execution); the first is ONNX Runtime's default
VARIANTS = {
    "arena and pattern": (True, True, False),
    "arena only": (True, False, False),
    "pattern only": (False, True, False),
    "neither": (False, False, False),
    "arena and pattern, parallel": (True, True, True),
}
RUNS = {1: 40, 16: 8}  # pictures in a batch: measured runs of a process
LENGTHS = ("varying", "same")


def measure_one(
    model: str | None, precision: str, variant: str, batch: int, length: str, threads: int
) -> dict[str, float]:
    """Run a graph in this process; return milliseconds per run, and MB resident after loading, at the end, at most."""
    package = load_package(model)
    arena, pattern, parallel = VARIANTS[variant]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 2 if parallel else 1
    options.execution_mode = getattr(onnxruntime.ExecutionMode, "ORT_PARALLEL" if parallel else "ORT_SEQUENTIAL")
    options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, pattern
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(package.read_graph(precision), options, providers=["CPUExecutionProvider"])
    loaded = resident_bytes() / 1e6
    image, text = package.manifest.image, package.manifest.text
    pixels = np.random.default_rng(0).integers(0, 256, (batch, image.height, image.width, 3), dtype=np.uint8)
    lengths = random.Random(0)
    cpu, wall = [], []
    for turn in range(-max(2, RUNS[batch] // 4), RUNS[batch]):
        feed: dict[str, Any] = {"pixels": pixels}
        if text is not None:
            size = lengths.randint(1, text.max_length) if length == "varying" else text.max_length // 2
            tokens = np.full((batch, size), 5, dtype=np.int64)
            feed |= {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        start, start_wall = time.process_time(), time.perf_counter()
        session.run(None, feed)
        if turn >= 0:
            cpu.append(time.process_time() - start)
            wall.append(time.perf_counter() - start_wall)
    return {
        "cpu_ms": 1e3 * statistics.median(cpu),
        "wall_ms": 1e3 * statistics.median(wall),
        "loaded_mb": loaded,
        "end_mb": resident_bytes() / 1e6,
        "peak_mb": (peak_bytes() or 0) / 1e6,
    }


def _measure_in_new_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@click.command()
@model_option
@click.option("--precision", "precisions", multiple=True, default=["fp32", "int8"], show_default=True)
@rounds_option(5)
@click.option("--threads", type=click.IntRange(1), default=available_cores, help="[default: the physical cores]")
@output_option
@click.option("--one", nargs=3, type=(click.Choice(list(VARIANTS)), int, click.Choice(LENGTHS)), hidden=True)
def main(
    model: str | None,
    precisions: tuple[str, ...],
    rounds: int,
    threads: int,
    output: Path | None,
    one: tuple[str, int, str] | None,
) -> None:
    """Measure the session options that trade memory for time."""
    if one is not None:
        click.echo(json.dumps(measure_one(model, precisions[0], *one, threads)))
        return
    cases = [(precision, batch, length) for precision in precisions for batch in RUNS for length in LENGTHS]
    runs: dict[tuple[str, int, str, str], list[dict[str, float]]] = {}
    for turn in range(rounds):
        for precision, batch, length in cases:
            for variant in VARIANTS:
                arguments = ["--precision", precision, "--threads", str(threads), "--one", variant, str(batch), length]
                measured = _measure_in_new_process(*arguments, *(["--model", model] if model else []))
                runs.setdefault((precision, batch, length, variant), []).append(measured)
        click.echo(f"round {turn + 1} of {rounds}", err=True)
    rows = [
        {
            "precision": precision,
            "batch_size": batch,
            "lengths": length,
            "options": variant,
            **{name: round(statistics.median(row[name] for row in results), 2) for name in results[0]},
            "cpu_ms_min": round(min(row["cpu_ms"] for row in results), 2),
            "cpu_ms_max": round(max(row["cpu_ms"] for row in results), 2),
        }
        for (precision, batch, length, variant), results in runs.items()
    ]
    result = describe(
        "session options: CPU time of a run, and resident memory, with captions of varying or one length; "
        "medians over processes, in turns"
    )
    result |= {"model": load_package(model).manifest.title, "rounds": rounds, "runs": RUNS}
    result |= {"threads": threads, "rows": rows}
    for row in rows:
        click.echo(
            f"{row['precision']}  batch {row['batch_size']:2}  {row['lengths']:7}  {row['options']:27}  "
            f"{row['cpu_ms']:7} CPU-ms ({row['cpu_ms_min']} to {row['cpu_ms_max']})  {row['wall_ms']:7} ms  "
            f"loaded {row['loaded_mb']} MB, end {row['end_mb']} MB, peak {row['peak_mb']} MB"
        )
    write_json(output, result)


if __name__ == "__main__":
    main()
