"""How fast a model package runs here, alone and against other backends, measured in turns."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np
import onnxruntime

from .errors import InputError, MlicError, PackageError
from .feed import Tokens, package_feed
from .image import ImageSource, Pixels
from .latency import Logits, Seconds, describe_machine, milliseconds, require_positive, time_in_turns
from .loading import open_graph
from .package import ModelPackage
from .providers import AUTO
from .session import GraphSession

ENTRY_POINT_GROUP = "mlic_runtime.bench_backends"


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
    precision: str = AUTO,
    against: Sequence[str] = (),
    checkpoint: str | None = None,
    progress: Callable[[], object] = lambda: None,
) -> BenchReport:
    """Measure the graph: from pixels and tokens in memory to logits in memory, without decoding or tokenising.

    The backends take turns, see `latency.time_in_turns`.

    Args:
        package: the model package.
        image: the picture for every row; None means pseudo-random pixels from a fixed seed.
        caption: the caption for every row; None means `feed.DEFAULT_CAPTION`. It must be None for a model that
            reads none.
        batch_size: rows per run, >= 1.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        threads: threads per run for every backend; None means as many as this process may use.
        spin: see `session.create_session`.
        provider: execution provider of the runtime.
        precision: which graph, or "auto"; see `loading.open_graph`.
        against: backends that must be compared; empty means every installed one that can run this package, with
            a note in the report for each that cannot.
        checkpoint: handed to the backends; what it names is theirs to say.
        progress: called after every round, warm-up included.

    Raises:
        InputError: a number out of range, an unknown backend in `against`, or a caption that is not read.
        MlicError: whatever keeps the runtime, or a backend in `against`, from running.
    """
    require_positive(batch_size=batch_size, runs=runs, warmup=warmup)
    graph = open_graph(package, provider=provider, precision=precision, threads=threads, spin=spin)
    session = graph.session
    feed = package_feed(package, image=image, caption=caption, batch_size=batch_size)
    others, notes = _load_backends(package, session.threads, against, checkpoint)
    backends: list[BenchBackend] = [_Runtime(session), *others]
    seconds, logits = time_in_turns([backend.run for backend in backends], feed, runs, warmup, progress)
    return BenchReport(
        model=package.manifest.title,
        precision=graph.precision,
        provider=session.provider,
        batch_size=batch_size,
        threads=session.threads,
        spin=spin,
        warmup=warmup,
        runs=runs,
        picture=feed.picture,
        caption=feed.caption,
        tokens=feed.tokens,
        machine=describe_machine(),
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


def _timing(backend: BenchBackend, seconds: Seconds, batch_size: int) -> Timing:
    p50, p90, p99 = milliseconds(seconds, 50, 90, 99)
    rate = round(batch_size * len(seconds) / float(seconds.sum()), 2)
    return Timing(backend.name, backend.version, p50, p90, p99, rate)


def _compare(name: str, ours: Seconds, theirs: Seconds, expected: Logits, found: Logits) -> Comparison:
    if expected.shape != found.shape:
        raise PackageError(
            f"{name} gave logits of shape {found.shape}, the runtime {expected.shape}: not the same model"
        )
    p10, median, p90 = (round(float(value), 3) for value in np.percentile(theirs / ours, (10, 50, 90)))
    return Comparison(name, median, p10, p90, float(np.abs(expected - found).max()))
