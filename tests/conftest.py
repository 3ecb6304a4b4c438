import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


@pytest.fixture(scope="session", autouse=True)
def _settings_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the user chose with `mlic-bench --choose`, and has in the cache, must neither change tests nor change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("PYTHONUNBUFFERED", raising=False)  # it would hide what buffered output does to a closed stream
        yield


@pytest.fixture
def room() -> Callable[[int], AbstractContextManager[None]]:
    """A disk that is full, by the kernel's own word: while `room(size)` lasts, no file grows beyond `size` bytes.

    A write that meets the limit is cut off there, and the next one fails. (Python ignores the signal that comes with
    it.)
    """

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
