"""Something made in a thread of its own while the caller works, without concurrent.futures (10 ms to load)."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Made = TypeVar("_Made")


class Background(Generic[_Made]):
    """Starts at once.

    Args:
        make: called once, in another thread.
    """

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def result(self) -> _Made:
        """What `make` returned, when it has.

        Raises:
            BaseException: what `make` raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._made

    def _run(self) -> None:
        self._error: BaseException | None = None
        try:
            self._made = self._make()
        except BaseException as error:  # the caller's, wherever it waits
            self._error = error
