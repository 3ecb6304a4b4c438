import io
from collections.abc import Callable

from mlic_runtime.base.progress import Progress, clear_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clock(*seconds: float) -> Callable[[], float]:
    return iter(seconds).__next__


def test_a_terminal_sees_speed_and_time_left() -> None:
    terminal = Terminal()
    shares = iter([0.0, 0.1, 0.5])
    progress = Progress(terminal, "row", lambda: next(shares), clock=clock(0, 10, 100))
    progress.show(0)
    progress.show(1000)
    progress.show(5000, "2 failed")
    progress.close()
    assert terminal.getvalue() == (
        "\r\x1b[K0 rows, 0%"
        "\r\x1b[K1000 rows, 10%, 100.0 rows/s, 1:30 left"
        "\r\x1b[K5000 rows, 50%, 50.0 rows/s, 1:40 left, 2 failed"
        "\r\x1b[K"
    )


def test_a_resumed_run_counts_its_own_speed() -> None:
    terminal = Terminal()
    shares = iter([0.5, 0.75])
    progress = Progress(terminal, "row", lambda: next(shares), clock=clock(0, 7200))
    progress.show(50_000)
    progress.show(75_000)
    assert "75000 rows, 75%, 3.5 rows/s, 2:00:00 left" in terminal.getvalue()


def test_nobody_knows_the_end_of_a_stream() -> None:
    terminal = Terminal()
    progress = Progress(terminal, "row", lambda: None, clock=clock(0, 2))
    progress.show(0)
    progress.show(5)
    assert terminal.getvalue() == "\r\x1b[K0 rows\r\x1b[K5 rows, 2.5 rows/s"


def test_it_is_not_shown_more_often_than_one_can_read() -> None:
    terminal = Terminal()
    progress = Progress(terminal, "row", lambda: None, clock=clock(0, 0.1, 0.15, 0.3))
    for rows in range(4):
        progress.show(rows)
    assert terminal.getvalue().count("\r") == 2


def test_a_pipe_sees_nothing() -> None:
    def fail() -> float:
        raise AssertionError("asked for the share although nobody sees it")

    pipe = io.StringIO()
    progress = Progress(pipe, "row", fail)
    progress.show(1)
    progress.close()
    clear_line(pipe)
    assert pipe.getvalue() == ""


def test_a_pipe_may_see_a_line_at_every_tenth() -> None:
    pipe, done = io.StringIO(), 0
    progress = Progress(
        pipe, "row", lambda: done / 40, "reading: ", clock=iter(range(100)).__next__, seconds_between_lines=0.0
    )
    for done in range(41):
        progress.show(done, "1 failed" if done == 40 else "")
    progress.close()
    lines = pipe.getvalue().split("\n")
    assert len(lines) == 11
    assert lines[0] == "reading: 4 rows, 10%, 1.0 rows/s, 0:36 left"
    assert lines[-2:] == ["reading: 40 rows, 100%, 1.0 rows/s, 1 failed", ""]
    assert "\r" not in pipe.getvalue()


def test_a_pipe_sees_lines_so_many_seconds_apart() -> None:
    pipe, done = io.StringIO(), 0
    progress = Progress(pipe, "row", lambda: done / 40, clock=iter(range(100)).__next__, seconds_between_lines=15.0)
    for done in range(41):
        progress.show(done)
    assert pipe.getvalue() == "15 rows, 38%, 1.0 rows/s, 0:25 left\n30 rows, 75%, 1.0 rows/s, 0:10 left\n"


def test_a_pipe_may_see_the_end_of_a_short_job() -> None:
    pipe, done = io.StringIO(), 0
    progress = Progress(pipe, "row", lambda: done / 4, "", iter(range(100)).__next__, 15.0, ends=True)
    for done in range(5):
        progress.show(done)
    assert pipe.getvalue() == "4 rows, 100%, 1.0 rows/s\n"
