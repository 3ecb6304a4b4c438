"""The plan for very many pictures in benchmarks/, of which the page growth.md is made."""

import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results"
MEASURED = ("stages-int8-threads1-2cpu-xeon.json", "batch-2cpu-xeon.json", "growth-2cpu-xeon.json")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("planner_model")


@pytest.fixture
def makespan(model: Any) -> Any:
    return importlib.import_module("makespan")


@pytest.fixture
def workload(model: Any) -> Any:
    return model.read_workload(*(RESULTS / name for name in MEASURED))


@pytest.fixture
def inputs(model: Any) -> Any:
    return model.read_inputs(BENCHMARKS / "instances.toml")


def test_more_nodes_are_never_slower_and_more_pictures_never_faster(model: Any, workload: Any, inputs: Any) -> None:
    for instance in inputs.instances:
        for pictures in (1e5, 1e6, 1e7):
            times = [model.plan(workload, inputs, instance, nodes, pictures).seconds for nodes in range(1, 65)]
            assert times == sorted(times, reverse=True)
        times = [model.plan(workload, inputs, instance, 16, 10.0**exponent).seconds for exponent in range(2, 10)]
        assert times == sorted(times)


def test_money_is_proportional_to_prices_and_to_very_many_pictures(model: Any, workload: Any, inputs: Any) -> None:
    for instance in inputs.instances:
        million, billion, thousand = (model.plan(workload, inputs, instance, 1, each) for each in (1e6, 1e9, 1e12))
        assert thousand.dollars == pytest.approx(1000 * billion.dollars, rel=1e-3)
        assert million.dollars * 1000 > billion.dollars  # the start and the end cost once
        dear = instance._replace(dollars_per_hour=2 * instance.dollars_per_hour)
        free = inputs._replace(store=inputs.store._replace(dollars_per_million_requests=0.0))
        four = model.plan(workload, free, instance, 4, 1e6)
        assert four.dollars == pytest.approx(4 * instance.dollars_per_hour * four.seconds / 3600)
        prices = [model.plan(workload, free, each, 4, 1e6).dollars for each in (instance, dear)]
        assert prices[1] == pytest.approx(2 * prices[0])


def test_what_limits_is_what_is_made_slow(model: Any, workload: Any, inputs: Any) -> None:
    instance, store = inputs.instances[0], inputs.store
    assert model.limit(model.node_ms(workload, store._replace(reads_per_cpu=100), instance)) == "CPU"
    assert model.limit(model.node_ms(workload, store, instance._replace(network_gbit=0.01))) == "network"
    assert model.limit(model.node_ms(workload, store._replace(latency_ms=1e3), instance)) == "waiting for the store"
    assert model.limit(model.cluster_ms(workload, store._replace(requests_per_second=10))) == "requests"
    assert model.limit(model.cluster_ms(workload, store._replace(requests_per_second=1e9))) == "reader"


def test_beyond_the_useful_nodes_another_one_gains_nothing(model: Any, workload: Any, inputs: Any) -> None:
    instance = inputs.instances[1]
    useful = model.useful_nodes(workload, inputs.store, instance)
    times = [model.plan(workload, inputs, instance, nodes, 1e9).seconds for nodes in (1, math.ceil(useful) + 1, 1000)]
    assert times[0] > 1.9 * times[1]
    assert times[1] == times[2]


def test_a_faster_cpu_is_used(model: Any, workload: Any, inputs: Any) -> None:
    slow, fast = (
        model.node_ms(workload, inputs.store, inputs.instances[0]._replace(speed=speed)) for speed in (1.0, 2.0)
    )
    assert fast["CPU"] == pytest.approx(slow["CPU"] / 2)
    assert fast["network"] == slow["network"]


@pytest.mark.parametrize(("nodes", "slots", "blocks"), [(1, 1, 50), (1, 16, 400), (8, 4, 1000), (16, 8, 3000)])
def test_without_losses_the_simulation_is_within_3_percent_of_the_formula(
    makespan: Any, nodes: int, slots: int, blocks: int
) -> None:
    cluster = makespan.Cluster(nodes, slots, block_seconds=4.0, sigma=0.14)
    seconds = [makespan.simulate(cluster, blocks, seed).seconds for seed in range(4)]
    assert sum(seconds) / 4 == pytest.approx(makespan.expected_seconds(cluster, blocks), rel=0.03)


def test_with_losses_it_is_within_5_percent_and_repeats_what_was_under_way(makespan: Any) -> None:
    cluster = makespan.Cluster(8, 4, block_seconds=4.0, sigma=0.3, losses_per_hour=6.0, back_seconds=60.0)
    outcomes = [makespan.simulate(cluster, 4000, seed) for seed in range(6)]
    assert all(outcome.losses > 0 for outcome in outcomes)
    assert all(0 < outcome.repeated <= 4 * outcome.losses for outcome in outcomes)
    mean = sum(outcome.seconds for outcome in outcomes) / 6
    assert mean == pytest.approx(makespan.expected_seconds(cluster, 4000), rel=0.05)
    whole = cluster._replace(losses_per_hour=0.0)
    assert mean > makespan.expected_seconds(whole, 4000) * 1.05


def test_blocks_that_never_vary_take_whole_rounds(makespan: Any) -> None:
    cluster = makespan.Cluster(2, 2, block_seconds=1.0, sigma=0.0)
    assert [makespan.simulate(cluster, blocks, 0).seconds for blocks in (1, 4, 5, 8, 9)] == [1.0, 1.0, 2.0, 2.0, 3.0]


def test_a_simulation_is_a_function_of_its_seed(makespan: Any) -> None:
    cluster = makespan.Cluster(4, 4, 4.0, 0.3, 20.0, 30.0)
    assert makespan.simulate(cluster, 300, 1) == makespan.simulate(cluster, 300, 1)
    assert makespan.simulate(cluster, 300, 1) != makespan.simulate(cluster, 300, 2)


def test_the_page_has_what_the_planner_says(model: Any, workload: Any, inputs: Any) -> None:
    planner = importlib.import_module("planner")
    page = (BENCHMARKS / "growth.md").read_text(encoding="utf-8")
    assert planner.measured(RESULTS / MEASURED[-1]) in page
    assert planner.ray(RESULTS / MEASURED[-1]) in page
    assert planner.used(workload, inputs) in page
    assert planner.machines(workload, inputs) in page
    assert planner.machines(workload, planner.in_files(inputs)) in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "KeyError: 'instance'"),
        ("no TOML", "expected what instances.toml has"),
        ("{instances}\n[more]\n", "unknown: more"),
        ('{instances}\n[[instance]]\nname = "x"\ncores = 1\n', "unexpected keyword argument 'cores'"),
    ],
)
def test_inputs_that_are_something_else_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content.replace("{instances}", (BENCHMARKS / "instances.toml").read_text()))
    command = [sys.executable, str(BENCHMARKS / "planner.py"), "--inputs", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {file}: ")
    assert message in done.stderr
