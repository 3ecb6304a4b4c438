"""Datumaro: annotations/{train,val,test,default}.json, with the pictures in images/{train,...}.

Format: https://openvinotoolkit.github.io/datumaro/latest/docs/data-formats/formats/datumaro.html
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.base.override import override
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import DataError

from .format import Rows, clean_row, with_other_names
from .json_files import JsonFormat, entries, load_object
from .picture_names import PictureNames, with_tails

_FOLDER = "annotations"
_EXPECTED = "Datumaro's JSON"
_CAPTION = "caption"
_PATHS = (("image", "path"), ("media", "path"))


class Datumaro(JsonFormat):
    """Datumaro's JSON: a row for each entry of `items`, numbered by its place.

    Labels are those of all annotations that have a `label_id`: labels of the picture, boxes, masks and so on; an item
    without annotations has none of the labels. Annotations of type caption are captions. A picture is named by the
    `path` of the item's image, else by its `id`.
    """

    name = "datumaro"
    title = "Datumaro"
    shape = "an object with `categories` (an object) and `items`"
    split_files = (f"{_FOLDER}/{{split}}.json", "{split}.json")

    @override
    @classmethod
    def fits(cls, content: Any) -> bool:
        return (
            isinstance(content, dict)
            and isinstance(content.get("items"), list)
            and isinstance(content.get("categories"), dict)
        )

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        inside = folder / _FOLDER
        # Subsets of other names are parts of one data set.
        parts = [file for (file,) in super().find_whole(inside)] if inside.is_dir() else []
        return super().find_whole(folder) or ([tuple(parts)] if parts else [])

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        content = load_object(file, _EXPECTED)
        names = _labels(file, content)
        items = entries(file, content, "items", _EXPECTED)
        yield from _notes(file, items)
        pictures = [PictureNames(tuple(filter(None, (_picture(item), _text(item.get("id"))))), False) for item in items]
        for number, (item, other_names) in enumerate(zip(items, with_tails(pictures), strict=True), start=1):
            try:
                keys, captions = _annotations(item, names)
            except ValueError as error:
                yield Problem(file, number, "bad-row", str(error))
                continue
            if not other_names:
                message = f"found the id {item.get('id')!r} and no path; expected the name of a picture"
                yield Problem(file, number, "bad-row", message)
                continue
            yield with_other_names(clean_row(file, number, other_names[0], captions, keys), other_names[1:])

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        names: dict[str, None] = {}
        for file in files:
            names.update(dict.fromkeys(_labels(file, load_object(file, _EXPECTED))))
        if not names:
            raise DataError(
                f"{', '.join(map(str, files))}: found no label under categories/label/labels; expected some"
            )
        return LabelSet.declared(names, files)

    @override
    def describe(self, file: Path) -> str:
        content = load_object(file, _EXPECTED)
        items = entries(file, content, "items", _EXPECTED)
        kinds = Counter(_text(each.get("type")) for item in items for each in _list(item))
        shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) or "no annotations"
        return f"{self.title}: {len(items):,} items, {len(_labels(file, content))} declared labels; {shown}"

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        if images is not None:
            return [images / file.stem, images, file.parent]
        root = file.parent.parent if file.parent.name == _FOLDER else file.parent
        return [*(root / name for name in (f"images/{file.stem}", "images", file.stem)), root]


def _labels(file: Path, content: dict[str, Any]) -> list[str]:
    """Return the names of the labels; their places are the `label_id` of annotations."""
    categories = content.get("categories")
    label = categories.get("label", {}) if isinstance(categories, dict) else None
    found = label.get("labels", []) if isinstance(label, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{file}: found no list under categories/label/labels; expected {_EXPECTED}")
    names = []
    for place, entry in enumerate(found):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{file}: found the name {name!r} of label {place}; expected a text")
        if broken := not_utf8(name):
            raise DataError(f"{file}: label {place}: {broken}")
        names.append(" ".join(name.split()))
    return names


def _annotations(item: dict[str, Any], names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the labels and the captions of an item; ValueError where an annotation is malformed."""
    found = item.get("annotations", [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"found annotations of the type {type(found).__name__}; expected a list of objects")
    keys: dict[str, None] = {}
    captions = []
    for entry in found:
        place = entry.get("label_id")
        if entry.get("type") == _CAPTION:
            if not isinstance(entry.get("caption"), str):
                raise ValueError(f"found the caption {entry.get('caption')!r}; expected a text")
            captions.append(entry["caption"])
        elif place is not None:
            if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(names):
                raise ValueError(f"found the label_id {place!r}; expected 0 to {len(names) - 1}, a place in the labels")
            keys.setdefault(names[place])
    return tuple(keys), captions


def _notes(file: Path, items: Sequence[dict[str, Any]]) -> list[Problem]:
    annotations = [each for item in items for each in _list(item)]
    labelled = [each for each in annotations if each.get("label_id") is not None]
    shapes = sum(each.get("type") != "label" for each in labelled)
    bare = Counter(
        _text(each.get("type")) for each in annotations if each.get("label_id") is None and each.get("type") != _CAPTION
    )
    attributes = sum(bool(each.get("attributes")) for each in annotations)
    notes = []
    if shapes:
        notes.append(("interpreted", f"the labels of {shapes} boxes or other shapes count for the whole picture"))
    for kind, count in bare.items():
        notes.append(("ignored", f"{count} annotations of the type {kind!r} have no label; they are not read"))
    if attributes:
        notes.append(("ignored", f"the attributes of {attributes} annotations are not read"))
    return [Problem(file, None, kind, message, "warning") for kind, message in notes]


def _list(item: dict[str, Any]) -> list[dict[str, Any]]:
    found = item.get("annotations")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _picture(item: dict[str, Any]) -> str:
    for part, key in _PATHS:
        inside = item.get(part)
        if isinstance(inside, dict) and (path := _text(inside.get(key)).strip()):
            return path
    return ""


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int) else ""
