"""Two paths that trade places in one step, where the system can do that."""

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> bool:
    """Let two paths on one file system trade places, so that a kill at any moment finds something at both.

    By renameat2 of Linux, which Python does not offer.

    Returns:
        Whether that was done; not on other systems, nor where the file system cannot.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0
