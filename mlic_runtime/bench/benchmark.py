"""How fast a model package runs here, alone and against other backends, measured in turns."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np

from mlic_runtime.base.arrays import Logits, Pixels, Seconds, Tokens
from mlic_runtime.base.machine import busy_notes
from mlic_runtime.errors import InputError, MlicError, PackageError
from mlic_runtime.graph.opening import OpenedGraph, open_graph
from mlic_runtime.graph.session import GraphSession
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.picture.decode import ImageSource
from mlic_runtime.providers.library import onnxruntime
from mlic_runtime.providers.names import AUTO

from .inputs import Feed, package_feed
from .timing import describe_machine, milliseconds, require_positive, time_in_turns

ENTRY_POINT_GROUP = "mlic_runtime.bench_backends"
QUANTILES = tuple(range(0, 101, 5))  # percentages at which a report keeps the distribution of a latency


class BenchBackend(Protocol):
    """Another way to run the same model, to be compared with the runtime.

    A distribution offers one under the entry point group `mlic_runtime.bench_backends`. The entry point names a
    callable (a class will do), called as `backend(package: ModelPackage, threads: int, checkpoint: str | None,
    precision: str)`, that returns an object as described here. `precision` is that of the graph which the runtime runs;
    a backend that has weights of its own may disregard it. It raises an `MlicError` if it cannot run this package. If
    the callable has an attribute `only_if_asked`, a text that says why, it is left out unless it is asked for by name.

    Attributes:
        name: what it is called in the report, such as "pytorch".
        version: of the library that does the work.
    """

    name: str
    version: str

    def run(self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None) -> Logits:
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

    `pictures_per_second` is the number of pictures over the total time of all runs. `quantiles_ms` has the percentiles
    QUANTILES, from the shortest run to the longest.
    """

    name: str
    version: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    pictures_per_second: float
    quantiles_ms: tuple[float, ...]


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
    cache: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> BenchReport:
    """Measure the graph: from pixels and tokens in memory to logits in memory, without decoding or tokenising.

    The backends take turns, see `timing.time_in_turns`.

    Args:
        package: the model package.
        image: the picture for every row; None means pseudo-random pixels from a fixed seed.
        caption: the caption for every row; None means `feed.DEFAULT_CAPTION`. It must be None for a model that
            reads none.
        batch_size: rows per run, >= 1.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        threads: threads per run for every backend; None: one per physical core that this process may use.
        spin: see `session.create_session`.
        provider: execution provider of the runtime.
        precision: which graph, or "auto"; see `opening.open_graph`.
        against: backends that must be compared; empty means every installed one that can run this package, with
            a note in the report for each that cannot.
        checkpoint: handed to the backends; what it names is theirs to say.
        cache: see `opening.open_graph`.
        progress: called after every round, warm-up included.

    Raises:
        InputError: a number out of range, an unknown backend in `against`, or a caption that is not read.
        MlicError: whatever keeps the runtime, or a backend in `against`, from running.
    """
    (report,) = benchmark_grid(
        package,
        batch_sizes=(batch_size,),
        threads=(threads,),
        image=image,
        caption=caption,
        runs=runs,
        warmup=warmup,
        spin=spin,
        provider=provider,
        precision=precision,
        against=against,
        checkpoint=checkpoint,
        cache=cache,
        progress=progress,
    )
    return report


