"""Checks with kill -9 at random moments that training, sweep, export and batch keep what they reported as saved.

    python benchmarks/interruptions.py --kills 25 --output benchmarks/results/interruptions-2cpu-xeon.json

Every job is killed and started again until it ends by itself. Its result must then equal that of an uninterrupted run.
Jobs follow until there were enough kills. Half of the moments are drawn from the whole duration. The other half lies
within 20 ms after the first temporary folder that appears behind such a moment. A job is a process of its own. It is
forked from this process, which has loaded the libraries but not used them, so that kills hit the work, not imports.

With --full-disk the outputs are on a tmpfs with less and less room instead. Mounting it needs root, or:
`unshare -rm python benchmarks/interruptions.py --full-disk`.
"""

import contextlib
import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, because threads do not survive a fork
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import click
import full_disk
import onnx  # noqa: F401 # loaded before forking, as are the others that are not used here
import onnxruntime  # noqa: F401
import onnxslim  # noqa: F401
import optuna
import torch
from common import TINY, describe, output_option, write_json
from interruption_jobs import Batch, Export, Job, LostError, Sweep, Training, difference, make_data, temporaries

from mlic_runtime.cli.infer import infer
from mlic_train.cli.export import export
from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train
from mlic_train.sweep import runner, study  # noqa: F401
from mlic_train.training import run as training  # noqa: F401

KINDS = ("training", "sweep", "export", "batch")
COMMANDS = {"mlic-train": train, "mlic-sweep": sweep, "mlic-export": export, "mlic-infer": infer}
AIM_SECONDS = 0.02
PATIENCE = 300.0  # seconds after which a job, which takes a few, counts as hanging
LIBRARIES = ("torch", "safetensors", "optuna", "onnx", "onnxruntime", "onnxslim", "numpy")


class Ended(NamedTuple):
    """How an attempt ended: exit code (negative: the signal), stdout, stderr, seconds."""

    code: int
    out: str
    error: str
    seconds: float


