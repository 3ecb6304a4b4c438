"""Finding the splits of a data folder by their names."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.annotations.formats.folder_format import SPLIT_WORDS, FolderFormat
from mlic_runtime.annotations.formats.format import SPLIT_NAMES, Format, is_captions
from mlic_runtime.annotations.formats.registry import FORMATS
from mlic_runtime.annotations.formats.shards import check_listed, find_shards
from mlic_runtime.annotations.source.addresses import expand, is_remote, is_shards, location_of
from mlic_runtime.annotations.source.archive import Archive, errors_of, is_archive, unpack
from mlic_runtime.annotations.source.files import is_there
from mlic_runtime.annotations.source.tree import subfolders
from mlic_runtime.base.text import counted
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_WRAPPING_FOLDERS
from mlic_runtime.tables.columns import PICTURE_SUFFIXES

_TITLES = ", ".join(each.title for each in FORMATS)
_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq")
_LAYOUT = (
    f"files or folders named train, val and test, or one data set that is not divided ({_TITLES}), with labels.csv, "
    "captions*.csv and the folder images where they are needed"
)


class NoAnnotationsError(DataError):
    """A folder has no source of annotations, whether it has pictures or not."""


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
        notes: what people should know about where the data was found, a line each.
        archive: the zip file that they are from; None for other data.
    """

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    captions: tuple[Path, ...] = ()
    labels_file: Path | None = None
    images: Path | None = None
    notes: tuple[str, ...] = ()
    archive: Archive | None = None

    def by_split(self) -> dict[str, tuple[Path, ...]]:
        """Return the files of each split that has any; more captions belong to train."""
        files = {"train": (*self.train, *self.captions), "val": self.val, "test": self.test}
        return {name: paths for name, paths in files.items() if paths}


def find_splits(folder: Path, data_format: str = "auto", *, needs_train: bool = True) -> SplitFiles:
    """Find train, val and test in a data folder, with the sources that belong to them.

    Where no file or folder is named like a split, everything is returned as `train`: the rows themselves may name
    their split, or val is divided off later (see `splits.load_splits`). Where a folder holds nothing but another one,
    the data is looked for in that.

    Args:
        folder: the data folder, or the address of one with shards; or shards, as one name (see `addresses`), such as
            `shards/train-{000..063}.tar`. Shards whose names begin with val or test are for these splits, the others
            for training. For a split without shards in that name, `val-*.tar` and `test-*.tar` beside them are used.
            Or one file with rows; or a zip file with any of these, which is unpacked first (see `archive.unpack`).
        data_format: one of DATA_FORMATS; only sources in that format are looked for. A format whose sources are
            folders then takes any folder.
        needs_train: False takes a folder that has val or test alone.

    Raises:
        NoAnnotationsError: nothing in the folder is a source of annotations.
        DataError: there is no such file or folder, it has no training split, or has one split in two files; a shard is
            not there, or differs from `shards.json`; a zip file cannot be unpacked.
        OutputError: there is no room to unpack a zip file.
    """
    if is_shards(folder.name) and not folder.is_dir():
        return _splits_of_shards(expand(folder))
    if is_remote(folder):
        if not (shards := find_shards(folder, "train")):
            raise DataError(f"{location_of(folder)}: no training split; expected shards such as train-000000.tar")
        return _splits_of_shards(tuple(shards))
    if folder.is_file() and is_archive(folder):
        unpacked, note = unpack(folder)
        archive = Archive(folder, unpacked)
        with errors_of(archive):
            found = find_splits(unpacked, data_format, needs_train=needs_train)
        return dataclasses.replace(found, notes=(note, *map(archive.named_in, found.notes)), archive=archive)
    if folder.is_file():
        return _with_extras(folder.parent, {"train": (folder,)}, captions=False)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a file or folder; expected a data folder with {_LAYOUT}")
    chosen = [each for each in FORMATS if data_format in ("auto", each.name)]
    inner, splits = _search(folder, chosen)
    if not splits and data_format != "auto":
        if any(isinstance(each, FolderFormat) for each in chosen):
            inner, splits = folder, _forced(folder)
        else:  # its files may have the names of another format's
            inner, splits = _search(folder, FORMATS)
    if not splits.get("train") and (needs_train or not any(splits.values())):
        kind = DataError if any(splits.values()) else NoAnnotationsError
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        listing = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
        if pictures := _only_pictures(folder):
            raise kind(
                f"{folder}: found {counted(pictures, 'picture')} and no labels; expected a table beside them, such as "
                "rows.csv (a column with the pictures' names, one with their labels), a folder for each label, or an "
                "export of a labelling tool"
            )
        raise kind(f"{folder}: no training split; found {listing or 'nothing'}; expected {_LAYOUT}")
    check_listed((file for files in splits.values() for file in files if is_shards(file.name)), whole=True)
    notes = () if inner == folder else (f"{folder}: found the data in its folder {inner.relative_to(folder)}",)
    found_files = _with_extras(inner, splits)
    if unread := _unread(inner, found_files):
        shown = ", ".join(unread[:5]) + (f", ... ({len(unread)} in all)" if len(unread) > 5 else "")
        notes = (*notes, f"{inner}: nothing is read from {shown}; to read another file, name that one")
    return dataclasses.replace(found_files, notes=notes)


