"""What a picture takes on a machine that we do not have, what limits there first, and what very many cost.

Measured numbers are a `Workload`; what nobody measured (prices, networks, the object store) are `Inputs`.
"""

import importlib
import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import click
from makespan import Cluster, expected_seconds, sigma_of


class Workload(NamedTuple):
    """What a picture takes, measured on one CPU. Times in milliseconds of a CPU.

    `efficiency` is the throughput of a whole batch run over what the stages alone would give; `engine_ms` is what Ray
    adds, None where nobody measured it.
    """

    decode_ms: float
    graph_ms: float
    other_ms: float
    sigma: float
    efficiency: float
    picture_bytes: float
    reader_ms: float
    worker_mb: float
    engine_ms: float | None

    @property
    def cpu_ms(self) -> float:
        """All of it."""
        return (self.decode_ms + self.graph_ms + self.other_ms) / self.efficiency + (self.engine_ms or 0.0)


class Overhead(NamedTuple):
    """What Ray adds to the local engine: CPU time for each picture, time and CPU time once, memory; and what is left.

    `throughput` is that with Ray over that without, of whole jobs of `rows` rows.
    """

    model: str
    workers: int
    rows: int
    picture_ms: float
    start_seconds: float
    start_cpu_seconds: float
    throughput: float
    memory_mb: float


class Store(NamedTuple):
    """An object store; see `instances.toml`."""

    requests_per_second: float
    dollars_per_million_requests: float
    latency_ms: float
    reads_per_cpu: float
    pictures_per_request: float


class Job(NamedTuple):
    """How a cluster works; see `instances.toml`."""

    nodes: int
    rows_per_block: int
    losses_per_node_hour: float
    back_seconds: float
    start_seconds: float


class Instance(NamedTuple):
    """A machine; `speed` is that of its CPUs as a multiple of the measured one's."""

    name: str
    cpus: int
    memory_gib: float
    network_gbit: float
    dollars_per_hour: float
    speed: float = 1.0


class Inputs(NamedTuple):
    """What is not measured."""

    date: str
    store: Store
    job: Job
    instances: tuple[Instance, ...]


class Plan(NamedTuple):
    """What comes out for so many pictures."""

    seconds: float
    dollars: float


def read_inputs(file: Path) -> Inputs:
    """The inputs in a TOML file.

    Raises:
        click.ClickException: it has not what is needed, or something else.
    """
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        given = toml.loads(file.read_text(encoding="utf-8"))
        instances = tuple(Instance(**each) for each in given.pop("instance"))
        store, job = Store(**given.pop("store")), Job(**given.pop("cluster"))
        inputs = Inputs(given.pop("date"), store, job, instances)
        if given:
            raise KeyError(f"unknown: {', '.join(given)}")
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(
            f"{file}: {type(error).__name__}: {error}; expected what instances.toml has"
        ) from error
    return inputs


def read_workload(stages: Path, batch: Path, growth: Path) -> Workload:
    """What was measured."""
    report, whole = (json.loads(path.read_text(encoding="utf-8")) for path in (stages, batch))
    times = {stage["name"]: stage["p50_ms"] for stage in report["stages"]}
    total = sum(times.values())
    runs = json.loads(growth.read_text(encoding="utf-8"))["runs"]
    same = [run for run in runs if run["model"] == report["model"] and run["precision"] == report["precision"]]
    alone = [each for run in same for each in run["measurements"] if (each["engine"], each["workers"]) == ("local", 1)]
    package = f"{report['model']} {report['precision']}"
    overheads = [each.picture_ms for each in read_overheads(growth) if each.model == package]  # by workers
    return Workload(
        decode_ms=times["decode"] + times["preprocess"],
        graph_ms=times["run"],
        other_ms=times["tokenise"] + times["postprocess"],
        sigma=sigma_of(report["predict"]["p50_ms"], report["predict"]["p90_ms"]),
        efficiency=whole["pictures_per_second"]["batch"] * total / 1e3 / whole["machine"]["cpus"],
        picture_bytes=same[-1]["picture_bytes"],
        reader_ms=statistics.median(run["reader_us_per_row"] for run in same) / 1e3,
        worker_mb=max(each["peak_mb"] for each in alone),
        engine_ms=overheads[-1] if overheads else None,
    )


