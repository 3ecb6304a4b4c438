"""A small file system of its own that is filled up, for benchmarks/interruptions.py --full-disk."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from interruption_jobs import LostError, Training, temporaries

SIZE = 16 * 1024 * 1024
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of what a job needs, that is free when it starts


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a tmpfs of `SIZE` bytes at `folder`.

    Raises:
        click.ClickException: this process may not.
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
        {kind: how often it met the full disk, by message, and what it needed}.

    Raises:
        LostError: an older file changed, something was left behind, or the error was not one line.
    """
    found: dict[str, Any] = {}
    for kind in ("training", "export", "batch"):
        prepared = prepare(kind)
        job = prepared.job
        older = _older(job, scratch, attempt)
        begin = (lambda job=job, older=older: job.begin(older)) if older is not None else job.begin
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
                raise LostError(f"{kind} with {share} of its room: exit code {ended.code}: {ended.error[-1500:]}")
            now = _files(job.folder)
            changed = [name for name, content in kept.items() if now.get(name) != content]
            if kind != "training" and changed:  # training may have saved an epoch before the disk was full
                raise LostError(f"{kind}: changed by an attempt that failed: {changed}")
            if temporaries(job.written):
                raise LostError(f"{kind}: left behind: {temporaries(job.written)}")
            messages.append(lines[-1].replace(str(disk), ""))
            filler.unlink()
            again = attempt(job, scratch)
            if again.code or (kind != "training" and job.result(again.out) != prepared.expected):
                raise LostError(f"{kind} does not go on when there is room: {again.error[-1500:]}")
        found[kind] = {"bytes_needed": needed, "attempts": len(SHARES), "messages": sorted(set(messages))}
        click.echo(f"{kind}: {found[kind]}")
        shutil.rmtree(job.folder)
    return found


def _older(job: Any, scratch: Path, attempt: Callable[..., Any]) -> Path | None:
    """A run of two epochs, which training goes on with; None for others, which have an older output."""
    if not isinstance(job, Training):
        return None
    short = Training(scratch / "short", job.data, epochs=2)
    short.begin()
    ended = attempt(short, scratch)
    if ended.code:
        raise LostError(ended.error)
    return short.run


def _needed(job: Any, attempt: Callable[..., Any], scratch: Path, disk: Path, before: int) -> int:
    """How many bytes more a job has in use at its end, at least; the older output is counted as what is replaced."""
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
