"""Calls measured in turns, so that whatever else the machine does falls on all of them."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from mlic_runtime.base.arrays import Logits, Pixels, Seconds, Tokens
from mlic_runtime.base.machine import machine_facts
from mlic_runtime.errors import InputError
from mlic_runtime.providers.library import onnxruntime

from .inputs import Feed

Run: TypeAlias = Callable[[Pixels, Tokens | None, Tokens | None], Logits]

_Result = TypeVar("_Result")


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


def describe_machine() -> dict[str, str | int]:
    """As `cpus.machine_facts`, and the versions of what computes."""
    return {
        **machine_facts(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
