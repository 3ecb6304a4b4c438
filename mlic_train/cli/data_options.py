"""The options that say where the data is, for every command that reads data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlic_train.base.progress import log_line
from mlic_train.data import DATA_FORMATS
from mlic_train.data.source.addresses import is_pattern, is_remote, is_shards

if TYPE_CHECKING:
    from mlic_train.data import Split
    from mlic_train.data.splits import DataOptions

F = TypeVar("F", bound=Callable[..., Any])


class DataPath(click.Path):
    """A path that is there, or the name or address of shards, which are looked for when they are read.

    Args:
        folder: whether a folder is wanted, or a file.
    """

    def __init__(self, folder: bool) -> None:
        super().__init__(exists=True, file_okay=not folder, dir_okay=folder, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, but for shards."""
        name = str(value)
        if is_pattern(name) or (not self.file_okay and (is_shards(name) or is_remote(Path(name)))):
            return Path(name)
        return super().convert(value, param, ctx)


_FILE, _FOLDER = DataPath(folder=False), DataPath(folder=True)
_LABELS = click.Path(exists=True, dir_okay=False, path_type=Path)
_IMAGES = click.Path(exists=True, file_okay=False, path_type=Path)
_DATA_HELP = "Folder with train, val, test, labels.csv and images/; or shards: 'shards/train-{000..063}.tar'."


def data_options(command: F) -> F:
    """The options that say where the data is."""
    options = [
        click.option("--data", "folder", type=_FOLDER, metavar="FOLDER|SHARDS", help=_DATA_HELP),
        click.option("--train", "train_files", type=_FILE, multiple=True, help="Training rows; may be repeated."),
        click.option("--val", type=_FILE, multiple=True, help="Validation rows (thresholds, best checkpoint)."),
        click.option("--test", type=_FILE, multiple=True, help="Test rows, measured once at the end."),
        click.option("--captions", type=_FILE, multiple=True, help="More captions with labels, without pictures."),
        click.option("--labels", "labels_file", type=_LABELS, help="labels.csv: LabelID,Name."),
        click.option("--images", type=_IMAGES, help="The pictures' folder (default: images/ beside the rows)."),
        click.option("--data-format", type=click.Choice(DATA_FORMATS), default="auto", show_default=True),
        click.option("--no-pictures", is_flag=True, help="Read captions and labels only."),
        click.option("--skip-bad-rows", is_flag=True, help="Leave bad rows out and list them, instead of stopping."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def data_from(options: Mapping[str, Any]) -> "DataOptions":
    """What the values of these options say."""
    from mlic_train.data.splits import DataOptions

    return DataOptions(
        folder=options["folder"],
        train=options["train_files"],
        val=options["val"],
        test=options["test"],
        captions=options["captions"],
        labels_file=options["labels_file"],
        images=options["images"],
        data_format=options["data_format"],
        skip_bad_rows=options["skip_bad_rows"],
        pictures=not options["no_pictures"],
    )


def list_skipped(split: "Split") -> None:
    """Log the bad rows that were left out."""
    for problem in split.skipped:
        log_line(f"skipped {problem}")
    if split.skipped:
        log_line(f"skipped {len(split.skipped)} bad rows")
