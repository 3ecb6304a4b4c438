"""How long a cluster takes for many pictures: a formula, and a simulation of slow blocks and lost nodes to check it.

The rows come in blocks, and every slot (a CPU with its worker) takes the next block when it is done with one, as
`mlic-infer --engine ray` lets it. How long a block takes is log-normal. When a node is lost, the blocks that its slots
had begun go back into the queue, and after a while another node takes its place.
"""

import functools
import heapq
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NORMAL = NormalDist()
_STEPS = 4000  # of the numerical integral


class Cluster(NamedTuple):
    """What works on the blocks.

    `block_seconds` is the mean of a block, `sigma` the standard deviation of its logarithm, `back_seconds` how long a
    lost node is away.
    """

    nodes: int
    slots: int  # of each node
    block_seconds: float
    sigma: float
    losses_per_hour: float = 0.0  # of each node
    back_seconds: float = 0.0


class Outcome(NamedTuple):
    """Seconds until the last block is done, nodes lost until then, and blocks that were begun again."""

    seconds: float
    losses: int
    repeated: int


def sigma_of(p50: float, p90: float) -> float:
    """The standard deviation of the logarithm of a log-normal time with these quantiles."""
    return math.log(p90 / p50) / _NORMAL.inv_cdf(0.9)


def lost_share(cluster: Cluster, seconds: float) -> float:
    """Of a job that takes so many seconds: what losses cost for each second of work.

    A loss costs the node's absence, or what is left of the job (on average half of it, in a short one), and what the
    slots had done of their blocks. A block that is under way at a random moment is longer than most, and half done:
    E[S^2] / (2 E[S]) seconds.
    """
    away = min(cluster.back_seconds, seconds)
    away -= away**2 / (2 * seconds)
    age = cluster.block_seconds * math.exp(cluster.sigma**2) / 2
    return cluster.losses_per_hour / 3600 * (away + age)


def expected_seconds(cluster: Cluster, blocks: int) -> float:
    """The formula.

    When the queue is empty, every slot still has a block under way, with a residual time R. All work is what the slots
    did until then plus their R, and the last one ends it: blocks E[S] (1 + lost) / slots + E[largest R] - E[R]. Where
    there are no more blocks than slots, it is E[largest S] (1 + lost).
    """
    slots = cluster.nodes * cluster.slots
    shared = max(1.0, blocks / slots) * cluster.block_seconds
    lost = 1 + lost_share(cluster, shared)
    if blocks <= slots:
        return _largest(cluster, blocks, residual=False) * lost
    return shared * lost + _largest(cluster, slots, residual=True) - _largest(cluster, 1, residual=True)


def simulate(cluster: Cluster, blocks: int, seed: int) -> Outcome:
    """Run the blocks once, event by event."""
    return _Simulation(cluster, blocks, np.random.default_rng(seed)).run()


def _largest(cluster: Cluster, number: int, *, residual: bool) -> float:
    """The expected largest of so many times of a block, or residual times; seconds."""
    distribution, step = _distribution(cluster.sigma, residual)
    return cluster.block_seconds * float(np.sum(1 - distribution**number)) * step


@functools.cache
def _distribution(sigma: float, residual: bool) -> tuple[NDArray[np.float64], float]:
    """That of a time with mean 1, or of what is left of it at a random moment, at 0, step, 2 step, ...; and the step.

    The second is F_R(x) = (x (1 - F(x)) + E[S; S <= x]) / E[S], with the log-normal's F and partial mean.
    """
    sigma = max(sigma, 1e-6)
    x, step = np.linspace(0, math.exp(sigma * (sigma + 6)), _STEPS, retstep=True)
    z = (np.log(np.maximum(x, 1e-300)) + sigma**2 / 2) / sigma
    found = x * (1 - _cdf(z)) + _cdf(z - sigma) if residual else _cdf(z)
    return np.clip(found, 0, 1), float(step)


def _median(cluster: Cluster) -> float:
    return cluster.block_seconds * math.exp(-(cluster.sigma**2) / 2)


def _cdf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_NORMAL.cdf(value) for value in z])


class _Simulation:
    def __init__(self, cluster: Cluster, blocks: int, random: np.random.Generator) -> None:
        self._cluster, self._blocks, self._random = cluster, blocks, random
        self._median = _median(cluster)
        self._waiting, self._done, self._losses, self._repeated = blocks, 0, 0, 0
        self._life = [0] * cluster.nodes  # of each node; what an earlier life had begun does not count any more
        self._busy = [0] * cluster.nodes
        self._idle: list[tuple[int, int]] = []  # node and life, once for each slot
        self._events: list[tuple[float, int, str, int, int]] = []
        self._number = 0

    def run(self) -> Outcome:
        for node in range(self._cluster.nodes):
            self._arrive(0.0, node)
        while True:
            time, _, what, node, life = heapq.heappop(self._events)
            if what == "arrive":
                self._arrive(time, node)
            elif life != self._life[node]:
                continue
            elif what == "lose":
                self._lose(time, node)
            else:
                self._busy[node] -= 1
                self._done += 1
                if self._done == self._blocks:
                    return Outcome(time, self._losses, self._repeated)
                self._idle.append((node, life))
            self._give(time)

    def _arrive(self, time: float, node: int) -> None:
        self._idle += [(node, self._life[node])] * self._cluster.slots
        if self._cluster.losses_per_hour:
            self._push(time + self._random.exponential(3600 / self._cluster.losses_per_hour), "lose", node)
        self._give(time)

    def _lose(self, time: float, node: int) -> None:
        self._losses += 1
        self._repeated += self._busy[node]
        self._waiting += self._busy[node]
        self._busy[node] = 0
        self._life[node] += 1
        self._push(time + self._cluster.back_seconds, "arrive", node)

    def _give(self, time: float) -> None:
        """Blocks that wait to slots that do."""
        while self._waiting and self._idle:
            node, life = self._idle.pop()
            if life == self._life[node]:
                self._waiting -= 1
                self._busy[node] += 1
                self._push(time + self._median * math.exp(self._cluster.sigma * self._random.normal()), "done", node)

    def _push(self, time: float, what: str, node: int) -> None:
        self._number += 1  # events of the same moment in the order in which they were made
        heapq.heappush(self._events, (time, self._number, what, node, self._life[node]))
