"""Calls measured in turns, so that other work of the machine affects all of them alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from mlic_runtime.base.arrays import Seconds
from mlic_runtime.base.machine import machine_facts
from mlic_runtime.predict.prediction import check_count
from mlic_runtime.providers.library import onnxruntime

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Report:
    """What was measured, how, and where; the base of all reports."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same content, ready for `json.dumps`."""
        return asdict(self)


def call_in_turns(
    calls: Sequence[Callable[[], _Result]], runs: int, warmup: int, progress: Callable[[], object]
) -> tuple[Seconds, list[_Result]]:
    """Make every call once in each round, one after the other (A B A B ...).

    Args:
        calls: functions without arguments.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        progress: called after every round, warm-up included.

    Returns:
        Wall time in seconds, (number of calls, runs), and the result of each call in the last round.

    Raises:
        InputError: `runs` or `warmup` is below 1.
    """
    check_count("runs", runs)
    check_count("warmup", warmup)
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
    """Return percentiles of times in seconds, in milliseconds, rounded to 0.1 microseconds."""
    return tuple(round(float(value) * 1000, 4) for value in np.percentile(seconds, percentiles))


def spread(ratios: Seconds, digits: int) -> tuple[float, float, float]:
    """Return the 10th percentile, the median and the 90th percentile, rounded."""
    p10, p50, p90 = (round(float(ratio), digits) for ratio in np.percentile(ratios, (10, 50, 90)))
    return p10, p50, p90


def describe_machine() -> dict[str, str | int]:
    """Return `machine.machine_facts`, and the versions of the libraries that compute."""
    return {
        **machine_facts(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
