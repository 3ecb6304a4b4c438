import time
from collections.abc import Callable


class Stopwatch:
    """The seconds since it was made, and the time of day at which something will end.

    Args:
        clock: returns seconds, never fewer than before.
        time_of_day: returns the seconds since the epoch of Unix.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, time_of_day: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._start = clock()

    def seconds(self) -> float:
        """Return the seconds since the stopwatch was made."""
        return self._clock() - self._start

    def time_after(self, seconds: float) -> str:
        """Return the local time of day in so many seconds from now, as HH:MM."""
        return time.strftime("%H:%M", time.localtime(self._time_of_day() + seconds))
