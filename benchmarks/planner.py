"""What very many pictures cost on machines that we do not have: a model from measured numbers, checked by a simulation.

    python benchmarks/planner.py [--inputs FILE.toml] [--markdown benchmarks/growth.md]

What is measured comes from `results/` (stages, batch, growth); what is not (prices, networks, the object store) from
the inputs, which are examples: write your own like `instances.toml`. --markdown writes the tables between the two marks
of a page.
"""

import json
import math
import statistics
from pathlib import Path

import click
from makespan import Cluster, expected_seconds, lost_share, simulate
from planner_model import (
    Inputs,
    Instance,
    Workload,
    cluster_ms,
    limit,
    make_cluster,
    node_ms,
    plan,
    read_inputs,
    read_overheads,
    read_workload,
    useful_nodes,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
BEGIN, END = "<!-- planner.py writes from here -->\n", "<!-- to here -->\n"
SIZES = ((1, 1e6), (4, 1e6), (16, 1e6), (64, 1e6), (4, 1e7), (64, 1e7))  # nodes and pictures that are simulated
SIMULATED_CPUS, LOSSES, SEEDS = 16, (0.0, 1.0), 10
_MILLION, _BILLION = 1e6, 1e9


def table(header: str, rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {header} |", "|" + "---|" * (header.count("|") + 1), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def machines(workload: Workload, inputs: Inputs) -> str:
    """What a picture takes on each kind of machine, and what very many cost on as many as are useful."""
    rows, shared = [], limit(cluster_ms(workload, inputs.store))
    heavy = limit({"decode": workload.decode_ms, "graph": workload.graph_ms, "tokens": workload.other_ms})
    for instance in inputs.instances:
        times = node_ms(workload, inputs.store, instance)
        useful = useful_nodes(workload, inputs.store, instance)
        nodes = max(1, min(inputs.job.nodes, math.floor(useful)))
        million, billion = (plan(workload, inputs, instance, nodes, each) for each in (_MILLION, _BILLION))
        memory = workload.worker_mb * instance.cpus / 1e3
        rows.append(
            [
                instance.name,
                *(f"{value:.3f}" for value in times.values()),
                f"CPU: {heavy}" if limit(times) == "CPU" else limit(times),
                f"{1e3 / max(times.values()):.0f}",
                f"{memory:.0f} of {instance.memory_gib * 2**30 / 1e9:.0f}",
                f"{useful:.1f}, then {shared}",
                str(nodes),
                f"{million.seconds / 60:.1f}",
                f"{million.dollars:.2f}",
                f"{billion.seconds / 3600:.1f}",
                f"{billion.dollars:.0f}",
            ]
        )
    return table(
        "machine | CPU, ms | network, ms | waiting for the store, ms | limit | pictures/s | memory, GB | "
        "useful nodes | nodes | 10^6: minutes | $ | 10^9: hours | $",
        rows,
    )


def in_files(inputs: Inputs) -> Inputs:
    """The same where the input is files that hold a block of pictures each."""
    return inputs._replace(store=inputs.store._replace(pictures_per_request=inputs.job.rows_per_block))


def simulations(workload: Workload, inputs: Inputs) -> str:
    """The formula against the simulation, for several sizes of a cluster, without and with losses."""
    instance = Instance("", SIMULATED_CPUS, 0, math.inf, 0)
    rows = []
    for (nodes, pictures), losses in ((size, each) for size in SIZES for each in LOSSES):
        cluster = make_cluster(workload, inputs, instance, nodes, losses)
        blocks = math.ceil(pictures / inputs.job.rows_per_block)
        formula = expected_seconds(cluster, blocks)
        outcomes = [simulate(cluster, blocks, seed) for seed in range(SEEDS if losses else 3)]
        seconds = [outcome.seconds for outcome in outcomes]
        mean = statistics.mean(seconds)
        rows.append(
            [
                str(nodes),
                f"{pictures:.0e}".replace("e+0", "0^"),
                f"{losses:g}",
                f"{formula:.1f}",
                f"{mean:.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
                f"{(formula / mean - 1) * 100:+.1f} %",
                f"{statistics.mean(outcome.losses for outcome in outcomes):.1f}",
                f"{statistics.mean(outcome.repeated for outcome in outcomes):.1f}",
            ]
        )
    header = (
        "nodes | pictures | losses per node and hour | formula, s | simulated, s | error | nodes lost | blocks repeated"
    )
    return table(header, rows)


def measured(growth: Path) -> str:
    """What `growth.py` measured, the last time for each combination."""
    found: dict[tuple[str, str, int, int], list[str]] = {}
    for run in json.loads(growth.read_text(encoding="utf-8"))["runs"]:
        busy = run["load_average_before"] > 0.5 * run["machine"]["cpus"]
        for each in run["measurements"]:
            name = f"{run['model']} {run['precision']}"
            found[name, each["engine"], each["workers"], each["rows"]] = [
                name,
                each["engine"],
                str(each["workers"]),
                f"{each['rows']:,}",
                f"{each['pictures_per_second']:.1f}" + (" (busy)" if busy else ""),
                f"{each['cpu_ms_per_picture']:.2f}",
                f"{each['peak_mb']:.0f}",
            ]
    header = "package | engine | workers | rows | pictures/s, start included | CPU-ms for each | peak memory, MB"
    return table(header, [found[key] for key in sorted(found)])


def ray(growth: Path) -> str:
    """What the engine `ray` costs beside the local one."""
    rows = [
        [
            each.model,
            str(each.workers),
            f"{each.picture_ms:+.2f}",
            f"{each.start_seconds:+.1f}",
            f"{each.start_cpu_seconds:+.1f}",
            f"{each.memory_mb:+.0f}",
            f"{each.throughput:.2f} at {each.rows:,} rows",
        ]
        for each in read_overheads(growth)
    ]
    return table(
        "package | workers | CPU-ms for each picture | seconds, once | CPU-seconds, once | memory, MB | "
        "throughput, of the local engine's",
        rows,
    )


def used(workload: Workload, inputs: Inputs) -> str:
    """The numbers that the rest is made from."""
    total = workload.decode_ms + workload.graph_ms + workload.other_ms
    loss = lost_share(Cluster(1, 1, 1.0, 0.0, inputs.job.losses_per_node_hour, inputs.job.back_seconds), 3600)
    engine = "not measured here" if workload.engine_ms is None else f"{workload.engine_ms:.2f} ms of a CPU"
    job, store = inputs.job, inputs.store
    return table(
        "what | value | from",
        [
            ["read and scale a picture", f"{workload.decode_ms:.2f} ms of a CPU", "stages"],
            ["the graph", f"{workload.graph_ms:.2f} ms of a CPU, {workload.graph_ms / total:.0%} of all", "stages"],
            ["tokens, thresholds", f"{workload.other_ms:.2f} ms of a CPU", "stages"],
            ["spread of a time", f"log-normal, sigma {workload.sigma:.3f}", "stages: p50 and p90 of a prediction"],
            ["a batch run against its stages", f"{workload.efficiency:.3f} of their throughput", "batch"],
            ["Ray, for each picture", engine, "growth"],
            ["read a row of a CSV file", f"{workload.reader_ms * 1e3:.1f} us of one process's CPU", "growth"],
            ["a picture", f"{workload.picture_bytes / 1e3:.1f} kB", "growth: 640x480 JPEG, quality 90"],
            ["a worker's memory", f"{workload.worker_mb:.0f} MB", "growth: batches of 32"],
            [
                "a request to the store",
                f"{store.latency_ms:g} ms, {store.reads_per_cpu:g} at once for each CPU",
                "input",
            ],
            ["requests to the store", f"{store.requests_per_second:g} a second", "input"],
            ["price of a million requests", f"${store.dollars_per_million_requests:.2f}", "input"],
            [
                "losses",
                f"{job.losses_per_node_hour:g} for each node and hour, {job.back_seconds:g} s away: {loss:.2%} of time",
                "input",
            ],
            ["prices, networks", inputs.date, "input"],
        ],
    )


def write(page: Path, text: str) -> None:
    """Put a text between the marks of a page.

    Raises:
        click.ClickException: it has no such marks.
    """
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"{page} has not the two marks {BEGIN.strip()} and {END.strip()}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


@click.command()
@click.option("--inputs", "inputs_file", type=click.Path(exists=True, path_type=Path), default=HERE / "instances.toml")
@click.option(
    "--stages",
    type=click.Path(exists=True, path_type=Path),
    default=RESULTS / "stages-int8-threads1-2cpu-xeon.json",
    help="Of mlic-bench --stages --threads 1 --json.",
)
@click.option(
    "--batch",
    type=click.Path(exists=True, path_type=Path),
    default=RESULTS / "batch-2cpu-xeon.json",
    help="Of batch.py, with the same package.",
)
@click.option(
    "--growth",
    type=click.Path(exists=True, path_type=Path),
    default=RESULTS / "growth-2cpu-xeon.json",
    help="Of growth.py, with the same package.",
)
@click.option("--markdown", type=click.Path(exists=True, path_type=Path), help="Write into this page.")
def main(inputs_file: Path, stages: Path, batch: Path, growth: Path, markdown: Path | None) -> None:
    """Plan for many pictures."""
    inputs, workload = read_inputs(inputs_file), read_workload(stages, batch, growth)
    parts = {
        "What was measured": measured(growth),
        "What Ray adds": ray(growth),
        "What the plan is made from": used(workload, inputs),
        "A request for each picture": machines(workload, inputs),
        f"Files that hold {inputs.job.rows_per_block} pictures": machines(workload, in_files(inputs)),
        "The formula against the simulation": simulations(workload, inputs),
    }
    text = "\n".join(f"### {title}\n\n{part}" for title, part in parts.items())
    if markdown is None:
        click.echo(text)
    else:
        write(markdown, text)


if __name__ == "__main__":
    main()