def read_overheads(growth: Path) -> list[Overhead]:
    """What Ray adds where both engines were measured with several numbers of rows, by package and number of workers."""
    found = []
    points: dict[tuple[str, int], dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for run in json.loads(growth.read_text(encoding="utf-8"))["runs"]:
        for each in run["measurements"]:
            points[f"{run['model']} {run['precision']}", each["workers"]][each["engine"]][each["rows"]] = each
    for (model, workers), engines in sorted(points.items()):
        rows = sorted(engines["local"].keys() & engines["ray"].keys())
        if len(rows) < 2:
            continue
        local, ray = ([engines[engine][number] for number in rows] for engine in ("local", "ray"))
        found.append(
            Overhead(
                model=model,
                workers=workers,
                rows=rows[-1],
                picture_ms=_slope(ray) - _slope(local),
                start_seconds=statistics.median(ray[0]["seconds"]) - statistics.median(local[0]["seconds"]),
                start_cpu_seconds=(ray[0]["cpu_ms_per_picture"] - local[0]["cpu_ms_per_picture"]) * rows[0] / 1e3,
                throughput=ray[-1]["pictures_per_second"] / local[-1]["pictures_per_second"],
                memory_mb=ray[-1]["peak_mb"] - local[-1]["peak_mb"],
            )
        )
    return found


def _slope(points: list[dict[str, Any]]) -> float:
    """CPU milliseconds that one more row takes, from the two largest numbers of rows: without the start."""
    (fewer, before), (more, after) = ((each["rows"], each["cpu_ms_per_picture"] * each["rows"]) for each in points[-2:])
    return float((after - before) / (more - fewer))


def node_ms(workload: Workload, store: Store, instance: Instance) -> dict[str, float]:
    """Milliseconds that a picture takes of each thing that a node has; the largest decides, for they work side by side.

    Decoding and the graph share the CPUs, so their times add up. A thread that reads waits for the store before it
    decodes, and there are `reads_per_cpu` for each CPU.
    """
    cpus = instance.cpus * instance.speed
    reading = store.latency_ms / store.pictures_per_request + workload.decode_ms / instance.speed
    return {
        "CPU": workload.cpu_ms / cpus,
        "network": workload.picture_bytes * 8 / (instance.network_gbit * 1e6),
        "waiting for the store": reading / (store.reads_per_cpu * instance.cpus),
    }


def cluster_ms(workload: Workload, store: Store) -> dict[str, float]:
    """Milliseconds that a picture takes of what all nodes share: the store's requests, and the one reader of rows."""
    return {
        "requests": 1e3 / (store.requests_per_second * store.pictures_per_request),
        "reader": workload.reader_ms,
    }


def limit(times: dict[str, float]) -> str:
    """What takes longest."""
    return max(times, key=lambda name: times[name])


def useful_nodes(workload: Workload, store: Store, instance: Instance) -> float:
    """How many nodes work until what they share is the limit."""
    return max(node_ms(workload, store, instance).values()) / max(cluster_ms(workload, store).values())


def plan(workload: Workload, inputs: Inputs, instance: Instance, nodes: int, pictures: float) -> Plan:
    """Time and money for so many pictures on so many nodes; start, slow blocks and losses included."""
    store, job = inputs.store, inputs.job
    cluster = make_cluster(workload, inputs, instance, nodes, job.losses_per_node_hour)
    blocks = math.ceil(pictures / job.rows_per_block)
    shared = max(cluster_ms(workload, store).values()) / 1e3 * pictures
    seconds = job.start_seconds + max(expected_seconds(cluster, blocks), shared)
    requests = pictures / store.pictures_per_request
    money = nodes * instance.dollars_per_hour * seconds / 3600 + requests / 1e6 * store.dollars_per_million_requests
    return Plan(seconds, money)


def make_cluster(workload: Workload, inputs: Inputs, instance: Instance, nodes: int, losses: float) -> Cluster:
    """The cluster of that many such nodes; a slot is a CPU."""
    picture = max(node_ms(workload, inputs.store, instance).values()) / 1e3 * instance.cpus
    seconds = picture * inputs.job.rows_per_block
    return Cluster(nodes, instance.cpus, seconds, workload.sigma, losses, inputs.job.back_seconds)
