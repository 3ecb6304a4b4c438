"""Time and memory of a whole process of `mlic-infer`, from its start to its answer."""

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.base.machine import busy_notes
from mlic_runtime.errors import InputError
from mlic_runtime.package.model_package import ModelPackage

from .inputs import DEFAULT_CAPTION, BenchOptions, synthetic_jpeg
from .timing import Report, call_in_turns, describe_machine, milliseconds, spread

IMPORTS = "import numpy, onnxruntime, tokenizers, PIL.Image"
INFER = "from mlic_runtime.cli.infer import main; main()"
# Not `main`, which ends the process at once. The last line on stderr is the number of bytes, or None.
_PEAK = """import sys
try:
    from mlic_runtime.cli.infer import infer
    infer(prog_name="mlic-infer", obj=True)
finally:
    from mlic_runtime.base.machine import peak_bytes
    print(peak_bytes(), file=sys.stderr)
"""

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class ProcessTiming:
    """Wall time of a whole process in milliseconds; `code` is what Python ran."""

    name: str
    code: str
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class ColdStartReport(Report):
    """A measurement, with how and where it was made.

    Attributes:
        ran: the line of `mlic-infer --verbose`: the model, its precision and why, the provider, the threads.
        processes: "imports", which only loads the libraries, and "mlic-infer", which predicts one picture.
        ratio: the median over the rounds of (mlic-infer's time / imports' time), with its 10th and 90th percentile.
        peak_memory_bytes: the most resident memory of one mlic-infer process; None if the system does not report it.
    """

    model: str
    ran: str
    warmup: int
    runs: int
    picture: str
    caption: str | None
    machine: dict[str, str | int]
    processes: tuple[ProcessTiming, ...]
    ratio: float
    ratio_p10: float
    ratio_p90: float
    peak_memory_bytes: int | None
    notes: tuple[str, ...]


def run_process(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command with this process's environment and nothing on standard input, and keep its output."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


def measure_cold_start(
    package: ModelPackage,
    options: BenchOptions,
    *,
    model: str | None = None,
    run: Run = run_process,
    progress: Callable[[], object] = lambda: None,
) -> ColdStartReport:
    """Start processes in turns: one that imports the libraries, one that predicts a picture; then one for its memory.

    After the warm-up the system has the files that they read in memory: a disk is not measured.

    Args:
        package: the model package.
        options: what `mlic-infer` runs on and how often, and its own options. The picture is a path; None means
            `inputs.synthetic_jpeg`, as a file.
        model: the value of `--model` that names the package; None leaves the option out.
        run: starts a process and waits for it.
        progress: called after every round, warm-up included.

    Raises:
        InputError: a process failed, such as for a picture that cannot be used.
    """
    notes = list(busy_notes())
    caption = options.caption
    if caption is None and package.manifest.text is not None:
        caption = DEFAULT_CAPTION
    with tempfile.TemporaryDirectory() as folder:
        if options.image is None:
            content, picture = synthetic_jpeg()
            path = str(Path(folder) / "picture.jpg")
            Path(path).write_bytes(content)
        else:
            picture = path = str(options.image)
        arguments = [*_infer_options(options, model), "--", path, *([] if caption is None else [caption])]
        codes = {"imports": [IMPORTS], "mlic-infer": [INFER, *arguments]}
        calls = [functools.partial(_start, run, name, code) for name, code in codes.items()]
        seconds, _ = call_in_turns(calls, options.runs, options.warmup, progress)
        lines = _start(run, "mlic-infer", [_PEAK, "--verbose", *arguments])
    peak = int(lines[-1]) if lines and lines[-1].isdigit() else None
    if peak is None:
        notes.append("no peak memory: this system does not report it")
    imports, infer = seconds
    p10, p50, p90 = spread(infer / imports, digits=3)
    title = package.manifest.title
    return ColdStartReport(
        model=title,
        ran=next((line for line in lines if line.startswith(f"{title}: ")), title),
        warmup=options.warmup,
        runs=options.runs,
        picture=picture,
        caption=caption,
        machine=describe_machine(),
        processes=tuple(
            ProcessTiming(name, code[0], *milliseconds(row, 50, 90))
            for (name, code), row in zip(codes.items(), seconds, strict=True)
        ),
        ratio=p50,
        ratio_p10=p10,
        ratio_p90=p90,
        peak_memory_bytes=peak,
        notes=tuple(notes),
    )


def _infer_options(options: BenchOptions, model: str | None) -> list[str]:
    """Return the options of `mlic-infer` that load the model in this way."""
    arguments = ["--precision", options.precision, "--provider", options.provider]
    arguments += [] if model is None else ["--model", model]
    arguments += [] if options.threads is None else ["--threads", str(options.threads)]
    return [*arguments, *["--spin"] * options.spin, *["--no-cache"] * (not options.cache)]


def _start(run: Run, name: str, code: list[str]) -> list[str]:
    """Run a Python process, and return its lines on stderr if it succeeds."""
    done = run([sys.executable, "-c", *code])
    lines = done.stderr.splitlines()
    if done.returncode != 0:
        cause = next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else "no message")
        raise InputError(f"a process of {name} failed (exit code {done.returncode}): {cause.removeprefix('Error: ')}")
    return lines