def start(command: list[str], scratch: Path) -> int:
    """Fork a process that runs one of MLIC's commands, and return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            target = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(target, number)
        try:
            COMMANDS[command[0]].main(args=command[1:], prog_name=command[0])
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def attempt(job: Job, scratch: Path, delay: float | None = None, aimed: float | None = None) -> Ended:
    """Run a job's next command, to its end or until it is killed.

    Args:
        job: see `interruption_jobs`.
        scratch: a folder for its stdout and stderr.
        delay: kill it after this many seconds.
        aimed: kill it this many seconds after the first temporary folder that appears behind that delay.
    """
    began = time.monotonic()
    pid = start(job.command(), scratch)
    due = None if delay is None else began + delay
    before = killed = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        now = time.monotonic()
        if ended:
            break
        if aimed is not None and due is not None and now >= due:
            there = set(temporaries(job.written))
            before = there if before is None else before
            if there - before:
                due, aimed = now + aimed, None
        elif not killed and (now - began > PATIENCE or (due is not None and now >= due)):
            os.kill(pid, signal.SIGKILL)
            killed = True
        time.sleep(0.001)
    out, error = ((scratch / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    if now - began > PATIENCE:
        raise LostError(f"hangs: {shlex.join(job.command())}: {error[-1000:]}")
    return Ended(os.waitstatus_to_exitcode(status), out, error, now - began)


def finish(job: Job, scratch: Path) -> Ended:
    """Run a job to its end.

    Raises:
        LostError: it failed.
    """
    ended = attempt(job, scratch)
    if ended.code:
        raise LostError(f"{shlex.join(job.command())} failed: {ended.error[-2000:]}")
    return ended


def interrupt(
    job: Job, expected: dict[str, Any], duration: float, kills: int, dice: random.Random, scratch: Path
) -> Any:
    """Kill a job `kills` times, and begin it anew whenever it has ended by itself.

    Raises:
        LostError: something was lost.
    """
    phases: Counter[str] = Counter()
    done, largest, deaths, fresh = 0, 0.0, 0, True
    while deaths < kills or not fresh:
        if fresh:
            job.begin()
        moment = dice.uniform(0, duration)
        if deaths >= kills:
            ended = finish(job, scratch)
        elif isinstance(job, Batch) or dice.random() < 0.5:  # a batch adds to one file, and has no temporary ones
            ended = attempt(job, scratch, moment)
        else:
            ended = attempt(job, scratch, moment, dice.uniform(0, AIM_SECONDS))
        where = job.check(ended.out, ended.error)
        fresh = ended.code == 0
        if fresh:
            largest = max(largest, difference(expected, job.result(ended.out)))
            if temporaries(job.written):
                raise LostError(f"left behind: {temporaries(job.written)}")
            done += 1
        elif ended.code == -signal.SIGKILL:
            deaths += 1
            phases[where] += 1
        else:
            raise LostError(f"exit code {ended.code}: {ended.error[-2000:]}")
    return {
        "kills": deaths,
        "jobs_finished_and_compared": done,
        "kills_by_moment": dict(phases.most_common()),
        "largest_difference_of_a_weight": largest if isinstance(job, Training) else None,
    }


class Prepared(NamedTuple):
    """A job, its expected result, and how long it takes without interruption."""

    job: Job
    expected: dict[str, Any]
    seconds: float


def prepare(kind: str, folder: Path, data: Path, run: Path, scratch: Path) -> Prepared:
    """Make a job of this kind below `folder` and run it once without interruption."""
    job: Job
    if kind == "export":
        job = Export(folder / kind, run)
        older = start(job.command("0.1.0"), scratch)
        if os.waitstatus_to_exitcode(os.waitpid(older, 0)[1]):
            raise LostError((scratch / "stderr").read_text(encoding="utf-8"))
        job.keep()
    elif kind == "batch":
        job = Batch(folder / kind, TINY)
    else:
        job = Training(folder / kind, data) if kind == "training" else Sweep(folder / kind, data)
    job.begin()
    ended = finish(job, scratch)
    expected = job.result(ended.out)
    if isinstance(job, Export):
        job.newer = expected
    if isinstance(job, Batch):
        job.expected = expected["results"]
    return Prepared(job, expected, ended.seconds)


@click.command()
@click.option("--kills", type=click.IntRange(1), default=25, show_default=True, help="For each kind of job.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, help="[default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the moments.")
@click.option("--full-disk", "full", is_flag=True, help="Fill the disk instead of killing.")
@output_option
def main(kills: int, kinds: tuple[str, ...], seed: int, full: bool, output: Path | None) -> None:
    """Interrupt jobs and check what they leave."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    by_kind: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary).resolve()
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        data = make_data(folder / "data")
        reference = Training(folder / "reference", data)
        reference.begin()
        try:
            if full or "export" in kinds:
                finish(reference, folder)
            if full:
                disk = stack.enter_context(full_disk.mounted(folder / "disk"))
                by_kind = full_disk.fill(
                    disk, lambda kind: prepare(kind, disk, data, reference.run, folder), attempt, folder
                )
            else:
                for kind in dict.fromkeys(kinds):
                    job, expected, seconds = prepare(kind, folder / "jobs", data, reference.run, folder)
                    begin = time.monotonic()
                    # Each kind has its own generator, so that its moments do not depend on the other kinds.
                    dice = random.Random(f"{seed} {kind}")
                    by_kind[kind] = interrupt(job, expected, seconds, kills, dice, folder)
                    by_kind[kind] |= {
                        "seconds_uninterrupted": round(seconds, 2),
                        "seconds": round(time.monotonic() - begin),
                    }
                    click.echo(f"{kind}: {json.dumps(by_kind[kind])}")
        except LostError as error:
            raise click.ClickException(str(error)) from error
    what = "outputs on a disk that fills up" if full else "kill -9 at random moments, resumed until done"
    result = {"seed": seed, "tolerance": "weights: difference 0; everything else: equal", "kinds": by_kind}
    write_json(output, describe(what, LIBRARIES) | result)


if __name__ == "__main__":
    main()
