"""The progress of a long job, on one line of a terminal; nothing in a pipe."""

import time
from collections.abc import Callable
from typing import TextIO

from .resumable_file import Position

_SECONDS_BETWEEN = 0.2


class Progress:
    """A line with rows, speed, errors and time left on `stream`, if that is a terminal.

    Args:
        stream: such as stderr.
        share: returns how much of the input has been read, in [0, 1]; None where that is not known.
        clock: returns seconds, never fewer than before.
    """

    def __init__(
        self, stream: TextIO, share: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._share = share
        self._clock = clock
        self._active = stream.isatty()
        self._start: tuple[float, int, float] | None = None  # time, rows and share
        self._shown = float("-inf")

    def __call__(self, position: Position) -> None:
        """Show the position; to be called after each batch, and once before the first."""
        now = self._clock()
        if not self._active or now - self._shown < _SECONDS_BETWEEN:
            return
        share = self._share()
        if self._start is None:
            self._start = (now, position.rows, share or 0.0)
        self._shown = now
        self._stream.write(f"\r{self._line(now, position, share)}\x1b[K")
        self._stream.flush()

    def close(self) -> None:
        """Remove the line."""
        if self._active and self._start is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, now: float, position: Position, share: float | None) -> str:
        start, rows, start_share = self._start or (now, position.rows, share or 0.0)
        seconds = now - start
        parts = [f"{position.rows} rows"]
        if share is not None:
            parts.append(f"{share:.0%}")
        if seconds > 0:
            parts.append(f"{(position.rows - rows) / seconds:.1f} pictures/s")
        if seconds > 0 and share is not None and share > start_share:
            parts.append(f"{_duration(seconds * (1 - share) / (share - start_share))} left")
        if position.errors:
            parts.append(f"{position.errors} failed")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
