"""How long a run takes here, measured in turns, and which precision is worth its loss."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from .errors import InputError
from .feed import Feed, Tokens
from .image import Pixels
from .manifest import PRECISIONS, LatencySpec
from .providers import available_cpus, processor_name
from .session import GraphSession

WORTH_IT = 0.05  # the share of the median time that a less exact precision must save

Logits: TypeAlias = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Pixels, Tokens, Tokens], Logits]
Seconds: TypeAlias = npt.NDArray[np.float64]


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
    require_positive(runs=runs, warmup=warmup)
    seconds = np.empty((len(backends), runs), dtype=np.float64)
    logits: list[Logits] = []
    for turn in range(-warmup, runs):
        logits = []
        for index, run in enumerate(backends):
            start = time.perf_counter()
            result = run(*feed.arrays)
            elapsed = time.perf_counter() - start
            logits.append(result)
            if turn >= 0:
                seconds[index, turn] = elapsed
        progress()
    return seconds, logits


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


def describe_machine() -> dict[str, str | int]:
    """What a reader of a measurement must know about where it was made."""
    return {
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpus": available_cpus(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
