"""Runs in every worker process of the tests' cluster: workers that die, or wait, where a test has left a ticket.

A ticket is a file in $MLIC_TICKETS, named MOMENT-PART; who takes it away dies there by SIGKILL, and leaves a file
died-PID-MOMENT-PART. `hold-PART` makes a worker wait, before it writes that part, until the ticket is gone.
"""

import os
import signal
import time
from pathlib import Path

import pyarrow
import pytest

from mlic_runtime.ray import folder as ray_folder
from mlic_runtime.ray import parts as ray_parts

# A safety net: a worker that waits for longer ends its part, and the test fails by what it looks at.
PATIENCE = 90.0


def prepare() -> None:
    """Called by Ray in each worker process, before anything else."""
    tickets = Path(os.environ["MLIC_TICKETS"])
    write_part, fsync, part_to_table = ray_folder.write_part, os.fsync, ray_parts.part_to_table

    def die(moment: str, part: object) -> None:
        try:
            (tickets / f"{moment}-{part}").unlink()
        except FileNotFoundError:
            return
        (tickets / f"died-{os.getpid()}-{moment}-{part}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def write_part_or_die(folder: Path, table: pyarrow.Table, summary: ray_folder.PartSummary, run: str) -> None:
        end = time.monotonic() + PATIENCE
        while (tickets / f"hold-{summary.index}").exists() and time.monotonic() < end:
            (tickets / f"holding-{summary.index}").touch()
            time.sleep(0.05)
        die("before", summary.index)
        write_part(folder, table, summary, run)
        (tickets / f"wrote-{os.getpid()}-{summary.index}").touch()
        die("after", summary.index)

    def fsync_or_die(descriptor: int) -> None:
        part = Path(f"/proc/self/fd/{descriptor}").readlink().stem.removeprefix("part-")
        if part.isdecimal() and (tickets / f"amid-{int(part)}").exists():
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die("amid", int(part))
        fsync(descriptor)

    def part_to_table_or_die(part: ray_parts.Part) -> pyarrow.Table:
        die("read", part.index)
        return part_to_table(part)

    patch = pytest.MonkeyPatch()  # for as long as the process lives
    patch.setattr(ray_parts, "write_part", write_part_or_die)
    patch.setattr(os, "fsync", fsync_or_die)
    patch.setattr(ray_parts, "part_to_table", part_to_table_or_die)
