"""Progress of a command, on stderr."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import click


def log_line(line: str) -> None:
    """Print a line above any progress bar; of several processes under torchrun, only the first does."""
    if os.environ.get("RANK", "0") != "0":
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(line, err=True)


@contextlib.contextmanager
def progress_bar(description: str, unit: str = "it") -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, nothing in a pipe; yield a function to call with (done, total)."""
    from tqdm import tqdm

    with tqdm(desc=description, unit=unit, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
