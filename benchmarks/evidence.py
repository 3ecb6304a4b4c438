"""What evidence costs: a graph without evidence outputs, one with them that are not fetched, and one that explains.

    mlic-export --run RUN --output with
    mlic-export --run RUN --no-evidence --output without
    python benchmarks/evidence.py --model with --without without --output benchmarks/results/evidence-2cpu-epyc.json

All sessions run in turns, in one process, with one thread; CPU time of the process is measured, because it does not
depend on what else the machine does.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import describe, markdown_table, model_option, output_option, rounds_option, write_json

from mlic_runtime import Predictor
from mlic_runtime.predict.evidence import OCCLUSION_CELLS

_CAPTION = "a cat sleeps on a bench beside a laptop"


@click.command()
@model_option
@click.option("--without", required=True, help="The same model, exported with --no-evidence.")
@rounds_option(200, 10)
@output_option
def main(model: "str | None", without: str, rounds: int, output: "Path | None") -> None:
    """Measure the CPU time of one prediction's graph in three ways."""
    explaining, plain = (Predictor.load(each, precision="fp32", threads=1, cache=False) for each in (model, without))
    if not explaining.session.explains or plain.session.explains:
        raise click.UsageError("--model needs evidence outputs, and --without must have none")
    spec = explaining.manifest.image
    pixels = np.random.default_rng(0).integers(1, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    tokens = explaining._tokenise([_CAPTION])
    occluded = np.repeat(pixels, 1 + OCCLUSION_CELLS**2 + len(_CAPTION.split()), axis=0)
    many = tuple(np.repeat(each, len(occluded), axis=0) for each in tokens)
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "without evidence outputs": (lambda: plain.session.run(pixels, *tokens), rounds),
        "not fetched": (lambda: explaining.session.run(pixels, *tokens), rounds),
        "fetched": (lambda: explaining.session.explain(pixels, *tokens), rounds),
        "occlusion": (lambda: plain.session.run(occluded, *many), max(1, rounds // 40)),
    }
    same = bool(np.array_equal(plain.session.run(pixels, *tokens), explaining.session.run(pixels, *tokens)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, (way, count) in ways.items():
            if turn < count:
                begin = time.process_time()
                way()
                times[name].append(1000 * (time.process_time() - begin))
    first = np.array(times["without evidence outputs"])
    found = {
        name: {
            "cpu_ms": round(float(np.median(values)), 3),
            "cpu_ms_min": round(min(values), 3),
            "runs": len(values),
            "ratio": round(float(np.median(np.array(values) / first[: len(values)])), 4),
        }
        for name, values in times.items()
    }
    result = {
        **describe("CPU time of one prediction's graph, one thread, all ways in turns; ratio: median over turns"),
        "same_logits": same,
        "ways": found,
    }
    write_json(output, result)
    rows = [[name, f"{values['cpu_ms']:.2f}", f"{values['ratio']:.3f}"] for name, values in found.items()]
    click.echo(markdown_table(["way", "CPU ms", "ratio"], rows))


if __name__ == "__main__":
    main()
