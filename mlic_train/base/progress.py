"""What a command shows on stderr while it works."""

import contextlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import click

from mlic_runtime.base import progress


def log_line(line: str) -> None:
    """Print a line above any progress bar; of several processes under torchrun, only the first does."""
    if _is_first_process():
        progress.clear_line(sys.stderr)
        click.echo(line, err=True)


def progress_bar(label: str, unit: str = "item") -> AbstractContextManager[Callable[..., None]]:
    """Show the progress of a block, in the first process; see `mlic_runtime.base.progress.progress_bar`."""
    return progress.progress_bar(label, unit) if _is_first_process() else contextlib.nullcontext(lambda *_: None)


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
