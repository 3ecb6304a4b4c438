"""Checks of which arguments and options of a command can be used together."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click

from mlic_runtime.base.far_files import is_uri
from mlic_runtime.picture.signatures import is_picture_file
from mlic_runtime.tables.columns import STDIN

from .formats import BATCH_FORMATS, FORMATS, LABEL_STUDIO, MODEL_FORMATS
from .options import NOT_WATCHED, RAY_OPTIONS, BatchOptions

# Options of mlic-bench that change what it measures, and what has no meaning with them.
_BENCH_MODES = {
    "choose": ("precision", "against", "checkpoint"),
    "stages": ("against", "checkpoint"),
    "cold_start": ("against", "checkpoint"),
}


def check_infer(context: click.Context, image: str | None, input_: str | None, format_: str | None) -> None:
    """Refuse options of `mlic-infer` that cannot be used together.

    Raises:
        click.UsageError: names the first two of them.
    """
    given = _given(context)
    for option, allowed in (("list_models", "format_"), ("verify", None)):
        if option in given:
            for name, shown in given.items():
                if name not in (option, allowed):
                    _refuse(context, f"'{given[option]}' and '{shown}' exclude each other.")
            _check_format(context, given[option], format_, MODEL_FORMATS)
            return
    if "watch" in given:
        _check_watch(context, format_, given)
        return
    if "watch_interval" in given:
        _refuse(context, "'--watch-interval' needs '--watch'.")
    if input_ is None:
        _check_single(context, image, format_, given)
        return
    if image is not None:
        _refuse(context, "IMAGE and '--input' exclude each other: '--input' is one folder or one file of rows.")
    if "explain" in given:
        _refuse(context, "'--explain' shows one picture: give IMAGE instead of '--input', or use Python for many.")
    if context.params["sidecar"]:
        _refuse(context, "'--sidecar' needs IMAGE; '--input FOLDER' reads such files by itself.")
    _check_engine(context, input_, given)
    _check_format(context, "--input", format_, BATCH_FORMATS)
    if "resume" in given and "output" not in given:
        _refuse(context, "'--resume' needs '--output'.")
    if format_ == LABEL_STUDIO and "uncertain" not in given:
        _refuse(context, f"'--format {LABEL_STUDIO}' needs '--uncertain', the number of rows to label.")
    if "uncertain" in given and "resume" in given:
        _refuse(context, "'--uncertain' and '--resume' exclude each other: before the last row nothing is written.")
    if "label_ids" in given and format_ != "submission":
        _refuse(context, "'--label-ids' needs '--format submission'.")
    if context.params["pictures"] is False and context.params["captions"] is False:
        _refuse(context, "'--no-pictures' and '--no-captions' exclude each other.")


def check_bench(context: click.Context) -> None:
    """Refuse options of `mlic-bench` that cannot be used together.

    Raises:
        click.UsageError: names the first two of them.
    """
    given = _given(context)
    modes = [mode for mode in _BENCH_MODES if context.params[mode]]
    if not modes:
        return
    mode, *more = modes
    for name in (*more, *_BENCH_MODES[mode]):
        if name in given:
            _refuse(context, f"'{given[mode]}' and '{given[name]}' exclude each other.")
    batch_sizes, threads = context.params["batch_size"], context.params["threads"] or ()
    if batch_sizes != (1,):
        found = ",".join(map(str, batch_sizes))
        _refuse(context, f"'{given[mode]}' measures one picture at a time; found '--batch-size' {found}.")
    if len(threads) > 1:
        found = ",".join(map(str, threads))
        _refuse(context, f"'{given[mode]}' takes one number of threads; found '--threads' {found}.")


def _check_watch(context: click.Context, format_: str | None, given: dict[str, str]) -> None:
    for name in ("image", "input_", "sidecar", "explain", *NOT_WATCHED):
        if name in given:
            _refuse(context, f"'--watch' and '{given[name]}' exclude each other.")
    if context.params["engine"] != "local":
        _refuse(context, "'--watch' needs '--engine local'.")
    for name in RAY_OPTIONS:
        if name in given:
            _refuse(context, f"'{given[name]}' needs '--engine ray'.")
    _check_format(context, "--watch", format_, ("jsonl", "csv"))
    output = context.params["output"]
    if output is not None and Path(output).is_dir():
        _refuse(context, f"'--output' needs a file; {output!r} is a folder.")


def _check_single(context: click.Context, image: str | None, format_: str | None, given: dict[str, str]) -> None:
    if image is None:
        _refuse(context, "Missing argument 'IMAGE', or '--input' for many.")
    for name in BatchOptions._fields:
        if name in given:
            _refuse(context, f"'{given[name]}' needs '--input'.")
    if format_ is not None and format_ not in FORMATS:
        _refuse(context, f"'--format {format_}' needs '--input'.")
    caption, sidecar = context.params["caption"], context.params["sidecar"]
    if sidecar and caption is not None:
        _refuse(context, "CAPTION and '--sidecar' exclude each other.")
    if sidecar and image == STDIN:
        _refuse(context, "'--sidecar' needs IMAGE to be a file: standard input has no file beside it.")
    if image == STDIN == caption:
        _refuse(context, "IMAGE and CAPTION cannot both be '-': there is only one standard input.")
    _check_what_is_one(context, image, caption)


def _check_what_is_one(context: click.Context, image: str, caption: str | None) -> None:
    """Refuse several pictures, a folder, and a caption of several arguments: one prediction is of one picture."""
    more = list(context.args)
    pictures = [text for text in ([caption] if caption else []) + more if _is_there(text) and is_picture_file(text)]
    several = "Give several with '--input', a folder or a file of rows."
    if len(pictures) == 1 == len(more) + 1:
        _refuse(context, f"CAPTION {pictures[0]!r} is a picture file: IMAGE is one picture. {several}")
    if pictures:
        _refuse(context, f"IMAGE is one picture; found {1 + len(pictures)}, the second is {pictures[0]!r}. {several}")
    if more:
        words = " ".join([caption or "", *more])
        _refuse(context, f"CAPTION is one argument; found {1 + len(more)}: put it in quotes, {words!r}.")
    if image != STDIN and os.path.isdir(image):  # noqa: PTH112 # see `_is_there`
        _refuse(context, f"IMAGE {image!r} is a folder: give the pictures of a folder with '--input'.")
    if any(character in image for character in "*?") and not is_uri(image) and not os.path.lexists(image):
        _refuse(context, f"IMAGE {image!r} is not there. {several}")


def _is_there(text: str) -> bool:
    # Not `Path.is_file`, which raises an error for a text that is too long for a name.
    return os.path.isfile(text)  # noqa: PTH113


def _check_engine(context: click.Context, input_: str, given: dict[str, str]) -> None:
    output, provider = context.params["output"], context.params["provider"]
    if context.params["engine"] == "local":
        for name in RAY_OPTIONS:
            if name in given:
                _refuse(context, f"'{given[name]}' needs '--engine ray'.")
        if output is not None and Path(output).is_dir():
            _refuse(context, f"'--output' needs a file; {output!r} is a folder.")
        return
    if "uncertain" in given:
        _refuse(context, "'--uncertain' needs '--engine local'.")
    if output is None:
        _refuse(context, "'--engine ray' needs '--output', a folder.")
    if input_ == STDIN:
        _refuse(context, "'--engine ray' needs an input that can be read again; found '--input -'.")
    if "format_" in given:
        _refuse(context, "'--engine ray' writes Parquet: leave '--format' out.")
    if provider != "cpu":
        _refuse(context, f"'--engine ray' needs '--provider cpu'; found {provider}.")


def _check_format(context: click.Context, option: str, format_: str | None, allowed: Iterable[str]) -> None:
    if format_ is not None and format_ not in allowed:
        *most, last = allowed
        _refuse(context, f"'{option}' needs '--format' {', '.join(most)} or {last}; found {format_}.")


def _given(context: click.Context) -> dict[str, str]:
    """Return {parameter: its name on the command line} of those that were given, in the order of the command."""
    return {
        parameter.name: "/".join([*parameter.opts, *parameter.secondary_opts])
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name
        for parameter in context.command.params
        if parameter.name is not None
        and context.get_parameter_source(parameter.name) is not click.core.ParameterSource.DEFAULT
    }


def _refuse(context: click.Context, message: str) -> NoReturn:
    raise click.UsageError(message, context)
