"""Class folders: the folder that a picture lies in is its label, as `FOLDER/dog/1.jpg`."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.source.tree import examples, has_picture, subfolders, walk
from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError

from .folder_format import SPLIT_WORDS, FolderFormat, note
from .format import Rows, clean_row
from .sidecars import read_captions

# Folders with these names alone hold all pictures of a data set, and are no classes.
_NO_CLASSES = SPLIT_WORDS | {
    *("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "data", "masks", "labels", "annotations")
}


class ImageFolder(FolderFormat):
    """Class folders, as torchvision's ImageFolder, Keras and Hugging Face's imagefolder read them.

    A picture has one label, the name of the folder in the source that holds it, at any depth. A picture that lies in
    several class folders with the same bytes is one row with all of its labels: that is how such a folder says them. A
    caption is the text beside the picture, where the texts are captions (see `sidecars`).
    """

    name = "imagefolder"
    title = "class folders"
    fallback = True

    @override
    def recognizes(self, source: Path) -> bool:
        return source.is_dir() and bool(_classes(source))

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        tree = walk(file)
        pictures = [name for name in tree.pictures if "/" in name]
        loose = [name for name in tree.pictures if "/" not in name]
        if not pictures:
            raise DataError(f"{file}: found no picture in a class folder; expected pictures such as dog/1.jpg")
        # To learn which labels there are, no picture has to be compared.
        copies = _copies(file, pictures) if labels is not None else {}
        left_out = {copy for name, group in copies.items() for copy in group if copy != name}
        captions, beside = read_captions(file, tree)
        for number, name in enumerate((name for name in pictures if name not in left_out), start=1):
            classes = tuple(sorted({_class(each) for each in copies.get(name, [name])}))
            texts = [text for each in copies.get(name, [name]) for text in captions.get(each, [])]
            yield clean_row(file, number, name, list(dict.fromkeys(texts)), classes)
        if copies:
            group = next(iter(copies.values()))
            yield note(
                file,
                f"found {len(copies)} pictures with the same bytes in several class folders, such as "
                f"{examples(group)}; each is one record with all of its labels",
                "duplicate-picture",
            )
        if loose:
            yield note(file, f"found {len(loose)} pictures outside of the class folders, not read: {examples(loose)}")
        if others := [name for name in tree.others if name not in beside]:
            yield note(file, f"found {len(others)} files that are no pictures, not read: {examples(others)}")
        with_pictures = {_class(name) for name in pictures}
        if empty := [name for name in subfolders(file) if " ".join(name.split()) not in with_pictures]:
            yield note(file, f"found {len(empty)} class folders without a picture: {examples(empty)}")

    @override
    def describe(self, file: Path) -> str:
        names = _classes(file)
        shown = names if len(names) <= 4 else [*names[:2], "...", names[-1]]
        return f"{self.title}: one label a picture, {len(names)} labels ({', '.join(shown)})"


def _classes(folder: Path) -> list[str]:
    """Return the names of a folder's class folders; an empty list if it has none.

    One folder alone is taken for a wrapping one, except in a folder that is named like a split: there it is a class.
    """
    names = [name for name in subfolders(folder) if has_picture(folder / name)]
    alone = len(names) == 1 and folder.name.lower() not in SPLIT_WORDS
    return [] if alone or all(name.lower() in _NO_CLASSES for name in names) else names


def _class(name: str) -> str:
    return " ".join(PurePosixPath(name).parts[0].split())


def _copies(folder: Path, pictures: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the pictures with the same bytes that lie in several class folders, by the first of each group.

    Only files of equal size are read.
    """
    try:
        sizes = {name: os.stat(folder / name).st_size for name in pictures}  # noqa: PTH116 # faster, for many
        counts = Counter(sizes.values())
        groups: dict[bytes, list[str]] = {}
        for name, size in sizes.items():
            if counts[size] > 1:
                digest = hashlib.sha256((folder / name).read_bytes()).digest()
                groups.setdefault(digest, []).append(name)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {os_error_reason(error)}; expected a picture") from None
    return {group[0]: group for group in groups.values() if len({_class(name) for name in group}) > 1}
