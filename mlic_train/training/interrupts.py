import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Catch the first Ctrl-C or SIGTERM; yield a function that says whether it came. A second one acts as usual.

    It nests: an outer `interrupts` gets the signal too. Outside the main thread Python allows no handlers, and nothing
    is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        for caught, handler in before.items():
            signal.signal(caught, handler)
        outer = before[signal.Signals(number)]
        if callable(outer) and outer is not signal.default_int_handler:
            outer(number, frame)

    before = {caught: signal.getsignal(caught) for caught in (signal.SIGINT, signal.SIGTERM)}
    for caught in before:
        signal.signal(caught, handle)
    try:
        yield lambda: seen
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
