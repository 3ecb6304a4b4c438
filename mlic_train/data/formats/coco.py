"""COCO annotations: instances_*.json, with the captions of captions_*.json where that file is beside it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlic_runtime.base.override import override
from mlic_train.data.labels import LabelSet
from mlic_train.data.problems import Problem
from mlic_train.data.source.files import read_bytes
from mlic_train.errors import DataError

from .format import Format, Rows, clean_row

_INSTANCES = "instances_"
_ANNOTATIONS = "annotations"
# An id as text that is a number; one with leading zeros is a text of its own, as "01" and "1" may be two pictures.
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.0+)?")


class Coco(Format):
    """COCO's instances file: a row for each entry of `images`, numbered by its place there.

    A picture's labels are the categories of its annotations, crowds (`iscrowd`) included; a picture without
    annotations has none of the labels, (). Categories are matched by name (by id where the labels have no other
    names). A category outside the labels makes its pictures bad rows (unknown-label), unless the labels come from a
    labels file (`LabelSet.restricts`): then it is ignored. The captions file is optional, and what it says about
    other pictures is ignored. Ids may be written as 10, as 10.0 (pandas does so) or as the text "10".
    """

    name = "coco"
    title = "COCO annotations"
    file_names = ("*.json",)
    split_files = ("instances_{split}*.json", "annotations/instances_{split}*.json")

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        content = _load(file)
        keys = _label_keys(file, _categories(file, content), labels)
        labels_of: dict[int | str | None, list[str]] = {}
        bad: dict[int | str | None, str] = {}
        for place, entry in enumerate(_entries(file, content, _ANNOTATIONS)):
            image, category = _id(entry, "image_id"), _id(entry, "category_id")
            labels_of.setdefault(image, [])
            if not isinstance(category, int) or category not in keys:
                found = entry.get("category_id")
                bad[image] = f"annotations[{place}] has the category_id {found!r}; expected one of `categories`"
            elif (label := keys[category]) is not None:
                labels_of[image].append(label)
        captions = _captions(_captions_file(file))
        numbers: dict[int | str | None, int] = {}
        for number, entry in enumerate(_entries(file, content, "images"), start=1):
            key, name = _id(entry, "id"), entry.get("file_name")
            if key is None or not isinstance(name, str) or not name.strip():
                message = f"found id {entry.get('id')!r}, file_name {name!r}; expected both of a picture"
                yield Problem(file, number, "bad-row", message)
            elif key in numbers:
                yield Problem(file, number, "duplicate-id", f"found id {key!r} again; record {numbers[key]} has it")
            elif key in bad:
                yield Problem(file, number, "bad-row", bad[key])
            else:
                yield clean_row(file, number, name, captions.get(key, []), tuple(labels_of.get(key, ())))
            if key is not None:
                numbers.setdefault(key, number)
        for key in sorted(labels_of.keys() - numbers.keys(), key=str):
            message = f"found annotations with the image_id {key!r}; expected the id of one of `images`"
            yield Problem(file, None, "bad-row", message)

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet:
        # The categories, in the order of their ids: `names` are their names, `ids` their ids.
        categories: dict[int, str] = {}
        for file in files:
            for key, name in _categories(file, _load(file)).items():
                if categories.setdefault(key, name) != name:
                    raise DataError(f"{file}: category {key} is {name!r} here but {categories[key]!r} in another file")
        ordered = sorted(categories)
        return LabelSet(tuple(categories[key] for key in ordered), tuple(map(str, ordered)))

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        # For annotations/instances_train2017.json: images/train2017, train2017 or images, in its folder or the folder
        # above `annotations`. With a pictures folder given: train2017 in it, or that folder itself.
        subset = file.stem.removeprefix(_INSTANCES)
        if images is not None:
            return [images / subset, images, file.parent]
        roots = [file.parent, file.parent.parent] if file.parent.name == _ANNOTATIONS else [file.parent]
        return [*(root / name for root in roots for name in (f"images/{subset}", subset, "images")), file.parent]


def _captions_file(file: Path) -> Path | None:
    """Return the captions file that belongs to an instances file, by its name; None when there is none."""
    if not file.name.startswith(_INSTANCES):
        return None
    beside = file.with_name(file.name.replace(_INSTANCES, "captions_", 1))
    return beside if beside.is_file() else None


def _label_keys(file: Path, categories: Mapping[int, str], labels: LabelSet | None) -> dict[int, str | None]:
    """Return `Row.labels` for each category id; None for a category that the labels leave out on purpose."""
    if labels is None:
        return dict(categories)
    keys: dict[int, str | None] = {}
    for category, name in categories.items():
        if name in labels.names:
            keys[category] = name
        elif labels.names == labels.ids and str(category) in labels:
            keys[category] = str(category)
        else:
            keys[category] = None if labels.restricts else name
    if categories and all(key is None for key in keys.values()):
        raise DataError(
            f"{file}: found the categories {', '.join(list(categories.values())[:10])}, none of which is among the "
            f"labels {', '.join(labels.names[:10])}; expected the same names in both"
        )
    return keys


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(file).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON in UTF-8 ({error}); expected a COCO instances file") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: found a JSON {type(content).__name__}; expected a COCO object with `images`")
    return content


def _entries(file: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{file}: found no list of objects under {key!r}; expected COCO annotations")
    return entries


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    if "categories" not in content:
        raise DataError(f"{file}: found no 'categories'; expected a COCO instances file (not its captions file)")
    categories: dict[int, str] = {}
    for entry in _entries(file, content, "categories"):
        key, name = _id(entry, "id"), entry.get("name")
        if not isinstance(key, int) or not isinstance(name, str):
            raise DataError(
                f"{file}: found the category id {entry.get('id')!r}, name {name!r}; expected a number and a text"
            )
        if key in categories:
            raise DataError(f"{file}: found category {key} twice; expected each once")
        categories[key] = " ".join(name.split())
    return categories


def _captions(file: Path | None) -> dict[int | str | None, list[str]]:
    captions: dict[int | str | None, list[str]] = {}
    if file is None:
        return captions
    for place, entry in enumerate(_entries(file, _load(file), _ANNOTATIONS)):
        caption = entry.get("caption")
        if not isinstance(caption, str):
            raise DataError(f"{file}: found annotations[{place}] with the caption {caption!r}; expected a text")
        captions.setdefault(_id(entry, "image_id"), []).append(caption)
    return captions


def _id(entry: Mapping[str, Any], name: str) -> int | str | None:
    """Return an id, as an int where it is a whole number in any notation; None where it is neither that nor a text."""
    key = entry.get(name)
    if isinstance(key, float):
        return int(key) if key.is_integer() else None
    if isinstance(key, str):
        number = _NUMBER.fullmatch(key)
        return key if number is None else int(number[1])
    return key if isinstance(key, int) else None
