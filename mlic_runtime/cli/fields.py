"""Command-line options made from dataclass fields (see `mlic_runtime.base.option`), and help that groups them."""

from __future__ import annotations  # click's classes have type parameters since 8.4 only

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from mlic_runtime.base.option import Option, element_type, flag_of, options_of
from mlic_runtime.base.override import override

from .command import MlicCommand

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

_Command = TypeVar("_Command", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
PATH_TYPES: Mapping[str, click.ParamType[Any]] = {"file": FILE, "folder": FOLDER, "new folder": NEW_FOLDER}
_NUMBERS: Mapping[Any, Callable[..., click.ParamType[Any]]] = {int: click.IntRange, float: click.FloatRange}
_OTHERS = "Other options"


class FieldOption(click.Option):
    """An option that knows its field.

    Args:
        declarations: see `click.Option`.
        about: what the field says of it.
        heading: what it stands under in the help of an `MlicCommand`; None: under "Options".
        settings: see `click.Option`.
    """

    def __init__(self, declarations: list[str], *, about: Option, heading: str | None = None, **settings: Any) -> None:
        self.about = about
        self.heading = heading
        default = about.default if about.follows is None else None
        super().__init__(declarations, help=about.help, default=default, **settings)

    @override
    def make_metavar(self, ctx: click.Context) -> str:
        numeric = self.metavar is None and isinstance(self.type, click.IntRange | click.FloatRange)
        return " ".join(["NUMBER"] * self.nargs) if numeric else super().make_metavar(ctx)

    @override
    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra: OptionHelpExtra = {}
        if self.about.default_text and self.about.default is not False:
            extra["default"] = self.about.default_text
        if self.about.range and getattr(ctx.command, "shows_all", True):
            extra["range"] = self.about.range
        return extra

    @override
    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or not self.secondary_opts or self.about.default:
            return record
        return self.opts[0], record[1]  # what is off by default need not be shown how to turn off


class GroupedCommand(MlicCommand):
    """A command whose `--help` shows common options only, and `--help-all` all of them, by group.

    Options that are no `FieldOption` are common, and stand last.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show all options and exit.",
            )
        )
        self.shows_all = False

    def full_help(self, ctx: click.Context) -> str:
        """Return the help with all options."""
        self.shows_all = True
        try:
            return self.get_help(ctx)
        finally:
            self.shows_all = False

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            about = parameter.about if isinstance(parameter, FieldOption) else None
            record = parameter.get_help_record(ctx)
            if record is not None and (about is None or about.common or self.shows_all):
                heading = "Options" if not self.shows_all else _OTHERS if about is None else about.group
                groups.setdefault(heading, []).append(record)
        groups |= {_OTHERS: groups.pop(_OTHERS)} if _OTHERS in groups else {}
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def field_options(
    *kinds: Any,
    path_types: Mapping[str, click.ParamType[Any]] | None = None,
    shown: Mapping[str, Option] | None = None,
    heading: str | None = None,
) -> Callable[[_Command], _Command]:
    """Add the options of dataclasses to a command, in order; each sets the parameter of its field's name.

    Args:
        kinds: the dataclasses.
        path_types: what a path must be, by `Option.path`, besides `PATH_TYPES`.
        shown: what the help says of some options, by field name, where a field itself says something else.
        heading: see `FieldOption`.
    """
    types = {**PATH_TYPES, **(path_types or {})}

    def add(command: _Command) -> _Command:
        for kind in reversed(kinds):
            for name, own in reversed(options_of(kind).items()):
                about = own if shown is None else shown.get(name, own)
                declarations, settings = _click_option(kind, name, about, types)
                command = click.option(*declarations, cls=FieldOption, about=about, heading=heading, **settings)(
                    command
                )
        return command

    return add


def given_options(ctx: click.Context, *kinds: Any) -> dict[str, Any]:
    """Return the options of dataclasses that the user gave, by the names of their fields."""
    return {
        name: ctx.params[name]
        for kind in kinds
        for name in options_of(kind)
        if name in ctx.params and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def _click_option(
    kind: Any, name: str, about: Option, path_types: Mapping[str, click.ParamType[Any]]
) -> tuple[list[str], dict[str, Any]]:
    """Return the declarations of a click option and its settings."""
    flag, (type_, count) = flag_of(kind, name), element_type(kind, name)
    if type_ is bool:
        return [f"--{flag}/--no-{flag}", name], {}
    settings: dict[str, Any] = {"metavar": about.metavar, "multiple": count == -1}
    if count > 1:
        settings["nargs"] = count
    if about.choices:
        settings["type"] = click.Choice(about.choices)
    elif type_ in _NUMBERS:
        limits = {"min": about.low, "max": about.high, "min_open": about.open_low}
        settings["type"] = _NUMBERS[type_](**limits)
    elif type_ is Path:
        settings["type"] = path_types[about.path or "file"]
    else:
        settings["type"] = click.STRING
    return [f"--{flag}", name], settings


def _show_all(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.command, GroupedCommand):
        click.echo(ctx.command.full_help(ctx), color=ctx.color)
        ctx.exit()
