"""The progress of a long job, on one line of a terminal; nothing in a pipe."""

import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN = 0.2


class Progress:
    """A line with what is done, its share, speed and the time left, on `stream` if that is a terminal.

    Args:
        stream: such as stderr.
        unit: one of what is counted, such as "row".
        share: returns how much of the job is done, in [0, 1]; None where that is not known.
        label: the beginning of the line.
        clock: returns seconds, never fewer than before.
    """

    def __init__(
        self,
        stream: TextIO,
        unit: str,
        share: Callable[[], float | None],
        label: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._unit = unit
        self._share = share
        self._label = label
        self._clock = clock
        self._active = stream.isatty()
        self._start: tuple[float, int, float] | None = None  # time, number and share
        self._shown = float("-inf")

    def show(self, done: int, note: str = "") -> None:
        """Show how many are done, and a note; to be called once before the first, and often."""
        now = self._clock()
        if not self._active or now - self._shown < _SECONDS_BETWEEN:
            return
        share = self._share()
        if self._start is None:
            self._start = (now, done, share or 0.0)
        self._shown = now
        begun, first, start_share = self._start
        seconds = now - begun
        parts = [f"{self._label}{done} {self._unit}s"]
        if share is not None:
            parts.append(f"{share:.0%}")
        if seconds > 0:
            parts.append(f"{(done - first) / seconds:.1f} {self._unit}s/s")
        if seconds > 0 and share is not None and share > start_share:
            parts.append(f"{_duration(seconds * (1 - share) / (share - start_share))} left")
        clear_line(self._stream)
        self._stream.write(", ".join([*parts, *([note] if note else [])]))
        self._stream.flush()

    def close(self) -> None:
        """Remove the line."""
        if self._start is not None:
            clear_line(self._stream)


def clear_line(stream: TextIO) -> None:
    """Remove the line of a `Progress` from a terminal, to write something else; do nothing in a pipe."""
    if stream.isatty():
        stream.write("\r\x1b[K")
        stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
