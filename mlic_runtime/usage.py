"""Which arguments and options of a command go together."""

from collections.abc import Iterable

import click

from .batch_cli import BatchOptions
from .render import BATCH_FORMATS, FORMATS, MODEL_FORMATS


def check_usage(context: click.Context, image: str | None, input_: str | None, format_: str | None) -> None:
    """Refuse options of `mlic-infer` that do not go together.

    Raises:
        click.UsageError: see the message.
    """
    given = _given(context)
    for alone, company in (("list_models", "format_"), ("verify", None)):
        if alone in given:
            others = [shown for name, shown in given.items() if name not in (alone, company)]
            if others:
                raise click.UsageError(f"'{given[alone]}' and '{others[0]}' exclude each other.", context)
            if format_ is not None and format_ not in MODEL_FORMATS:
                raise click.UsageError(
                    f"'{given[alone]}' needs '--format' {_either(MODEL_FORMATS)}; found {format_}.", context
                )
            return
    if input_ is None:
        if image is None:
            raise click.UsageError("Missing argument 'IMAGE', or '--input' for many.", context)
        for name in BatchOptions.__dataclass_fields__:
            if name in given:
                raise click.UsageError(f"'{given[name]}' needs '--input'.", context)
        if format_ is not None and format_ not in FORMATS:
            raise click.UsageError(f"'--format {format_}' needs '--input'.", context)
        return
    if image is not None:
        raise click.UsageError("IMAGE and '--input' exclude each other.", context)
    if format_ is not None and format_ not in BATCH_FORMATS:
        raise click.UsageError(f"'--input' needs '--format' {_either(BATCH_FORMATS)}; found {format_}.", context)
    if "resume" in given and "output" not in given:
        raise click.UsageError("'--resume' needs '--output'.", context)
    if "label_ids" in given and format_ != "submission":
        raise click.UsageError("'--label-ids' needs '--format submission'.", context)
    if context.params["pictures"] is False and context.params["captions"] is False:
        raise click.UsageError("'--no-pictures' and '--no-captions' exclude each other.", context)


def check_choose(context: click.Context) -> None:
    """Refuse options of `mlic-bench` that do not go with `--choose`.

    Raises:
        click.UsageError: see the message.
    """
    given = _given(context)
    for name in ("precision", "against", "checkpoint"):
        if name in given:
            raise click.UsageError(f"'--choose' and '{given[name]}' exclude each other.", context)
    if context.params["batch_size"] != 1:
        raise click.UsageError(
            f"'--choose' measures one picture at a time; found '--batch-size' {context.params['batch_size']}.", context
        )


def _given(context: click.Context) -> dict[str, str]:
    """{parameter: how the user calls it}, for those that were given, in the order of the command."""
    return {
        parameter.name: "/".join([*parameter.opts, *parameter.secondary_opts])
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name
        for parameter in context.command.params
        if parameter.name is not None
        and context.get_parameter_source(parameter.name) is not click.core.ParameterSource.DEFAULT
    }


def _either(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
