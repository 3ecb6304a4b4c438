import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(description: str, unit: str = "it") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, nothing in a pipe; yields what is to be called with (done, total)."""
    from tqdm import tqdm

    with tqdm(desc=description, unit=unit, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
