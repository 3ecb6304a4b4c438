"""How long a whole process of `mlic-infer` takes, from nothing to its answer, and how much memory."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlic_runtime.base.machine import busy_notes
from mlic_runtime.errors import InputError
from mlic_runtime.package.model_package import ModelPackage

from .inputs import DEFAULT_CAPTION, synthetic_jpeg
from .timing import call_in_turns, describe_machine, milliseconds

IMPORTS = "import numpy, onnxruntime, tokenizers, PIL.Image"
INFER = "from mlic_runtime.cli.infer import main; main()"
# `main` would end the process at once. The last line on stderr is the number of bytes, or None.
_PEAK = """import sys
try:
    from mlic_runtime.cli.infer import infer
    infer(prog_name="mlic-infer")
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
class ColdStartReport:
    """What was measured, how, and where.

    Attributes:
        ran: what `mlic-infer --verbose` says: the model, its precision and why, the provider, the threads.
        processes: "imports", which only loads the libraries, and "mlic-infer", which predicts one picture.
        ratio: the median over the rounds of (mlic-infer's time / imports' time), with its 10th and 90th percentile.
        peak_memory_bytes: the most resident memory of one mlic-infer process; None where the system does not say.
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

    def to_dict(self) -> dict[str, Any]:
        """The same content, ready for `json.dumps`."""
        return asdict(self)


def run_process(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command with this process's environment and nothing on standard input, and keep what it says."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


def measure_cold_start(
    package: ModelPackage,
    options: Sequence[str] = (),
    *,
    image: str | None = None,
    caption: str | None = None,
    runs: int = 10,
    warmup: int = 1,
    run: Run = run_process,
    progress: Callable[[], object] = lambda: None,
) -> ColdStartReport:
    """Start processes in turns: one that imports the libraries, one that predicts a picture; then one for its memory.

    The files that they read are in the system's cache after the warm-up: this is no measurement of a disk.

    Args:
        package: the model that `options` name.
        options: of `mlic-infer`, about the model and how it runs.
        image: the path of a picture; None means `feed.synthetic_jpeg`, as a file.
        caption: None means `feed.DEFAULT_CAPTION` for a model that reads captions.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        run: starts a process and waits for it.
        progress: called after every round, warm-up included.

    Raises:
        InputError: a number out of range, or a process failed, such as for a picture that cannot be used.
    """
    notes = list(busy_notes())
    if caption is None and package.manifest.text is not None:
        caption = DEFAULT_CAPTION
    with tempfile.TemporaryDirectory() as folder:
        picture = path = image or ""
        if image is None:
            content, picture = synthetic_jpeg()
            path = str(Path(folder) / "picture.jpg")
            Path(path).write_bytes(content)
        arguments = [*options, "--", path, *([] if caption is None else [caption])]
        codes = {"imports": [IMPORTS], "mlic-infer": [INFER, *arguments]}

        def start(name: str) -> None:
            _start(run, name, codes[name])

        calls = [lambda: start("imports"), lambda: start("mlic-infer")]
        seconds, _ = call_in_turns(calls, runs, warmup, progress)
        said = _start(run, "mlic-infer", [_PEAK, "--verbose", *arguments])
    peak = int(said[-1]) if said and said[-1].isdigit() else None
    if peak is None:
        notes.append("no peak memory: this system does not say it")
    imports, infer = seconds
    p10, p50, p90 = (round(float(ratio), 3) for ratio in np.percentile(infer / imports, (10, 50, 90)))
    title = package.manifest.title
    return ColdStartReport(
        model=title,
        ran=next((line for line in said if line.startswith(f"{title}: ")), title),
        warmup=warmup,
        runs=runs,
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


def _start(run: Run, name: str, code: list[str]) -> list[str]:
    """The lines on stderr of a Python process that ended well."""
    done = run([sys.executable, "-c", *code])
    said = done.stderr.splitlines()
    if done.returncode != 0:
        cause = next((line for line in said if line.startswith("Error: ")), said[-1] if said else "it said nothing")
        raise InputError(f"a process of {name} failed (exit code {done.returncode}): {cause.removeprefix('Error: ')}")
    return said
