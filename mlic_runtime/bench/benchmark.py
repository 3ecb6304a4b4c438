"""Measurement of a model package on this machine, alone and against other backends, in turns."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import numpy as np

from mlic_runtime.base.arrays import Logits, Pixels, Seconds, Tokens
from mlic_runtime.base.machine import busy_notes
from mlic_runtime.base.override import override
from mlic_runtime.errors import InputError, MlicError, PackageError
from mlic_runtime.graph.opening import OpenedGraph, open_graph
from mlic_runtime.graph.session import GraphSession
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.predict.prediction import check_count

from .inputs import BenchOptions, package_inputs
from .timing import Report, call_in_turns, describe_machine, milliseconds, spread

ENTRY_POINT_GROUP = "mlic_runtime.bench_backends"
QUANTILES = tuple(range(0, 101, 5))  # percentiles of each latency that a report keeps


class BenchBackend(Protocol):
    """Another way to run the same model, which `benchmark` compares with the runtime.

    A distribution offers one under the entry point group `mlic_runtime.bench_backends`. The entry point names a
    callable, such as a class, which is called as `backend(package: ModelPackage, threads: int, checkpoint: str | None,
    precision: str)` and returns an object as described here. `precision` is that of the graph that the runtime runs; a
    backend with weights of its own may ignore it. The callable raises an `MlicError` if it cannot run this package. If
    it has an attribute `only_if_asked`, a text that says why, it is only used if `against` names it.

    Attributes:
        name: the name in the report, such as "pytorch".
        version: of the library that runs the model.
    """

    name: str
    version: str

    def run(self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None) -> Logits:
        """Run the model.

        Args:
            pixels: uint8 (B, H, W, 3), RGB.
            input_ids: int64 (B, T), or None for a model that reads no caption.
            attention_mask: int64 (B, T) of 0 and 1, or None for a model that reads no caption.

        Returns:
            logits, float32 (B, L), in host memory: waiting for a device is part of the run.
        """


@dataclass(frozen=True)
class Timing:
    """Wall time of one warm run of a batch, in milliseconds, and the throughput.

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
    """A comparison of the runtime with one backend, over pairs of consecutive runs.

    `ratio` is the median over the pairs of (backend's time / runtime's time): 2.0 means that the runtime took half
    the time. `ratio_p10` and `ratio_p90` are its spread. `max_abs_difference` is between their logits.
    """

    name: str
    ratio: float
    ratio_p10: float
    ratio_p90: float
    max_abs_difference: float


@dataclass(frozen=True)
class BenchReport(Report):
    """A measurement, with how and where it was made; `timings[0]` is the runtime itself."""

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


def benchmark(
    package: ModelPackage,
    options: BenchOptions | None = None,
    *,
    batch_sizes: Sequence[int] = (1,),
    threads: Sequence[int | None] | None = None,
    against: Sequence[str] = (),
    checkpoint: str | None = None,
    progress: Callable[[], object] = lambda: None,
) -> tuple[BenchReport, ...]:
    """Measure the graph: from pixels and tokens in memory to logits in memory, without decoding or tokenising.

    Every combination of batch sizes and threads is measured. Within a combination the backends take turns, see
    `timing.call_in_turns`.

    Args:
        package: the model package.
        options: what it runs on, how often, and how it is loaded; None means the defaults.
        batch_sizes: rows per run, each >= 1; all rows have the same picture and caption.
        threads: threads per run for every backend, each >= 1, or None as in `BenchOptions`; everything is loaded again
            for each. None means only `options.threads`.
        against: backends that must be compared; empty means every installed one that can run this package, with
            a note in the report for each that cannot.
        checkpoint: handed to the backends, which define its meaning.
        progress: called after every round, warm-up included.

    Returns:
        A report for each combination, all batch sizes for the first number of threads first.

    Raises:
        InputError: a number out of range, an unknown backend in `against`, or a caption for a model that reads none.
        MlicError: the runtime, or a backend in `against`, cannot run.
    """
    options = options or BenchOptions()
    for batch_size in batch_sizes:
        check_count("batch_size", batch_size)
    busy = busy_notes()  # before the measurement, which itself makes the machine busy
    reports = []
    for count in (options.threads,) if threads is None else threads:
        graph = open_graph(package, **{**options.loading, "threads": count})
        others, notes = _load_backends(package, graph, against, checkpoint)
        backends: list[BenchBackend] = [_Runtime(graph.session), *others]
        for batch_size in batch_sizes:
            inputs = package_inputs(package, image=options.image, caption=options.caption, batch_size=batch_size)
            calls = [functools.partial(backend.run, *inputs.arrays) for backend in backends]
            seconds, logits = call_in_turns(calls, options.runs, options.warmup, progress)
            report = BenchReport(
                model=package.manifest.title,
                precision=graph.precision,
                provider=graph.session.provider,
                batch_size=batch_size,
                threads=graph.session.threads,
                spin=options.spin,
                warmup=options.warmup,
                runs=options.runs,
                picture=inputs.picture,
                caption=inputs.caption,
                tokens=inputs.tokens,
                machine=describe_machine(),
                timings=tuple(
                    _timing(backend, row, batch_size) for backend, row in zip(backends, seconds, strict=True)
                ),
                comparisons=tuple(
                    _compare(backends[index].name, seconds[0], seconds[index], logits[0], logits[index])
                    for index in range(1, len(backends))
                ),
                notes=(*busy, *notes),
            )
            reports.append(report)
    return tuple(reports)


class _Runtime(BenchBackend):
    """The runtime itself as a backend."""

    name = "mlic-runtime"

    def __init__(self, session: GraphSession) -> None:
        self.version = session.library
        self._session = session

    @override
    def run(self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None) -> Logits:
        return self._session.run(pixels, input_ids, attention_mask)


def _load_backends(
    package: ModelPackage, graph: OpenedGraph, against: Sequence[str], checkpoint: str | None
) -> tuple[list[BenchBackend], list[str]]:
    """Return (backends that can run this package, notes on those that cannot)."""
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


def _compare(name: str, ours: Seconds, theirs: Seconds, our_logits: Logits, their_logits: Logits) -> Comparison:
    if our_logits.shape != their_logits.shape:
        raise PackageError(
            f"{name} gave logits of shape {their_logits.shape}, the runtime {our_logits.shape}: not the same model"
        )
    p10, median, p90 = spread(theirs / ours, digits=3)
    return Comparison(name, median, p10, p90, float(np.abs(our_logits - their_logits).max()))
