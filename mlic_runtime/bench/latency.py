"""Latency of the graphs of a model package on this machine, and which precision is worth its loss."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from mlic_runtime.base.machine import processor_name
from mlic_runtime.graph.session import GraphSession
from mlic_runtime.package.manifest import PRECISIONS, LatencySpec

from .inputs import BenchInputs
from .timing import call_in_turns, milliseconds

WORTH_IT = 0.05  # the share of the median time that a less exact precision, or another provider, must save

_Key = TypeVar("_Key", bound=Hashable)


def measure_latency(
    sessions: Mapping[_Key, GraphSession],
    inputs: BenchInputs,
    *,
    runs: int = 50,
    warmup: int = 10,
    progress: Callable[[], object] = lambda: None,
) -> dict[_Key, LatencySpec]:
    """Measure the graphs of a model package against each other.

    Args:
        sessions: {precision, or any other name: the loaded graph}.
        inputs: one picture, with a caption if the graphs read one.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        progress: called after every round, warm-up included.

    Returns:
        {name: wall time of a run}, in the order of `sessions`.

    Raises:
        InputError: `runs` or `warmup` is below 1.
        PackageError: a graph failed.
        ValueError: the inputs have more than one row.
    """
    if len(inputs.pixels) != 1:
        raise ValueError(f"a latency is that of one picture, found {len(inputs.pixels)} rows")
    calls = [functools.partial(session.run, *inputs.arrays) for session in sessions.values()]
    seconds, _ = call_in_turns(calls, runs, warmup, progress)
    return {
        name: LatencySpec(processor_name(), session.threads, runs, *milliseconds(row, 50, 90))
        for (name, session), row in zip(sessions.items(), seconds, strict=True)
    }


def fastest(latency: Mapping[str, LatencySpec], order: Sequence[str] = PRECISIONS) -> str:
    """Return the precision to run: the most exact one, unless a less exact one is clearly faster.

    From the most exact to the least, a precision replaces the best so far if its median is lower by WORTH_IT or more.
    Providers are chosen in the same way, ONNX Runtime's "cpu" first.

    Args:
        latency: {precision: its measurement}, at least one.
        order: precisions, the most exact first; all of `latency` are among them.

    Raises:
        ValueError: `latency` is empty, or has a precision that is not in `order`.
    """
    if not latency or not latency.keys() <= set(order):
        raise ValueError(f"measured must be at least one of {', '.join(order)}; found {', '.join(latency) or 'none'}")
    best, *others = (precision for precision in order if precision in latency)
    for precision in others:
        if latency[precision].p50_ms <= latency[best].p50_ms * (1 - WORTH_IT):
            best = precision
    return best
