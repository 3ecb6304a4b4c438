"""What a command shows on stderr while it works; of several processes under torchrun, only the first shows anything."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator

from mlic_runtime.base.progress import Progress, clear_line

SECONDS_BETWEEN_LINES = 10.0
"""Of the progress of a long job where there is no terminal."""


def log_line(line: str) -> None:
    """Print a line above any progress bar."""
    if is_first_process():
        clear_line(sys.stderr)
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(
    label: str, unit: str = "item", seconds_between_lines: float | None = None
) -> Iterator[Callable[..., None]]:
    """Show the progress of a block; yields what to call with the number that is done, the total, and maybe a note.

    `seconds_between_lines` is for where there is no terminal, see `Progress`.
    """
    share = 0.0
    stream = sys.stderr if is_first_process() else io.StringIO()
    progress = Progress(stream, unit, lambda: share, f"{label}: ", seconds_between_lines=seconds_between_lines)

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal share
        share = done / max(1, total)
        progress.show(done, note)

    try:
        yield show
    finally:
        progress.close()


def is_first_process() -> bool:
    """Return whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"
