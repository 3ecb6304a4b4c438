"""How fast a model package runs here, alone and against other backends, measured in turns."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from .errors import InputError, MlicError, PackageError
from .image import ImageSource, Pixels, read_pixels
from .manifest import TOKENIZER_NAME
from .package import ModelPackage
from .providers import available_cpus
from .session import GraphSession, create_session

ENTRY_POINT_GROUP = "mlic_runtime.bench_backends"
DEFAULT_CAPTION = "A dog runs along the beach while two people watch"
_SEED = 0

Tokens: TypeAlias = npt.NDArray[np.int64] | None
Logits: TypeAlias = npt.NDArray[np.float32]


class BenchBackend(Protocol):
    """Another way to run the same model, to be compared with the runtime.

    A distribution offers one under the entry point group `mlic_runtime.bench_backends`. The entry point names a
    callable (a class will do), called as `backend(package: ModelPackage, threads: int, checkpoint: str | None)`,
    that returns an object as described here. It raises an `MlicError` if it cannot run this package.

    Attributes:
        name: what it is called in the report, such as "pytorch".
        version: of the library that does the work.
    """

    name: str
    version: str

    def run(self, pixels: Pixels, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """Run the model.

        Args:
            pixels: uint8 (B, H, W, 3), RGB.
            input_ids: int64 (B, T), or None for a model that reads no caption.
            attention_mask: int64 (B, T) of 0 and 1, or None likewise.

        Returns:
            logits, float32 (B, L), in host memory: waiting for a device is part of the run.
        """


@dataclass(frozen=True)
class Timing:
    """Wall time of one warm run of a batch, in milliseconds, and what follows from it.

    `pictures_per_second` is the number of pictures over the total time of all runs.
    """

    name: str
    version: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    pictures_per_second: float


@dataclass(frozen=True)
class Comparison:
    """The runtime against one backend, over pairs of runs that followed each other.

    `ratio` is the median over the pairs of (backend's time / runtime's time): 2.0 means that the runtime took half
    the time. `ratio_p10` and `ratio_p90` are its spread. `max_abs_difference` is between their logits.
    """

    name: str
    ratio: float
    ratio_p10: float
    ratio_p90: float
    max_abs_difference: float


@dataclass(frozen=True)
class BenchReport:
    """What was measured, how, and where; `timings[0]` is the runtime itself."""

    model: str
    precision: str
    provider: str
    batch_size: int
    threads: int
    spin: bool
    warmup: int
    runs: int
    picture: str
    caption: str | None
    tokens: int
    machine: dict[str, str | int]
    timings: tuple[Timing, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same content, ready for `json.dumps`."""
        return asdict(self)


def benchmark(
    package: ModelPackage,
    *,
    image: ImageSource | None = None,
    caption: str | None = None,
    batch_size: int = 1,
    runs: int = 50,
    warmup: int = 10,
    threads: int | None = None,
    spin: bool = False,
    provider: str = "cpu",
    precision: str | None = None,
    against: Sequence[str] = (),
    checkpoint: str | None = None,
    progress: Callable[[], object] = lambda: None,
) -> BenchReport:
    """Measure the graph: from pixels and tokens in memory to logits in memory, without decoding or tokenising.

    Every backend runs once in each round, one after the other (A B A B ...), so that whatever else the machine does
    falls on all of them.

    Args:
        package: the model package.
        image: the picture for every row; None means pseudo-random pixels from a fixed seed.
        caption: the caption for every row; None means DEFAULT_CAPTION. It must be None for a model that reads none.
        batch_size: rows per run, >= 1.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        threads: threads per run for every backend; None means as many as this process may use.
        spin: see `session.create_session`.
        provider: execution provider of the runtime.
        precision: which graph; None means the first that the manifest lists.
        against: backends that must be compared; empty means every installed one that can run this package, with
            a note in the report for each that cannot.
        checkpoint: handed to the backends; what it names is theirs to say.
        progress: called after every round, warm-up included.

    Raises:
        InputError: a number out of range, an unknown backend in `against`, or a caption that is not read.
        MlicError: whatever keeps the runtime, or a backend in `against`, from running.
    """
    for name, value in (("batch_size", batch_size), ("runs", runs), ("warmup", warmup)):
        if value < 1:
            raise InputError(f"{name} must be 1 or more, found {value}")
    manifest = package.manifest
    chosen = precision or manifest.precisions[0]
    threads = available_cpus() if threads is None else threads
    session = create_session(package.read_graph(chosen), provider=provider, threads=threads, spin=spin)
    feed, picture, text = _make_feed(package, image, caption, batch_size)
    others, notes = _load_backends(package, threads, against, checkpoint)
    backends: list[BenchBackend] = [_Runtime(session), *others]
    seconds, logits = _measure(backends, feed, runs, warmup, progress)
    return BenchReport(
        model=f"{manifest.name}@{manifest.version}",
        precision=chosen,
        provider=session.provider,
        batch_size=batch_size,
        threads=threads,
        spin=spin,
        warmup=warmup,
        runs=runs,
        picture=picture,
        caption=text,
        tokens=0 if feed[1] is None else feed[1].shape[1],
        machine=_machine(),
        timings=tuple(_timing(backend, row, batch_size) for backend, row in zip(backends, seconds, strict=True)),
        comparisons=tuple(
            _compare(backends[index].name, seconds[0], seconds[index], logits[0], logits[index])
            for index in range(1, len(backends))
        ),
        notes=tuple(notes),
    )


