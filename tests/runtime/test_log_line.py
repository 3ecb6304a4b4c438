import io
import sys

import pytest

from mlic_runtime.base.progress import log_line, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_block_shows_what_is_done_of_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_terminal(monkeypatch)
    with progress_bar("epoch 1", "step") as show:
        show(1, 4, "loss 0.5")
        log_line("a line")
    assert terminal.getvalue() == "\r\x1b[Kepoch 1: 1 steps, 25%, loss 0.5\r\x1b[Ka line\n\r\x1b[K"


def test_of_several_processes_one_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_terminal(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    with progress_bar("epoch 1", "step") as show:
        show(1, 4)
    assert terminal.getvalue() == ""
