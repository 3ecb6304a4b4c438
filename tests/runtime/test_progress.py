import io
from collections.abc import Callable

from mlic_runtime.batch.progress import Progress
from mlic_runtime.batch.resumable_file import Position


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clock(*seconds: float) -> Callable[[], float]:
    return iter(seconds).__next__


def test_a_terminal_sees_speed_and_time_left() -> None:
    terminal = Terminal()
    shares = iter([0.0, 0.1, 0.5])
    progress = Progress(terminal, lambda: next(shares), clock(0, 10, 100))
    for position in (Position(0), Position(1000), Position(5000, errors=2)):
        progress(position)
    progress.close()
    assert terminal.getvalue() == (
        "\r0 rows, 0%\x1b[K"
        "\r1000 rows, 10%, 100.0 pictures/s, 1:30 left\x1b[K"
        "\r5000 rows, 50%, 50.0 pictures/s, 1:40 left, 2 failed\x1b[K"
        "\r\x1b[K"
    )


def test_a_resumed_run_counts_its_own_speed() -> None:
    terminal = Terminal()
    shares = iter([0.5, 0.75])
    progress = Progress(terminal, lambda: next(shares), clock(0, 7200))
    progress(Position(50_000))
    progress(Position(75_000))
    assert "75000 rows, 75%, 3.5 pictures/s, 2:00:00 left" in terminal.getvalue()


def test_nobody_knows_the_end_of_a_stream() -> None:
    terminal = Terminal()
    progress = Progress(terminal, lambda: None, clock(0, 2))
    progress(Position(0))
    progress(Position(5))
    assert terminal.getvalue() == "\r0 rows\x1b[K\r5 rows, 2.5 pictures/s\x1b[K"


def test_it_is_not_shown_more_often_than_one_can_read() -> None:
    terminal = Terminal()
    progress = Progress(terminal, lambda: None, clock(0, 0.1, 0.15, 0.3))
    for rows in range(4):
        progress(Position(rows))
    assert terminal.getvalue().count("\r") == 2


def test_a_pipe_sees_nothing() -> None:
    def fail() -> float:
        raise AssertionError("asked for the share although nobody sees it")

    pipe = io.StringIO()
    progress = Progress(pipe, fail)
    progress(Position(1))
    progress.close()
    assert pipe.getvalue() == ""