class _Runtime:
    """The runtime itself as a backend."""

    name = "mlic-runtime"

    def __init__(self, session: GraphSession) -> None:
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self._session = session

    def run(self, pixels: Pixels, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        return self._session.run(pixels, input_ids, attention_mask)


def _make_feed(
    package: ModelPackage, image: ImageSource | None, caption: str | None, batch_size: int
) -> tuple[tuple[Pixels, Tokens, Tokens], str, str | None]:
    """((pixels, input_ids, attention_mask), what the picture is, the caption used)."""
    spec, text = package.manifest.image, package.manifest.text
    if image is None:
        one = np.random.default_rng(_SEED).integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8)
        picture = f"synthetic: pseudo-random pixels, seed {_SEED}"
    else:
        one = read_pixels(image, spec)
        picture = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "from memory"
    pixels = np.repeat(one[np.newaxis], batch_size, axis=0)
    if text is None:
        if caption is not None:
            raise InputError(f"model {package.manifest.name} reads no caption: leave it out")
        return (pixels, None, None), picture, None
    from .text import CaptionTokenizer  # here, because a model without captions need not load tokenizers

    caption = DEFAULT_CAPTION if caption is None else caption
    ids, mask = CaptionTokenizer(package.read(TOKENIZER_NAME), text).encode([caption] * batch_size)
    return (pixels, ids, mask), picture, caption


def _load_backends(
    package: ModelPackage, threads: int, against: Sequence[str], checkpoint: str | None
) -> tuple[list[BenchBackend], list[str]]:
    """(backends that can run this package, notes on what is missing)."""
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    hint = "install mlic-train to compare with PyTorch"
    for name in against:
        if name not in installed:
            raise InputError(
                f"no bench backend {name!r}; installed: {', '.join(sorted(installed)) or f'none ({hint})'}"
            )
    backends, notes = [], []
    for name in dict.fromkeys(against or sorted(installed)):
        try:
            backends.append(_load_backend(installed[name], package, threads, checkpoint))
        except MlicError as error:
            if against:
                raise
            notes.append(f"not compared with {name}: {error}")
    if not installed:
        notes.append(f"no other backend is installed: {hint}")
    return backends, notes


def _load_backend(entry: EntryPoint, package: ModelPackage, threads: int, checkpoint: str | None) -> BenchBackend:
    try:
        factory = entry.load()
    except ImportError as error:
        raise InputError(f"bench backend {entry.name!r} cannot be imported: {error}") from error
    backend: BenchBackend = factory(package, threads, checkpoint)
    return backend


def _measure(
    backends: Sequence[BenchBackend],
    feed: tuple[Pixels, Tokens, Tokens],
    runs: int,
    warmup: int,
    progress: Callable[[], object],
) -> tuple[npt.NDArray[np.float64], list[Logits]]:
    """(seconds (number of backends, runs), the logits (B, L) of each backend)."""
    seconds = np.empty((len(backends), runs), dtype=np.float64)
    logits: list[Logits] = []
    for turn in range(-warmup, runs):
        logits = []
        for index, backend in enumerate(backends):
            start = time.perf_counter()
            result = backend.run(*feed)
            elapsed = time.perf_counter() - start
            logits.append(result)
            if turn >= 0:
                seconds[index, turn] = elapsed
        progress()
    return seconds, logits


def _timing(backend: BenchBackend, seconds: npt.NDArray[np.float64], batch_size: int) -> Timing:
    p50, p90, p99 = (round(float(value) * 1000, 4) for value in np.percentile(seconds, (50, 90, 99)))
    rate = round(batch_size * len(seconds) / float(seconds.sum()), 2)
    return Timing(backend.name, backend.version, p50, p90, p99, rate)


def _compare(
    name: str, ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], expected: Logits, found: Logits
) -> Comparison:
    if expected.shape != found.shape:
        raise PackageError(
            f"{name} gave logits of shape {found.shape}, the runtime {expected.shape}: not the same model"
        )
    p10, median, p90 = (round(float(value), 3) for value in np.percentile(theirs / ours, (10, 50, 90)))
    return Comparison(name, median, p10, p90, float(np.abs(expected - found).max()))


def _machine() -> dict[str, str | int]:
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": available_cpus(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    """The CPU's model name; `platform.processor()` is empty or vague on Linux."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
