import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_runtime.base import machine as cpus
from mlic_runtime.base.machine import available_cores, available_cpus

Topology = dict[int, dict[str, str]]


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 CPUs, no word about its cores, whose cgroup files lie in the returned folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(cpus, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(cpus, "_CPU_ROOT", tmp_path / "cpus")
    return tmp_path


@pytest.fixture
def machine(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Describe the CPUs as Linux does, {CPU: {file: content}}, and say on which of them this process may run."""

    def describe(topology: Topology, affinity: set[int] | None = None) -> None:
        for cpu, files in topology.items():
            folder = cgroup / "cpus" / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            for name, content in files.items():
                (folder / name).write_text(f"{content}\n")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(topology) if affinity is None else affinity)

    return describe


# Four cores with two threads each, numbered as most machines do (0 and 4 are one core), and as others do (0 and 1 are).
APART: Topology = {cpu: {"core_cpus_list": f"{cpu % 4},{cpu % 4 + 4}"} for cpu in range(8)}
ADJACENT: Topology = {cpu: {"core_cpus_list": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}"} for cpu in range(8)}
# Two sockets with two cores each, two threads a core; the numbers of cores begin anew in the second socket.
SOCKETS: Topology = {
    cpu: {
        "physical_package_id": str(cpu // 2 % 2),
        "core_id": str(cpu % 2),
        "thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}",
    }
    for cpu in range(8)
}


# --- logical CPUs and their limits


def test_without_a_limit_the_affinity_counts(cgroup: Path) -> None:
    assert available_cpus() == 8


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("1000000 100000", 8)]
)
def test_the_limit_of_the_container_counts(cgroup: Path, limit: str, expected: int) -> None:
    (cgroup / "cpu.max").write_text(f"{limit}\n")
    assert available_cpus() == expected


def test_the_smallest_limit_on_the_way_up_counts(cgroup: Path) -> None:
    (cgroup / "own").write_text("0::/outer/inner\n")
    (cgroup / "outer" / "inner").mkdir(parents=True)
    (cgroup / "outer" / "inner" / "cpu.max").write_text("400000 100000")
    (cgroup / "outer" / "cpu.max").write_text("300000 100000")
    assert available_cpus() == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("200000", 2)])
def test_the_older_kind_of_limit_counts(cgroup: Path, quota: str, expected: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus() == expected


def test_where_python_knows_no_affinity_the_cpus_are_counted(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert (available_cpus(), available_cores()) == (5, 5)


# --- physical cores


def test_the_threads_of_a_core_count_once(machine: Callable[..., None]) -> None:
    machine(APART)
    assert (available_cores(), available_cpus()) == (4, 8)


def test_neighbours_may_be_the_threads_of_a_core(machine: Callable[..., None]) -> None:
    machine(ADJACENT)
    assert (available_cores(), available_cpus()) == (4, 8)


@pytest.mark.parametrize(
    ("affinity", "cores"),
    [
        ({0, 1, 2, 3}, 4),  # one thread of each core
        ({4, 5, 6, 7}, 4),  # the other
        ({0, 4}, 1),  # one core
        ({0, 1, 4}, 2),
        ({6}, 1),
    ],
)
def test_only_cores_on_which_this_process_may_run_count(
    machine: Callable[..., None], affinity: set[int], cores: int
) -> None:
    machine(APART, affinity)
    assert (available_cores(), available_cpus()) == (cores, len(affinity))


@pytest.mark.parametrize("missing", [(), ("thread_siblings_list",)])
def test_both_sockets_count(machine: Callable[..., None], missing: tuple[str, ...]) -> None:
    machine(
        {cpu: {name: text for name, text in files.items() if name not in missing} for cpu, files in SOCKETS.items()}
    )
    assert available_cores() == 4


def test_the_newer_name_of_the_siblings_comes_first(machine: Callable[..., None]) -> None:
    machine(
        {
            cpu: {"core_cpus_list": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}", "thread_siblings_list": "0-3"}
            for cpu in range(4)
        }
    )
    assert available_cores() == 2


@pytest.mark.parametrize("limit", ["150000 100000", "200000 100000"])
def test_the_limit_of_the_container_caps_the_cores(machine: Callable[..., None], cgroup: Path, limit: str) -> None:
    machine(APART)
    (cgroup / "cpu.max").write_text(limit)
    assert (available_cores(), available_cpus()) == (2, 2)


def test_a_limit_above_the_cores_leaves_them(machine: Callable[..., None], cgroup: Path) -> None:
    machine(APART)
    (cgroup / "cpu.max").write_text("600000 100000")
    assert (available_cores(), available_cpus()) == (4, 6)


def test_where_the_cores_are_not_described_each_cpu_is_one(cgroup: Path) -> None:
    assert available_cores() == 8


@pytest.mark.parametrize("text", ["", "all", "0-", "-1", "0-1-", "0;1", "0,,1", "9-12", "é"])
def test_a_malformed_list_of_siblings_is_passed_over(machine: Callable[..., None], text: str) -> None:
    both = {"core_cpus_list": text, "physical_package_id": "0"}
    machine({cpu: {**both, "core_id": str(cpu // 2)} for cpu in range(4)})
    assert available_cores() == 2


@pytest.mark.parametrize(("package", "core"), [("-1", "0"), ("0", "-1"), ("", "0"), ("0", "x")])
def test_an_unknown_package_or_core_makes_no_two_cpus_one(
    machine: Callable[..., None], package: str, core: str
) -> None:
    machine({cpu: {"physical_package_id": package, "core_id": core} for cpu in range(4)})
    assert available_cores() == 4


def test_a_machine_whose_cores_differ(machine: Callable[..., None]) -> None:
    """Two cores with two threads, and four with one."""
    lists = ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]
    machine({cpu: {"core_cpus_list": siblings} for cpu, siblings in enumerate(lists)})
    assert available_cores() == 6
