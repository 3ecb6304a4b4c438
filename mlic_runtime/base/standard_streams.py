"""Standard input and output as streams of bytes, also where they are missing, closed or hold only text.

A process may be started without them (`>&-`, `pythonw`), and a notebook may replace them by streams of text.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from .override import override


def standard_input() -> BinaryIO | None:
    """Return standard input; None if it is missing or closed."""
    stream = _open_or_none(sys.stdin)
    if stream is None:
        return None
    binary: BinaryIO | None = getattr(stream, "buffer", None)
    return io.BytesIO(stream.read().encode("utf-8", "surrogateescape")) if binary is None else binary


def standard_output() -> BinaryIO | None:
    """Return standard output; None if it is missing or closed. What is written must be UTF-8, whole characters."""
    stream = _open_or_none(sys.stdout)
    if stream is None:
        return None
    binary: BinaryIO | None = getattr(stream, "buffer", None)
    return cast(BinaryIO, _BytesToText(stream)) if binary is None else binary


def occupy_missing_descriptors() -> None:
    """Open /dev/null in the place of each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file that is opened would get that descriptor, and what libraries in C write to "standard error"
    would land in it. Python's own streams stay missing.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            os.set_inheritable(opened, True)


def discard_standard_output() -> None:
    """Send what is still to be written to standard output nowhere: after an error, the end would fail over it again."""
    stream = _open_or_none(sys.stdout)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it has no descriptor, or is missing
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, cast(TextIO, stream).fileno())
        os.close(nowhere)


class MissingOutput(io.TextIOBase):
    """Stands for a standard output that is missing or closed.

    Attributes:
        lost: what was to be written, an entry each; "" for what was written by its text alone.
    """

    def __init__(self) -> None:
        self.lost: dict[str, None] = {}

    @override
    def write(self, text: str, /) -> int:
        if text:
            self.lost[""] = None
        return len(text)


@contextlib.contextmanager
def some_standard_output() -> Iterator[MissingOutput]:
    """Let a `MissingOutput` take what is written to standard output while it is missing or closed.

    Otherwise click would lose it without a word. `standard_output` still returns None.
    """
    missing = MissingOutput()
    if _open_or_none(sys.stdout) is not None:
        yield missing
        return
    with contextlib.redirect_stdout(missing):
        yield missing


@contextlib.contextmanager
def some_standard_error() -> Iterator[None]:
    """Send what is written to standard error nowhere while it is missing or closed.

    Otherwise click would write errors to standard output.
    """
    if _open_or_none(sys.stderr) is not None:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def flush_standard_streams() -> None:
    """Flush standard output and standard error where they are open."""
    for stream in (sys.stdout, sys.stderr):
        if _open_or_none(stream) is not None:
            stream.flush()


def _open_or_none(stream: TextIO | None) -> TextIO | None:
    return None if stream is None or stream.closed or isinstance(stream, MissingOutput) else stream


class _BytesToText(io.RawIOBase):
    """A stream of bytes that writes all of them, at once, to a stream of text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @override
    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8"))
        return len(data)

    @override
    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()
