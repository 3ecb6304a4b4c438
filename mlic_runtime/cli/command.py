"""What every command does alike: how it shows help and errors, and how it writes data."""

import contextlib
import errno
import shlex
import sys
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from mlic_runtime.base.files import os_error_reason, write_to
from mlic_runtime.base.override import override
from mlic_runtime.base.standard_streams import (
    MissingOutput,
    discard_standard_output,
    flush_standard_streams,
    occupy_missing_descriptors,
    some_standard_error,
    some_standard_output,
    standard_output,
)
from mlic_runtime.base.text import encode, printable
from mlic_runtime.errors import MlicError, OutputError

# What writing to a full disk, a full quota or a file of the largest allowed size ends in.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COMMAND_LINE = f"{__name__}.command_line"  # key of `click.Context.meta`
_OPTIONS = "Options"
_CLOSED = "cannot write the output: standard output is closed; "
_REDIRECT = "redirect it to a file"


class _WithStreams(click.Command):
    """A command that works without standard streams.

    It finishes its files, and says in one line, exit code 1, what it could not print, or that a disk is full.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_settings.setdefault("max_content_width", 120)  # of help on a wide terminal

    @override
    def main(self, *args: Any, **extra: Any) -> Any:
        occupy_missing_descriptors()
        with some_standard_error(), _say_what_is_lost():
            try:
                return self._run(*args, **extra)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                discard_standard_output()
                what = "the output" if error.filename is None else repr(str(error.filename))
                reason = f"{os_error_reason(error)}; make room, or choose another place"
                click.ClickException(f"cannot write {what}: {reason}").show()
                sys.exit(1)

    def _run(self, *args: Any, **extra: Any) -> Any:
        """Run the command; drop what is left in Python's buffer if it cannot be written, or its end would fail over it.

        Raises:
            OSError: the command went well, but the disk is full.
        """
        stdout = sys.stdout
        try:
            return super().main(*args, **extra)
        except SystemExit as end:
            unwritable = sys.stdout is not stdout  # click has replaced it, as its reader is gone
            try:
                flush_standard_streams()
            except OSError as error:
                if error.errno in _FULL and not end.code:
                    raise
                unwritable = True
            if unwritable:
                discard_standard_output()
            raise


class MlicGroup(_WithStreams, click.Group):
    """Several commands under one name; each is an `MlicCommand`."""


class MlicCommand(_WithStreams):
    """A command that shows an `MlicError` as one line on stderr, exit code 1; usage errors keep click's exit code 2.

    Help shows options that have an attribute `heading` under that heading (see `options.HeadedOption`), after the
    others. The command line is kept in `click.Context.meta`, so that a result file can say how it was made.
    """

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[COMMAND_LINE] = shlex.join([ctx.command_path, *args])
        return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            # Pillow warns about broken metadata of good pictures; here, stderr is for progress and errors.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            try:
                return super().invoke(ctx)
            except MlicError as error:
                raise click.ClickException(printable(str(error))) from error

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {_OPTIONS: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "heading", None) or _OPTIONS, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


@contextlib.contextmanager
def _say_what_is_lost() -> Iterator[None]:
    """Say when a command ends that standard output is missing or closed, if it was to print something."""
    with some_standard_output() as missing:
        code: Any = 0
        try:
            yield
        except SystemExit as end:
            if not missing.lost:
                raise
            code = end.code
        if missing.lost:
            kept = "; ".join(filter(None, missing.lost))
            click.ClickException(printable(_CLOSED + (kept or _REDIRECT))).show()
            sys.exit(code or 1)


def write(text: str, *, kept: str = "") -> None:
    """Write data to stdout, as UTF-8 whatever the locale says.

    Where stdout is missing or closed, the command goes on, so that its files are finished, and then ends with exit
    code 1 and one line.

    Args:
        text: the data.
        kept: where else they are, for that line, such as "the report is in FILE".

    Raises:
        BrokenPipeError: the reader of stdout went away.
        OutputError: it cannot be written, such as to a full disk.
    """
    stream = standard_output()
    if stream is not None:
        try:
            write_to(stream, encode(text))
        except OutputError as error:
            raise OutputError("; ".join(filter(None, (str(error), kept)))) from error
    elif isinstance(sys.stdout, MissingOutput):
        sys.stdout.lost[kept] = None


def output_stream() -> BinaryIO:
    """Return stdout, for results that come one after another.

    Raises:
        OutputError: it is missing or closed, so that the work would be for nothing.
    """
    stream = standard_output()
    if stream is None:
        raise OutputError(_CLOSED + _REDIRECT)
    return stream
