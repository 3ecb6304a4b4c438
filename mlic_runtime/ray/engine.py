"""Batch prediction on a Ray cluster: one task reads the rows, actors predict and write them, resumable."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlic_runtime.base.machine import available_cpus
from mlic_runtime.errors import InputError, OutputError

from .folder import PartSummary, ResultFolder
from .parts import Job, PartWriter, read_parts, read_reports, split_into_parts

# How much of the rows and reports in transit a cluster of our own may hold in memory; results go to files.
_OBJECT_STORE_BYTES = 512 * 1024 * 1024
_SECONDS_TO_ANSWER = 10.0


def run_job(job: Job, folder: ResultFolder, actors: int | None, cpus: int) -> tuple[dict[int, PartSummary], str]:
    """Predict what is missing in a folder, on the Ray cluster that this process is connected to.

    Args:
        job: what to do.
        folder: where the results go.
        actors: how many; None means as many as the cluster has CPUs for.
        cpus: of each actor.

    Returns:
        {index: summary} of all parts, and the first error of a row in this run ("" if there is none).

    Raises:
        MlicError: the job failed; what is written stays.
    """
    import ray.data
    from ray.exceptions import RayError, RayTaskError

    summaries = dict(folder.done)
    first_errors: list[tuple[int, str]] = []
    count = _default_actors(cpus) if actors is None else actors
    dataset = ray.data.from_items([{"read": True}])
    # One block per part; else Ray would gather parts until they have 128 MB, and give all of them to one actor.
    dataset.context.target_max_block_size = 1
    dataset.context.enable_progress_bars = sys.stderr.isatty()
    dataset = dataset.map_batches(
        # On this machine, because the command line names its files; it takes no CPU from the actors.
        read_parts,
        fn_kwargs={"job": job},
        batch_size=None,
        num_cpus=0,
        resources=_this_node(),
    ).map_batches(
        PartWriter,
        fn_constructor_args=(job,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=cpus,
        # Not a fixed number: Ray warns if a small input leaves some of them idle.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
    )
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for report in read_reports(table):
                summaries[report.summary.index] = report.summary
                if report.first_error is not None:
                    first_errors.append(report.first_error)
    except RayTaskError:
        raise  # a defect in MLIC: its trace is needed
    except RayError as error:
        raise OutputError(f"Ray gave up: {_first_line(error)}; written parts stay: go on with --resume") from error
    return summaries, "".join(f"row {number}: {message}" for number, message in sorted(first_errors)[:1])


def check_input(job: Job, folder: ResultFolder) -> None:
    """Check that the parts in the folder were made from the input.

    Raises:
        InputError: the input cannot be read.
        OutputError: it has other rows than those that have results.
    """
    unchecked = dict(folder.done)
    if not unchecked:
        return
    with job.open_rows() as reader:
        for part in split_into_parts(reader, job.rows_per_part):
            summary = unchecked.pop(part.index, None)
            if summary is not None and not part.matches(summary):
                break
            if not unchecked:
                return
    raise OutputError(
        f"cannot resume {str(folder.path)!r}: the rows of the input are not those that have results there; "
        "choose another output to begin anew"
    )


def require_ray() -> None:
    """Check that Ray Data is installed.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray.data  # noqa: F401 # only to see whether it can be imported
    except ImportError as error:
        raise InputError(f"'--engine ray' needs Ray Data ({error}): pip install 'mlic-runtime[ray]'") from error


def require_reachable(address: str) -> None:
    """Refuse an address HOST:PORT that does not answer; Ray would go on trying for minutes.

    Raises:
        InputError: it does not answer.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return  # auto, local, or ray://, which has its own limit
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot connect to the Ray cluster {address!r}: {error}") from error


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[None]:
    """Connect to a Ray cluster for as long as the context lasts.

    Args:
        address: see `ray.init`; None means $RAY_ADDRESS, and if that is not set a cluster on this machine that ends
            with the context. If this process is connected already, that connection is used, and stays.
        cpus: how many CPUs a cluster on this machine has at least; more if the machine has more.

    Raises:
        InputError: the cluster cannot be reached.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    require_reachable(address)
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody expects mlic-infer to report its use
        options = {
            "num_cpus": max(cpus, available_cpus()),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        ray.init(address, logging_level="WARNING", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot connect to the Ray cluster {address!r}: {_first_line(error)}; clusters may want a token "
            "(RAY_AUTH_MODE=token in the environment) and the same version of Ray"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _this_node() -> dict[str, float]:
    """Return a little of a resource that only this node of the cluster has."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    resources = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return {name: 0.001 for name in resources if name.startswith("node:") and "__" not in name}


def _default_actors(cpus: int) -> int:
    import ray

    count = sum(int(node["Resources"].get("CPU", 0) // cpus) for node in ray.nodes() if node["Alive"])
    if count == 0:
        raise InputError(f"no node of the Ray cluster has {cpus} CPUs: give fewer --threads, or say how many --actors")
    return count


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
