import threading

import pytest

from mlic_runtime.base.background import Background


def test_it_runs_beside_the_caller() -> None:
    """Neither would end if one waited for the other."""
    both = threading.Barrier(2, timeout=30)
    background = Background(lambda: both.wait() >= 0)
    both.wait()
    assert background.result()


def test_its_error_is_raised_where_the_result_is_asked_for() -> None:
    def fail() -> None:
        raise KeyError("here")

    background = Background(fail)
    for _ in range(2):
        with pytest.raises(KeyError, match="here"):
            background.result()
