"""Read the splits that training uses from the files that options name."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlic_train.base.progress import log_line, progress_bar
from mlic_train.config import DataOptions
from mlic_train.data.source.addresses import expand
from mlic_train.errors import ConfigError, DataError

from .check import check_splits, leave_out_undecodable
from .folder import SplitFiles, find_splits
from .formats.format import ColumnNames
from .labels import LabelSet
from .problems import Problem
from .reader import read_labels, read_split
from .records import Split


@dataclass(frozen=True)
class Splits:
    """The splits as they were read; `test` is None without one."""

    labels: LabelSet
    train: Split
    val: Split
    test: Split | None

    def named(self) -> dict[str, Split]:
        """Return {"train": ..., "val": ..., "test": ...}, without missing ones."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}


def split_files(options: DataOptions) -> SplitFiles:
    """Return the files of every split.

    Raises:
        ConfigError: neither a folder nor a training file was given.
        DataError: the folder does not hold what it should.
    """
    if not options.has_training_rows:
        raise ConfigError("no training data: give --data FOLDER, or --train FILE (and --val FILE)")
    searched = SplitFiles(train=()) if options.folder is None else find_splits(options.folder, options.data_format)
    for line in searched.notes:
        log_line(line)
    given: dict[str, Any] = {"labels_file": options.labels_file, "images": options.images}
    for name in ("train", "val", "test", "captions"):
        given[name] = tuple(one for file in getattr(options, name) for one in expand(file))
    return dataclasses.replace(searched, **{name: value for name, value in given.items() if value})


def load_splits(options: DataOptions, labels: LabelSet | None = None) -> Splits:
    """Read all splits; with `skip_bad_rows` pictures are decoded too, and rows whose picture cannot be are left out.

    Args:
        options: where they are.
        labels: the labels of an existing model; None takes them from the data.

    Raises:
        DataError: a file or row cannot be used, or training or validation rows have no labels.
        ConfigError: no training or no validation data was given.
    """
    files = split_files(options)
    if not files.val:
        raise ConfigError("no validation data: give --val FILE; thresholds and the best checkpoint come from it")
    if labels is None:
        labels = _read_labels(options, files)
    read = _reader(options, files, labels)
    named = {name: read(paths) for name, paths in files.by_split().items()}
    if options.skip_bad_rows:
        with progress_bar("pictures") as progress:
            named = leave_out_undecodable(named, progress)
    splits = Splits(labels, named["train"], named["val"], named.get("test"))
    for name, split in splits.named().items():
        unlabelled = next((record for record in split.records if record.labels is None), None)
        if unlabelled is not None:
            raise DataError(
                f"{unlabelled.file}: record {unlabelled.number} of the split {name!r} is not labelled; "
                "a split needs a Labels column (an empty cell means none of the labels)"
            )
    return splits


def read_splits(options: DataOptions) -> dict[str, Split]:
    """Read the splits that the data has.

    Unlike training, a report and shards need no val, and take rows that are not labelled.

    Raises:
        ConfigError: no training data was given.
        DataError: a file or row cannot be used.
    """
    files = split_files(options)
    labels = _read_labels(options, files)
    read = _reader(options, files, labels)
    return {name: read(paths) for name, paths in files.by_split().items()}


def _reader(options: DataOptions, files: SplitFiles, labels: LabelSet) -> Callable[[Sequence[Path]], Split]:
    """Return a function that reads the files of one split."""
    return partial(
        read_split,
        labels=labels,
        images=files.images,
        data_format=options.data_format,
        skip_bad_rows=options.skip_bad_rows,
        pictures=options.pictures,
        columns=column_names(options),
    )


def _read_labels(options: DataOptions, files: SplitFiles) -> LabelSet:
    training = (*files.train, *files.captions)
    return read_labels(training, options.data_format, files.labels_file, column_names(options))


def column_names(options: DataOptions) -> ColumnNames:
    """Return the columns of tables that the user names."""
    return ColumnNames(options.image_column, options.caption_column, options.labels_column, options.split_column)


def check_data(options: DataOptions, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Problem]:
    """Find everything that is wrong with the data, without training (see `data.check.check_splits`)."""
    files = split_files(options)
    labels = _read_labels(options, files)
    return check_splits(
        files.by_split(),
        labels,
        images=files.images,
        data_format=options.data_format,
        pictures=options.pictures,
        columns=column_names(options),
        progress=progress,
    )
