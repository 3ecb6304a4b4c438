"""Options that say where the data is."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlic_runtime.annotations.names import DATA_FORMATS
from mlic_runtime.base.option import check, option
from mlic_train.errors import ConfigError

_data = partial(option, group="Data")


@dataclass(frozen=True)
class DataOptions:
    """Where the data is: a folder that is searched (`folder`), single files, or both (files win).

    Where shards may stand, one name may stand for many (see `find_splits` for what such a `folder` means).
    """

    folder: Path | None = _data(
        None,
        "Your data: a folder, a zip file, or one file with rows; or shards, 'train-{000..063}.tar'.",
        flag="data",
        path="data folder",
        metavar="FOLDER|FILE|SHARDS",
        common=True,
    )
    train: tuple[Path, ...] = _data((), "Training rows; may be repeated.", path="data file", common=True)
    val: tuple[Path, ...] = _data((), "Validation rows.", path="data file", common=True)
    test: tuple[Path, ...] = _data((), "Test rows; training measures them once, at the end.", path="data file")
    captions: tuple[Path, ...] = _data((), "More captions with labels, without pictures.", path="data file")
    also: tuple[Path, ...] = _data(
        (), "More labelled training rows, such as corrections; their labels replace older ones.", path="data file"
    )
    val_fraction: float = _data(
        0.15, "Share of the training rows that becomes val where the data has none.", low=0, high=0.5, open_low=True
    )
    split_seed: int = _data(0, "Seed of that division; --seed does not change it.", low=0, high=2**32)
    labels_file: Path | None = _data(
        None,
        "Names of the labels: CSV with LabelID,Name.",
        flag="labels",
        path="file",
        follows="those that occur",
    )
    images: Path | None = _data(None, "The pictures' folder.", path="folder", follows="images/ beside the rows")
    data_format: str = _data("auto", "Format of the files with rows; auto recognises it.", choices=DATA_FORMATS)
    image_column: str | None = _data(None, "Column of a table with the pictures.", follows="found by its name")
    caption_column: str | None = _data(None, "Column of a table with the captions.", follows="found by its name")
    labels_column: tuple[str, ...] = _data((), "Column of a table with labels; may be repeated.")
    split_column: str | None = _data(None, "Column of a table with train, val or test.", follows="found by its name")
    pictures: bool = _data(True, "Read pictures; without them only captions and labels are read.")
    skip_bad_rows: bool = _data(False, "Leave out, and list, every row that --check calls an error.")

    def __post_init__(self) -> None:
        check(self, ConfigError)

    @property
    def has_training_rows(self) -> bool:
        """Whether training data is named."""
        return self.folder is not None or bool(self.train)
