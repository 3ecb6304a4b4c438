"""What the commands share: how they fail, their options about the model, how they write."""

import functools
import shlex
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import click

from mlic_runtime.base.files import write_to
from mlic_runtime.base.text import encode, printable
from mlic_runtime.errors import MlicError
from mlic_runtime.package.manifest import PRECISIONS
from mlic_runtime.providers.names import AUTO, PROVIDERS

COMMAND_LINE = f"{__name__}.command_line"  # key of `click.Context.meta`

SEVERAL = "N,..."  # how help shows an option whose callback is `counts`

_Command = TypeVar("_Command", bound=Callable[..., Any])


class MlicCommand(click.Command):
    """Shows an `MlicError` as one line on stderr, exit code 1; usage errors keep click's exit code 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; keeps the command line, so that a result file can say how it was made."""
        ctx.meta[COMMAND_LINE] = shlex.join([ctx.command_path, *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; an `MlicError` becomes a one-line `click.ClickException`."""
        with warnings.catch_warnings():
            # Pillow warns about broken metadata of good pictures; here, stderr is for progress and errors.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            try:
                return super().invoke(ctx)
            except MlicError as error:
                raise click.ClickException(printable(str(error))) from error


def counts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Callback of an option: whole numbers from 1 on, separated by commas; those that are there twice count once."""
    if value is None:
        return None
    one = click.IntRange(1)
    return tuple(dict.fromkeys(one(part.strip(), parameter, context) for part in value.split(",")))


def model_options(several_threads: bool = False) -> Callable[[_Command], _Command]:
    """Add the options that say which model runs, and how.

    Args:
        several_threads: `--threads` takes several numbers (see `counts`), not one.
    """
    return functools.partial(_add_model_options, several_threads=several_threads)


def _add_model_options(command: _Command, several_threads: bool) -> _Command:
    number: dict[str, Any] = (
        {"metavar": SEVERAL, "callback": counts} if several_threads else {"type": click.IntRange(1)}
    )
    for option in reversed(
        (
            click.option(
                "--model",
                metavar="FOLDER|FILE|NAME",
                help="Model package: a folder, a .mlic file, or the name of an installed or bundled one.  "
                "[default: $MLIC_MODEL, else the model hybrid]",
            ),
            click.option(
                "--precision",
                type=click.Choice([*PRECISIONS, AUTO]),
                default=AUTO,
                show_default=True,
                help="Which graph of the package to run. auto: the one that mlic-bench --choose found best on this "
                "machine, else the one that the package recommends for the provider, else the first that it lists.",
            ),
            click.option(
                "--provider",
                type=click.Choice([*PROVIDERS, AUTO]),
                default="cpu",
                show_default=True,
                help="Execution provider of ONNX Runtime.",
            ),
            click.option(
                "--threads",
                **number,
                help="Threads for one run.  [default: one per physical core that this process may use]",
            ),
            click.option("--spin", is_flag=True, help="Let waiting threads spin: a little faster, costs CPU time."),
            click.option(
                "--cache/--no-cache",
                default=True,
                help="Keep optimised graphs in the user's cache folder, and start from there, or leave it alone.  "
                "[default: cache]",
            ),
        )
    ):
        command = option(command)
    return command


def write(text: str) -> None:
    """Write data to stdout, as UTF-8 whatever the locale says."""
    write_to(sys.stdout.buffer, encode(text))
