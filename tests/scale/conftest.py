import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_MEGABYTE = 1024 * 1024


@pytest.fixture(scope="session")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests leave tickets for workers, see dying.py; empty when a test begins."""
    return tmp_path_factory.mktemp("tickets")


@pytest.fixture(autouse=True)
def _no_tickets_are_left(tickets: Path) -> None:
    for path in tickets.iterdir():
        path.unlink()


@pytest.fixture(scope="session")
def cluster(tickets: Path) -> Iterator[Any]:
    """A Ray cluster of two nodes with one CPU each, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("MLIC_TICKETS", str(tickets))
        patch.setenv("MLIC_MODEL", str(ROOT / "tests" / "data" / "tiny"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 100 * _MEGABYTE}
        found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        found.add_node(**node)
        ray.init(found.address, runtime_env={"worker_process_setup_hook": "dying.prepare"}, logging_level="WARNING")
        try:
            yield found
        finally:
            ray.shutdown()
            found.shutdown()
