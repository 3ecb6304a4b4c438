"""How long a run takes here, measured in turns, and which precision is worth its loss."""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .cpus import available_cpus, machine_facts, processor_name
from .errors import InputError
from .feed import Feed, Tokens
from .image import Pixels
from .manifest import PRECISIONS, LatencySpec
from .ort import onnxruntime
from .session import GraphSession

WORTH_IT = 0.05  # the share of the median time that a less exact precision must save
BUSY = 0.5  # load average for each CPU above which a machine counts as busy

Logits: TypeAlias = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Pixels, Tokens, Tokens], Logits]
Seconds: TypeAlias = npt.NDArray[np.float64]
_Result = TypeVar("_Result")


def measure_latency(
    sessions: Mapping[str, GraphSession],
    feed: Feed,
    *,
    runs: int = 50,
    warmup: int = 10,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, LatencySpec]:
    """Measure the graphs of a model package against each other.

    Args:
        sessions: {precision: the loaded graph}.
        feed: one picture, with a caption if the graphs read one.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        progress: called after every round, warm-up included.

    Returns:
        {precision: wall time of a run}, in the order of `sessions`.

    Raises:
        InputError: `runs` or `warmup` is below 1.
        PackageError: a graph failed.
        ValueError: the feed has more than one row.
    """
    if len(feed.pixels) != 1:
        raise ValueError(f"a latency is that of one picture, found {len(feed.pixels)} rows")
    seconds, _ = time_in_turns([session.run for session in sessions.values()], feed, runs, warmup, progress)
    return {
        precision: LatencySpec(processor_name(), session.threads, runs, *milliseconds(row, 50, 90))
        for (precision, session), row in zip(sessions.items(), seconds, strict=True)
    }


def fastest(latency: Mapping[str, LatencySpec], order: Sequence[str] = PRECISIONS) -> str:
    """The precision to run: the most exact one stands, unless a less exact one earns its place.

    From the most exact to the least, a precision replaces the best so far if its median is lower by WORTH_IT or more.

    Args:
        latency: {precision: what was measured}, at least one.
        order: precisions, the most exact first; all of `latency` are among them.

    Raises:
        ValueError: nothing was measured, or a precision that is not in `order`.
    """
    if not latency or not latency.keys() <= set(order):
        raise ValueError(f"measured must be at least one of {', '.join(order)}; found {', '.join(latency) or 'none'}")
    best, *others = (precision for precision in order if precision in latency)
    for precision in others:
        if latency[precision].p50_ms <= latency[best].p50_ms * (1 - WORTH_IT):
            best = precision
    return best


def time_in_turns(
    backends: Sequence[Run], feed: Feed, runs: int, warmup: int, progress: Callable[[], object]
) -> tuple[Seconds, list[Logits]]:
    """Run every backend once in each round, one after the other (A B A B ...).

    So whatever else the machine does falls on all of them.

    Returns:
        Wall time in seconds, (number of backends, runs), and the logits (B, L) of each backend in the last round.

    Raises:
        InputError: `runs` or `warmup` is below 1.
        MlicError: a backend failed.
    """
    calls = [functools.partial(run, *feed.arrays) for run in backends]
    return call_in_turns(calls, runs, warmup, progress)


def call_in_turns(
    calls: Sequence[Callable[[], _Result]], runs: int, warmup: int, progress: Callable[[], object]
) -> tuple[Seconds, list[_Result]]:
    """As `time_in_turns`, for whatever can be called: wall time in seconds, (number of calls, runs), and last results.

    Raises:
        InputError: `runs` or `warmup` is below 1.
    """
    require_positive(runs=runs, warmup=warmup)
    seconds = np.empty((len(calls), runs), dtype=np.float64)
    results: list[_Result] = []
    for turn in range(-warmup, runs):
        results = []
        for index, call in enumerate(calls):
            start = time.perf_counter()
            result = call()
            elapsed = time.perf_counter() - start
            results.append(result)
            if turn >= 0:
                seconds[index, turn] = elapsed
        progress()
    return seconds, results


def milliseconds(seconds: Seconds, *percentiles: int) -> tuple[float, ...]:
    """These percentiles of times in seconds, in milliseconds, to 0.1 microseconds."""
    return tuple(round(float(value) * 1000, 4) for value in np.percentile(seconds, percentiles))


def require_positive(**counts: int) -> None:
    """Refuse numbers below 1.

    Raises:
        InputError: the first of them, by name.
    """
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} must be 1 or more, found {value}")


def busy_notes() -> tuple[str, ...]:
    """A warning if other work keeps this machine busy, to be asked for before measuring; else nothing.

    Busy is a load average of the last minute above BUSY for each CPU that this process may use. Windows has no load
    average. In a container the load is that of the whole machine, so this warns too often rather than too seldom.
    """
    if not hasattr(os, "getloadavg"):
        return ()
    load, cpus = os.getloadavg()[0], available_cpus()
    if load <= BUSY * cpus:
        return ()
    return (
        f"the machine is busy: load average {load:.1f} in the last minute, more than {BUSY} for each of "
        f"{cpus} CPUs; trust ratios rather than times",
    )


def describe_machine() -> dict[str, str | int]:
    """As `cpus.machine_facts`, and the versions of what computes."""
    return {
        **machine_facts(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