def benchmark_grid(
    package: ModelPackage,
    *,
    batch_sizes: Sequence[int],
    threads: Sequence[int | None] = (None,),
    image: ImageSource | None = None,
    caption: str | None = None,
    runs: int = 50,
    warmup: int = 10,
    spin: bool = False,
    provider: str = "cpu",
    precision: str = AUTO,
    against: Sequence[str] = (),
    checkpoint: str | None = None,
    cache: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> tuple[BenchReport, ...]:
    """Measure every combination of batch sizes and threads as `benchmark` does: in turns within a combination.

    Args:
        package: the model package.
        batch_sizes: rows per run, each >= 1.
        threads: threads per run, each >= 1, or None as in `benchmark`. All is loaded anew for each.
        image: this and what follows: see `benchmark`.
        caption: the same.
        runs: of each combination.
        warmup: the same.
        spin: the same.
        provider: the same.
        precision: the same.
        against: the same.
        checkpoint: the same.
        cache: the same.
        progress: the same.

    Returns:
        Reports, all batch sizes for the first number of threads first.

    Raises:
        MlicError: see `benchmark`.
    """
    for batch_size in batch_sizes:
        require_positive(batch_size=batch_size)
    require_positive(runs=runs, warmup=warmup)
    busy = busy_notes()  # now, for the measurement itself is work
    reports = []
    for count in threads:
        graph = open_graph(package, provider=provider, precision=precision, threads=count, spin=spin, cache=cache)
        others, notes = _load_backends(package, graph, against, checkpoint)
        backends: list[BenchBackend] = [_Runtime(graph.session), *others]
        for batch_size in batch_sizes:
            feed = package_feed(package, image=image, caption=caption, batch_size=batch_size)
            seconds, logits = time_in_turns([backend.run for backend in backends], feed, runs, warmup, progress)
            turns = _Turns(backends, feed, seconds, logits, warmup, spin, (*busy, *notes))
            reports.append(_report(package, graph, turns))
    return tuple(reports)


@dataclass(frozen=True)
class _Turns:
    """What was run in turns, how, and what came of it."""

    backends: list[BenchBackend]
    feed: Feed
    seconds: Seconds
    logits: list[Logits]
    warmup: int
    spin: bool
    notes: tuple[str, ...]


def _report(package: ModelPackage, graph: OpenedGraph, turns: _Turns) -> BenchReport:
    backends, feed, seconds, logits = turns.backends, turns.feed, turns.seconds, turns.logits
    batch_size = len(feed.pixels)
    return BenchReport(
        model=package.manifest.title,
        precision=graph.precision,
        provider=graph.session.provider,
        batch_size=batch_size,
        threads=graph.session.threads,
        spin=turns.spin,
        warmup=turns.warmup,
        runs=seconds.shape[1],
        picture=feed.picture,
        caption=feed.caption,
        tokens=feed.tokens,
        machine=describe_machine(),
        timings=tuple(_timing(backend, row, batch_size) for backend, row in zip(backends, seconds, strict=True)),
        comparisons=tuple(
            _compare(backends[index].name, seconds[0], seconds[index], logits[0], logits[index])
            for index in range(1, len(backends))
        ),
        notes=turns.notes,
    )


class _Runtime:
    """The runtime itself as a backend."""

    name = "mlic-runtime"

    def __init__(self, session: GraphSession) -> None:
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self._session = session

    def run(self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None) -> Logits:
        return self._session.run(pixels, input_ids, attention_mask)


def _load_backends(
    package: ModelPackage, graph: OpenedGraph, against: Sequence[str], checkpoint: str | None
) -> tuple[list[BenchBackend], list[str]]:
    """(backends that can run this package, notes on what is missing)."""
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    hint = "install mlic-train, which brings it"
    for name in against:
        if name not in installed:
            raise InputError(
                f"no bench backend {name!r}; installed: {', '.join(sorted(installed)) or 'none'}"
                + (f" ({hint})" if name == "pytorch" else "")
            )
    backends, notes = [], []
    for name in dict.fromkeys(against or sorted(installed)):
        try:
            backends.append(_load_backend(installed[name], package, graph, checkpoint, asked=bool(against)))
        except MlicError as error:
            if against:
                raise
            notes.append(f"not compared with {name}: {error}")
    if not against and "pytorch" not in installed:
        notes.append(f"not compared with pytorch: {hint}")
    return backends, notes


def _load_backend(
    entry: EntryPoint, package: ModelPackage, graph: OpenedGraph, checkpoint: str | None, *, asked: bool
) -> BenchBackend:
    try:
        factory = entry.load()
    except ImportError as error:
        raise InputError(f"bench backend {entry.name!r} cannot be imported: {error}") from error
    reason: str | None = getattr(factory, "only_if_asked", None)
    if reason is not None and not asked:
        raise InputError(f"{reason}; --against {entry.name} asks for it")
    backend: BenchBackend = factory(package, graph.session.threads, checkpoint, graph.precision)
    return backend


def _timing(backend: BenchBackend, seconds: Seconds, batch_size: int) -> Timing:
    p50, p90, p99 = milliseconds(seconds, 50, 90, 99)
    rate = round(batch_size * len(seconds) / float(seconds.sum()), 2)
    return Timing(backend.name, backend.version, p50, p90, p99, rate, milliseconds(seconds, *QUANTILES))


def _compare(name: str, ours: Seconds, theirs: Seconds, expected: Logits, found: Logits) -> Comparison:
    if expected.shape != found.shape:
        raise PackageError(
            f"{name} gave logits of shape {found.shape}, the runtime {expected.shape}: not the same model"
        )
    p10, median, p90 = (round(float(value), 3) for value in np.percentile(theirs / ours, (10, 50, 90)))
    return Comparison(name, median, p10, p90, float(np.abs(expected - found).max()))
