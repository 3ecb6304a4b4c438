"""The options that say where the data is, for every command that reads data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlic_runtime.annotations.source.addresses import is_pattern, is_remote, is_shards
from mlic_runtime.base.option import options_of
from mlic_runtime.base.override import override
from mlic_runtime.cli.fields import field_options
from mlic_train.config import DataOptions


class DataPath(click.Path):
    """A path that exists, or the name or address of shards, which are looked for when they are read.

    Args:
        folder: whether it may be a folder too, which is searched, or the address of one.
    """

    def __init__(self, folder: bool) -> None:
        super().__init__(exists=True, dir_okay=folder, path_type=Path)

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = str(value)
        if is_pattern(name) or (self.dir_okay and (is_shards(name) or is_remote(Path(name)))):
            return Path(name)
        return super().convert(value, param, ctx)


DATA_PATHS = {"data file": DataPath(folder=False), "data folder": DataPath(folder=True)}
data_options = field_options(DataOptions, path_types=DATA_PATHS, heading="Options of the data")


def data_from(options: Mapping[str, Any]) -> DataOptions:
    """Return what the values of these options say."""
    return DataOptions(**{name: options[name] for name in options_of(DataOptions)})
