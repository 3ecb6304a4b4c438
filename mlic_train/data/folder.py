"""Finding the splits of a data folder by their names."""

from dataclasses import dataclass
from pathlib import Path

from mlic_train.errors import DataError

_LAYOUT = (
    "train.csv, train.jsonl or (annotations/)instances_train*.json; the same for val and test; "
    "and where wanted captions*.csv, labels.csv and the folder images"
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


def find_splits(folder: Path) -> SplitFiles:
    """Find train, val and test in a data folder, as .csv, .jsonl or COCO, with what belongs to them.

    Raises:
        DataError: it is no folder, has no training split, or has one split in two files.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; expected a data folder with {_LAYOUT}")
    train = _one(folder, "train")
    if not train:
        found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        listing = ", ".join(found[:12]) + (f", ... ({len(found)} in all)" if len(found) > 12 else "")
        raise DataError(f"{folder}: no training split; found {listing or 'nothing'}; expected {_LAYOUT}")
    labels_file, images = folder / "labels.csv", folder / "images"
    captions = [file for suffix in ("csv", "jsonl") for file in sorted(folder.glob(f"captions*.{suffix}"))]
    return SplitFiles(
        train=train,
        val=_one(folder, "val"),
        test=_one(folder, "test"),
        captions=tuple(captions),
        labels_file=labels_file if labels_file.is_file() else None,
        images=images if images.is_dir() else None,
    )


def _one(folder: Path, split: str) -> tuple[Path, ...]:
    found = [file for suffix in ("csv", "jsonl") if (file := folder / f"{split}.{suffix}").is_file()]
    for place in (folder, folder / "annotations"):
        found += sorted(place.glob(f"instances_{split}*.json"))
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(folder)) for file in found)
        raise DataError(f"{folder}: found {names} for the split {split!r}; expected one: name the files to use")
    return tuple(found)