def _unread(folder: Path, found: SplitFiles) -> list[str]:
    """Return the names of files in a folder that look like data, and that no split is read from."""
    splits = [file for files in found.by_split().values() for file in files]
    if any(file.is_dir() for file in splits):
        return []
    used = {*splits, found.labels_file}
    return sorted(
        file.name
        for file in folder.iterdir()
        if file not in used and file.suffix.lower() in _TABLES and not is_captions(file) and file.is_file()
    )


def _only_pictures(folder: Path) -> int:
    """Return how many pictures a folder and its subfolders hold; 0 if there is anything else."""
    count = 0
    for _, _, names in os.walk(folder):
        for name in names:
            if Path(name).suffix.lower() in PICTURE_SUFFIXES:
                count += 1
            elif not name.startswith("."):
                return 0
    return count


def _search(folder: Path, formats: Sequence[Format]) -> tuple[Path, dict[str, tuple[Path, ...]]]:
    """Return the folder that has the data, this one or the only one in it, and its sources by split; maybe none."""
    inner = folder
    for _ in range(MAX_WRAPPING_FOLDERS):
        splits = _find_named(inner, formats) or _find_split_folders(inner, formats)
        if not splits and (whole := _only(inner, "the training data", _find_whole(inner, formats))):
            splits = {"train": whole}
        inside = subfolders(inner)
        if splits or len(inside) != 1 or inside[0].lower() in SPLIT_WORDS:
            return inner, splits
        inner = inner / inside[0]
    return folder, {}


def _forced(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the folders themselves by split, for a format of folders that the user chose."""
    found = _split_folders(folder)
    return {split: (each,) for split, each in found.items()} if "train" in found else {"train": (folder,)}


def _with_extras(folder: Path, splits: Mapping[str, tuple[Path, ...]], captions: bool = True) -> SplitFiles:
    """Return splits with the labels file, the captions and the folder of pictures that stand in a folder."""
    labels_file, images = folder / "labels.csv", folder / "images"
    more = [file for file in sorted(folder.iterdir()) if captions and is_captions(file)]
    return SplitFiles(
        train=splits.get("train", ()),
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


def _find_named(folder: Path, formats: Sequence[Format]) -> dict[str, tuple[Path, ...]]:
    """Return the sources by split from the names of files, such as train.csv; empty where no name tells."""
    splits = {split: _find_split(folder, split, formats) for split in SPLIT_NAMES}
    return splits if any(splits.values()) else {}


def _find_split(folder: Path, split: str, formats: Sequence[Format]) -> tuple[Path, ...]:
    found = [files for each in formats for name in SPLIT_NAMES[split] for files in each.find_split(folder, name)]
    return _only(folder, f"the split {split!r}", list(dict.fromkeys(found)))


def _find_split_folders(folder: Path, formats: Sequence[Format]) -> dict[str, tuple[Path, ...]]:
    """Return the sources by split from folders that are named like splits; empty where there are none."""
    splits = {}
    for split, each in _split_folders(folder).items():
        splits[split] = _only(each, each, _find_whole(each, formats))
        # Unpacked twice: train/train/dog.
        if not splits[split] and len(inside := subfolders(each)) == 1:
            splits[split] = _only(each, each, _find_whole(each / inside[0], formats))
    return splits if any(splits.values()) else {}


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders that are named like splits, by split.

    Raises:
        DataError: there are two for one split.
    """
    found = {}
    for split, names in SPLIT_NAMES.items():
        folders: list[tuple[Path, ...]] = [(folder / name,) for name in subfolders(folder) if name.lower() in names]
        if chosen := _only(folder, f"the split {split!r}", folders):
            found[split] = chosen[0]
    return found


def _find_whole(folder: Path, formats: Sequence[Format]) -> list[tuple[Path, ...]]:
    """Return what a folder holds: every choice that a format has.

    Without any, what the first of the formats finds that fit almost any folder: they read the same files.
    """
    if found := [files for each in formats if not each.fallback for files in each.find_whole(folder)]:
        return found
    return next((found for each in formats if each.fallback and (found := each.find_whole(folder))), [])


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
