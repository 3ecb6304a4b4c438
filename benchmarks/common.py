"""What the scripts in this folder share: options, result files, synthetic pictures, and the cost of a process."""

import io
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from PIL import Image

from mlic_runtime.base.machine import machine_facts

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TINY = ROOT / "tests" / "data" / "tiny"  # a model package with a caption
RUNTIME_LIBRARIES = ("onnxruntime", "tokenizers", "numpy", "pillow")
COLOURS = ("#1f5f8b", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#6c757d")
PICTURES = "synthetic: 640x480 JPEG, quality 90, seed 0"  # what `make_pictures` makes, for a result

_PICTURE_COUNT = 64

model_option = click.option("--model", help="A model package.  [default: the released one]")
output_option = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON."
)


def rounds_option(default: int, at_least: int = 1) -> Callable[[Any], Any]:
    """Return the option --rounds."""
    return click.option(
        "--rounds", type=click.IntRange(at_least), default=default, show_default=True, help="Measured turns of each."
    )


def describe(what: str, libraries: Iterable[str] = RUNTIME_LIBRARIES) -> dict[str, Any]:
    """Return what every result file says: the measurement, its command, the machine and the installed versions."""
    return {
        "what": what,
        "command": _command_line(sys.argv),
        "machine": {**machine_facts(), "load_average": [round(load, 2) for load in os.getloadavg()]},
        "versions": {name: installed for name in libraries if (installed := _version(name)) is not None},
    }


def _command_line(arguments: list[str]) -> str:
    """Return the command of this process, with DATA instead of the --data folder of this machine."""
    shown = ["DATA" if before == "--data" else given for before, given in itertools.pairwise(arguments)]
    return shlex.join(["python", f"benchmarks/{Path(arguments[0]).name}", *shown])


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def write_json(file: Path | None, result: Any) -> None:
    """Write a result, or nothing where no file is given."""
    if file is not None:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table as lines of Markdown, without a line end after the last."""
    titles = list(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows))


def make_pictures(folder: Path) -> None:
    """Write 64 JPEGs of 640x480 and quality 90 with the detail of photographs: noise at three scales, seed 0."""
    random = np.random.default_rng(0)
    for index in range(_PICTURE_COUNT):
        total = np.zeros((480, 640, 3))
        for size, weight in (((8, 6), 1.0), ((80, 60), 0.4), ((320, 240), 0.15)):
            noise = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
            total += weight * np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.float64)
        stream = io.BytesIO()
        Image.fromarray((total / 1.55).astype(np.uint8)).save(stream, "JPEG", quality=90)
        (folder / f"{index:03}.jpg").write_bytes(stream.getvalue())


class ProcessCost(NamedTuple):
    """Wall time and CPU time in seconds, and peak resident memory in bytes."""

    wall: float
    cpu: float
    peak: int


def measure_process(
    command: list[str], *, started: Callable[[int], object] = lambda pid: None, **options: Any
) -> ProcessCost:
    """Run a process to its end and return what it took.

    Args:
        command: program and arguments.
        started: called with the process id while the process runs.
        options: of `subprocess.Popen`.

    Raises:
        click.ClickException: the process failed.
    """
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **options)
        started(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            raise click.ClickException(f"{shlex.join(command)[:300]} failed: {text}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return ProcessCost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def resident_bytes() -> int:
    """Return the memory of this process that is resident now; Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
