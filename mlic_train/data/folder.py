"""Finding the splits of a data folder by their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlic_train.data.formats.format import SPLIT_NAMES, is_captions
from mlic_train.data.formats.registry import FORMATS
from mlic_train.data.formats.shards import check_listed, find_shards
from mlic_train.data.source.addresses import expand, is_remote, is_shards, location_of
from mlic_train.data.source.files import is_there
from mlic_train.errors import DataError

_TITLES = ", ".join(each.title for each in FORMATS if not each.fallback)
_LAYOUT = (
    f"files or folders named train, val and test, or one data set that is not divided ({_TITLES}), with labels.csv, "
    "captions*.csv and the folder images where they are needed"
)


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The files of a data folder.

    Attributes:
        train: the training split.
        val: the split for tuning; empty when there is none.
        test: the split for reporting; empty when there is none.
        captions: more captions for training (captions*.csv, captions*.jsonl).
        labels_file: labels.csv; None when there is none.
        images: the folder `images`; None when there is none.
    """

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    captions: tuple[Path, ...] = ()
    labels_file: Path | None = None
    images: Path | None = None

    def by_split(self) -> dict[str, tuple[Path, ...]]:
        """Return the files of each split that has any; more captions belong to train."""
        files = {"train": (*self.train, *self.captions), "val": self.val, "test": self.test}
        return {name: paths for name, paths in files.items() if paths}


def find_splits(folder: Path) -> SplitFiles:
    """Find train, val and test in a data folder, with the sources that belong to them.

    Where no file or folder is named like a split, everything is returned as `train`: the rows themselves may name
    their split, or val is divided off later (see `splits.load_splits`).

    Args:
        folder: the data folder, or the address of one with shards; or shards, as one name (see `addresses`), such as
            `shards/train-{000..063}.tar`. Shards whose names begin with val or test are for these splits, the others
            for training. For a split without shards in that name, `val-*.tar` and `test-*.tar` beside them are used.
            Or one file with rows.

    Raises:
        DataError: there is no such file or folder, it has no training split, or has one split in two files; a shard is
            not there, or differs from `shards.json`.
    """
    if is_shards(folder.name) and not folder.is_dir():
        return _splits_of_shards(expand(folder))
    if is_remote(folder):
        if not (shards := find_shards(folder, "train")):
            raise DataError(f"{location_of(folder)}: no training split; expected shards such as train-000000.tar")
        return _splits_of_shards(tuple(shards))
    if folder.is_file():
        return _with_extras(folder.parent, {"train": (folder,)}, captions=False)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a file or folder; expected a data folder with {_LAYOUT}")
    splits = _find_named(folder) or _find_split_folders(folder)
    if not splits:
        splits = {"train": _only(folder, "the training data", _find_whole(folder))}
    if not splits["train"]:
        found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        listing = ", ".join(found[:12]) + (f", ... ({len(found)} in all)" if len(found) > 12 else "")
        raise DataError(f"{folder}: no training split; found {listing or 'nothing'}; expected {_LAYOUT}")
    check_listed((file for files in splits.values() for file in files if is_shards(file.name)), whole=True)
    return _with_extras(folder, splits)


def _with_extras(folder: Path, splits: Mapping[str, tuple[Path, ...]], captions: bool = True) -> SplitFiles:
    """Return splits with the labels file, the captions and the folder of pictures that stand in a folder."""
    labels_file, images = folder / "labels.csv", folder / "images"
    more = [file for file in sorted(folder.iterdir()) if captions and is_captions(file)]
    return SplitFiles(
        train=splits["train"],
        val=splits.get("val", ()),
        test=splits.get("test", ()),
        captions=tuple(more),
        labels_file=labels_file if labels_file.is_file() else None,
        images=images if images.is_dir() else None,
    )


def _splits_of_shards(shards: tuple[Path, ...]) -> SplitFiles:
    """Return the splits by the names of shards, with the other files in their folder."""
    splits: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for shard in shards:
        splits[next((name for name in ("val", "test") if shard.name.startswith(name)), "train")].append(shard)
    folder = shards[0].parent
    for name in ("val", "test"):
        splits[name] = splits[name] or find_shards(folder, name)
    check_listed((shard for found in splits.values() for shard in found), whole=False)
    labels_file = folder / "labels.csv"
    return SplitFiles(
        train=tuple(splits["train"]),
        val=tuple(splits["val"]),
        test=tuple(splits["test"]),
        labels_file=labels_file if is_there(labels_file) else None,
    )


def _find_named(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the sources by split from the names of files, such as train.csv; empty where no name tells."""
    splits = {split: _find_split(folder, split) for split in SPLIT_NAMES}
    return splits if any(splits.values()) else {}


def _find_split(folder: Path, split: str) -> tuple[Path, ...]:
    found = [files for each in FORMATS for name in SPLIT_NAMES[split] for files in each.find_split(folder, name)]
    return _only(folder, f"the split {split!r}", list(dict.fromkeys(found)))


def _find_split_folders(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the sources by split from folders that are named like splits; empty where there are none."""
    splits = {}
    for split, names in SPLIT_NAMES.items():
        folders = [entry for entry in sorted(folder.iterdir()) if entry.name.lower() in names and entry.is_dir()]
        _only(folder, f"the split {split!r}", [(each,) for each in folders])
        splits[split] = next((_only(each, each, _find_whole(each)) for each in folders), ())
    return splits if any(splits.values()) else {}


def _find_whole(folder: Path) -> list[tuple[Path, ...]]:
    """Return what a folder holds: every choice that a format has, or without one those of the formats that fit any."""
    for fallback in (False, True):
        found = [files for each in FORMATS if each.fallback == fallback for files in each.find_whole(folder)]
        if found:
            return found
    return []


def _only(folder: Path, what: object, found: list[tuple[Path, ...]]) -> tuple[Path, ...]:
    """Return the one choice; () without any.

    Raises:
        DataError: there are several.
    """
    found = list(dict.fromkeys(found))  # several formats may take one file: the first of them reads it
    if len(found) > 1:
        names = ", ".join(str(files[0].relative_to(folder)) for files in found)
        raise DataError(f"{folder}: found {names} for {what}; expected one: name the files to use")
    return found[0] if found else ()
