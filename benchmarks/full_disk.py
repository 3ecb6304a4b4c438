"""A small file system that is filled up: `python benchmarks/interruptions.py --full-disk` measures with it."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from interruption_jobs import Job, LostError, Training, temporaries

SIZE = 16 * 1024 * 1024
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # free space when a job starts, as a share of what it needs


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a tmpfs of `SIZE` bytes at `folder`.

    Raises:
        click.ClickException: this process has not the right to.
    """
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise click.ClickException(f"cannot mount a tmpfs: {made.stderr.strip()}; be root, or use unshare -rm")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path, prepare: Callable[[str], Any], attempt: Callable[..., Any], scratch: Path) -> dict[str, Any]:
    """Start every kind of job with too little room, then once more with enough.

    Returns:
        For each kind of job: the bytes that it needs, the number of attempts, and their messages.

    Raises:
        LostError: an older file changed, a temporary file was left, or the error was not one line.
    """
    result: dict[str, Any] = {}
    for kind in ("training", "export", "batch"):
        prepared = prepare(kind)
        job = prepared.job
        older = _older(job, scratch, attempt)
        begin = partial(job.begin, older) if isinstance(job, Training) else job.begin
        begin()
        before = shutil.disk_usage(disk).used
        needed = _needed(job, attempt, scratch, disk, before)
        messages: list[str] = []
        for share in SHARES:
            begin()
            kept = _files(job.folder)
            filler = disk / "filler"
            room = shutil.disk_usage(disk).free - int(share * needed)
            filler.write_bytes(bytes(max(0, room)))
            ended = attempt(job, scratch)
            lines = ended.error.splitlines()
            job.check(ended.out, ended.error)
            if ended.code != 1 or "Error: cannot write " not in lines[-1] or "Traceback" in ended.error:
                raise LostError(f"{kind} with {share} of its space: exit code {ended.code}: {ended.error[-1500:]}")
            now = _files(job.folder)
            changed = [name for name, content in kept.items() if now.get(name) != content]
            if kind != "training" and changed:  # training may have saved an epoch before the disk was full
                raise LostError(f"{kind}: changed by an attempt that failed: {changed}")
            if temporaries(job.written):
                raise LostError(f"{kind}: temporary files were left: {temporaries(job.written)}")
            messages.append(lines[-1].replace(str(disk), ""))
            filler.unlink()
            again = attempt(job, scratch)
            if again.code or (kind != "training" and job.result(again.out) != prepared.expected):
                raise LostError(f"{kind} does not continue when there is space: {again.error[-1500:]}")
        result[kind] = {"bytes_needed": needed, "attempts": len(SHARES), "messages": sorted(set(messages))}
        click.echo(f"{kind}: {result[kind]}")
        shutil.rmtree(job.folder)
    return result


def _older(job: Job, scratch: Path, attempt: Callable[..., Any]) -> Path | None:
    """Make a run of two epochs that training will resume; return None for other jobs, which have an older output."""
    if not isinstance(job, Training):
        return None
    short = Training(scratch / "short", job.data, epochs=2)
    short.begin()
    ended = attempt(short, scratch)
    if ended.code:
        raise LostError(ended.error)
    return short.run


def _needed(job: Job, attempt: Callable[..., Any], scratch: Path, disk: Path, before: int) -> int:
    """Return how many bytes more a job uses at its end, but at least the size of its largest file."""
    ended = attempt(job, scratch)
    if ended.code:
        raise LostError(ended.error)
    largest: int = max(
        path.stat().st_size for path in job.folder.rglob("*") if path.is_file() and "in" not in path.parts
    )
    return max(largest, shutil.disk_usage(disk).used - before)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".partial", ".journal"))
    }
