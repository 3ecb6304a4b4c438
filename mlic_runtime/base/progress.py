"""The progress of a long job: one line of a terminal that changes; in a pipe a line now and then, or nothing.

Of several processes under torchrun, `log_line` and `progress_bar` write in the first only.
"""

import contextlib
import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

SECONDS_BETWEEN_LINES = 10.0
"""Of the progress of a long job where there is no terminal."""

_SECONDS_BETWEEN = 0.2
_ALL = 10  # tenths


class Progress:
    """A line with what is done, its share, speed and the time left, on `stream`.

    On a terminal the line changes. Elsewhere, such as in a pipe or a file, a new line is written at every tenth of the
    job, if `seconds_between_lines` allows that, and with `ends` at its end.

    Args:
        stream: such as stderr.
        unit: one of what is counted, such as "row".
        share: returns how much of the job is done, in [0, 1]; None where that is not known.
        label: the beginning of the line.
        clock: returns seconds, never fewer than before.
        seconds_between_lines: where `stream` is no terminal, the fewest seconds from a line to the next; None for no
            lines there.
        ends: whether the end of the job has a line there, however soon it comes.
    """

    def __init__(
        self,
        stream: TextIO,
        unit: str,
        share: Callable[[], float | None],
        label: str = "",
        clock: Callable[[], float] = time.monotonic,
        seconds_between_lines: float | None = None,
        ends: bool = False,
    ) -> None:
        self._stream = stream
        self._unit = unit
        self._share = share
        self._label = label
        self._clock = clock
        self._terminal = stream.isatty()
        self._ends = ends
        self._between = _SECONDS_BETWEEN if self._terminal else seconds_between_lines
        self._start: tuple[float, int, float] | None = None  # time, number and share
        self._shown = float("-inf")
        self._tenths = 0

    def show(self, done: int, note: str = "") -> None:
        """Show how many are done, and a note; to be called once before the first, and often."""
        if self._between is None:
            return
        now = self._clock()
        if self._terminal and now - self._shown < self._between:
            return
        share = self._share()
        if self._start is None:
            self._start = (now, done, share or 0.0)
            self._shown = now if not self._terminal else self._shown
        if not self._terminal and not self._is_due(now, share):
            return
        self._shown = now
        begun, first, start_share = self._start
        seconds = now - begun
        parts = [f"{self._label}{done} {self._unit}s"]
        if share is not None:
            parts.append(f"{share:.0%}")
        if seconds > 0:
            parts.append(f"{(done - first) / seconds:.1f} {self._unit}s/s")
        if seconds > 0 and share is not None and start_share < share < 1:
            parts.append(f"{duration(seconds * (1 - share) / (share - start_share))} left")
        line = ", ".join([*parts, *([note] if note else [])])
        clear_line(self._stream)
        self._stream.write(line if self._terminal else line + "\n")
        self._stream.flush()

    def _is_due(self, now: float, share: float | None) -> bool:
        """Return whether a pipe gets a line now: a tenth more is done, and the last line is old enough."""
        tenths = math.floor(10 * share + 1e-9) if share is not None else 0
        if tenths <= self._tenths or now - self._shown < self._wait(tenths):
            return False
        self._tenths = tenths
        return True

    def _wait(self, tenths: int) -> float:
        """Return the seconds that have to lie between the last line and the next, of so many tenths."""
        return 0.0 if self._between is None or (self._ends and tenths == _ALL) else self._between

    def close(self) -> None:
        """Remove the line of a terminal."""
        if self._start is not None:
            clear_line(self._stream)


def clear_line(stream: TextIO) -> None:
    """Remove the line of a `Progress` from a terminal, to write something else; do nothing in a pipe."""
    if stream.isatty():
        stream.write("\r\x1b[K")
        stream.flush()


def duration(seconds: float) -> str:
    """Return seconds as M:SS or H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def log_line(line: str) -> None:
    """Print a line above any progress bar."""
    if is_first_process():
        clear_line(sys.stderr)
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(
    label: str, unit: str = "item", seconds_between_lines: float | None = None, *, ends: bool = False
) -> Iterator[Callable[..., None]]:
    """Show the progress of a block; yields what to call with the number that is done, the total, and maybe a note.

    `seconds_between_lines` and `ends` are for where there is no terminal, see `Progress`.
    """
    share = 0.0
    stream = sys.stderr if is_first_process() else io.StringIO()
    progress = Progress(stream, unit, lambda: share, f"{label}: ", time.monotonic, seconds_between_lines, ends)

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
