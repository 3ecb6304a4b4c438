"""Which arguments and options of a command go together."""

from collections.abc import Iterable
from pathlib import Path

import click

from mlic_runtime.rows.columns import STDIN

from .batch_options import BatchOptions
from .formats import BATCH_FORMATS, FORMATS, MODEL_FORMATS

# Each measures something else than mlic-bench does without it -> what it gives no meaning to.
_BENCH_MODES = {
    "choose": ("precision", "against", "checkpoint"),
    "stages": ("against", "checkpoint"),
    "cold_start": ("against", "checkpoint"),
}


# What only the engine `ray` gives a meaning to.
_RAY_OPTIONS = ("address", "actors", "rows_per_file")


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
        for name in BatchOptions._fields:
            if name in given:
                raise click.UsageError(f"'{given[name]}' needs '--input'.", context)
        if format_ is not None and format_ not in FORMATS:
            raise click.UsageError(f"'--format {format_}' needs '--input'.", context)
        _check_caption(context, image)
        return
    if image is not None:
        raise click.UsageError("IMAGE and '--input' exclude each other.", context)
    if context.params["sidecar"]:
        raise click.UsageError("'--sidecar' needs IMAGE; '--input FOLDER' reads such files by itself.", context)
    _check_engine(context, input_, given)
    if format_ is not None and format_ not in BATCH_FORMATS:
        raise click.UsageError(f"'--input' needs '--format' {_either(BATCH_FORMATS)}; found {format_}.", context)
    if "resume" in given and "output" not in given:
        raise click.UsageError("'--resume' needs '--output'.", context)
    if "label_ids" in given and format_ != "submission":
        raise click.UsageError("'--label-ids' needs '--format submission'.", context)
    if context.params["pictures"] is False and context.params["captions"] is False:
        raise click.UsageError("'--no-pictures' and '--no-captions' exclude each other.", context)


def check_bench(context: click.Context) -> None:
    """Refuse options of `mlic-bench` that do not go together.

    Raises:
        click.UsageError: see the message.
    """
    given = _given(context)
    modes = [mode for mode in _BENCH_MODES if context.params[mode]]
    if not modes:
        return
    mode, *more = modes
    for name in (*more, *_BENCH_MODES[mode]):
        if name in given:
            raise click.UsageError(f"'{given[mode]}' and '{given[name]}' exclude each other.", context)
    if context.params["batch_size"] != (1,):
        found = ",".join(map(str, context.params["batch_size"]))
        raise click.UsageError(
            f"'{given[mode]}' measures one picture at a time; found '--batch-size' {found}.", context
        )
    if len(context.params["threads"] or ()) > 1:
        found = ",".join(map(str, context.params["threads"]))
        raise click.UsageError(f"'{given[mode]}' takes one number of threads; found '--threads' {found}.", context)


def _check_engine(context: click.Context, input_: str, given: dict[str, str]) -> None:
    output = context.params["output"]
    if context.params["engine"] == "local":
        for name in _RAY_OPTIONS:
            if name in given:
                raise click.UsageError(f"'{given[name]}' needs '--engine ray'.", context)
        if output is not None and Path(output).is_dir():
            raise click.UsageError(f"'--output' needs a file; {output!r} is a folder.", context)
        return
    if output is None:
        raise click.UsageError("'--engine ray' needs '--output', a folder.", context)
    if input_ == STDIN:
        raise click.UsageError("'--engine ray' needs an input that can be read again; found '--input -'.", context)
    if "format_" in given:
        raise click.UsageError("'--engine ray' writes Parquet: leave '--format' out.", context)
    if context.params["provider"] != "cpu":
        found = context.params["provider"]
        raise click.UsageError(f"'--engine ray' needs '--provider cpu'; found {found}.", context)


def _check_caption(context: click.Context, image: str) -> None:
    caption = context.params["caption"]
    if context.params["sidecar"]:
        if caption is not None:
            raise click.UsageError("CAPTION and '--sidecar' exclude each other.", context)
        if image == STDIN:
            raise click.UsageError("'--sidecar' needs IMAGE to be a file: nothing lies beside standard input.", context)
    if image == STDIN == caption:
        raise click.UsageError("IMAGE and CAPTION cannot both be '-': there is only one standard input.", context)


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
