"""Finding the splits of a data folder by their names."""

from dataclasses import dataclass
from pathlib import Path

from mlic_train.data.formats.registry import FORMATS
from mlic_train.data.formats.shards import check_listed, find_shards
from mlic_train.data.source.addresses import expand, is_remote, is_shards, location_of
from mlic_train.data.source.files import is_there
from mlic_train.errors import DataError

_PATTERNS = [pattern.format(split="train") for each in FORMATS for pattern in each.split_files]
_LAYOUT = (
    f"{', '.join(_PATTERNS[:-1])} or {_PATTERNS[-1]}; the same for val and test; and optionally captions*.csv, "
    "labels.csv and the folder images"
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
    """Find train, val and test in a data folder, with the files that belong to them.

    Args:
        folder: the data folder, or the address of one with shards; or shards, as one name (see `addresses`), such as
            `shards/train-{000..063}.tar`. Shards whose names begin with val or test are for these splits, the others
            for training. For a split without shards in that name, `val-*.tar` and `test-*.tar` beside them are used.

    Raises:
        DataError: it is not a folder, has no training split, or has one split in two files; a shard is not there, or
            differs from `shards.json`.
    """
    if is_shards(folder.name) and not folder.is_dir():
        return _splits_of_shards(expand(folder))
    if is_remote(folder):
        if not (shards := find_shards(folder, "train")):
            raise DataError(f"{location_of(folder)}: no training split; expected shards such as train-000000.tar")
        return _splits_of_shards(tuple(shards))
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; expected a data folder with {_LAYOUT}")
    train = _find_split(folder, "train")
    if not train:
        found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        listing = ", ".join(found[:12]) + (f", ... ({len(found)} in all)" if len(found) > 12 else "")
        raise DataError(f"{folder}: no training split; found {listing or 'nothing'}; expected {_LAYOUT}")
    splits = {"train": train, "val": _find_split(folder, "val"), "test": _find_split(folder, "test")}
    check_listed((file for files in splits.values() for file in files if is_shards(file.name)), whole=True)
    labels_file, images = folder / "labels.csv", folder / "images"
    captions = [file for suffix in ("csv", "jsonl") for file in sorted(folder.glob(f"captions*.{suffix}"))]
    return SplitFiles(
        train=train,
        val=splits["val"],
        test=splits["test"],
        captions=tuple(captions),
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


def _find_split(folder: Path, split: str) -> tuple[Path, ...]:
    found = [files for each in FORMATS for files in each.find_split(folder, split)]
    if len(found) > 1:
        names = ", ".join(str(files[0].relative_to(folder)) for files in found)
        raise DataError(f"{folder}: found {names} for the split {split!r}; expected one: name the files to use")
    return found[0] if found else ()
