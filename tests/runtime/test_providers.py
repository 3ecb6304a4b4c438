import os
from pathlib import Path

import pytest

from mlic_runtime import providers
from mlic_runtime.errors import ProviderError
from mlic_runtime.providers import AUTO_ORDER, PROVIDERS, available_cpus, candidates

CPU, CUDA, OPENVINO = PROVIDERS["cpu"], PROVIDERS["cuda"], PROVIDERS["openvino"]


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 CPUs whose cgroup files lie in the returned folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(providers, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(providers, "_OWN_CGROUP", tmp_path / "own")
    return tmp_path


def test_a_provider_that_is_offered_is_the_only_candidate() -> None:
    assert candidates("cuda", [CUDA, CPU]) == ("cuda",)


def test_auto_takes_the_best_that_is_offered_and_ends_with_the_cpu() -> None:
    assert candidates("auto", [CPU, OPENVINO, "AzureExecutionProvider", CUDA]) == ("cuda", "openvino", "cpu")
    assert set(AUTO_ORDER) < set(PROVIDERS)


@pytest.mark.parametrize("name", ["gpu", "CPU", "CPUExecutionProvider", ""])
def test_an_unknown_provider_lists_what_is_there(name: str) -> None:
    with pytest.raises(ProviderError, match=f"unknown provider '{name}'; available here: cpu, cuda, auto"):
        candidates(name, [CUDA, CPU])


def test_a_provider_that_is_not_offered_lists_what_is_there() -> None:
    with pytest.raises(ProviderError, match="offers no provider 'openvino'; available here: cpu, auto"):
        candidates("openvino", [CPU])


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
    assert available_cpus() == 5
