"""COCO annotations, as COCO itself, Roboflow, FiftyOne and CVAT name and lay out their files."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.base.override import override
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import DataError

from .format import Rows, clean_row, with_other_names
from .json_files import JsonFormat, entries, load_object
from .picture_names import PictureNames, with_tails

_INSTANCES = "instances_"
_ANNOTATIONS = "annotations"
_EXPECTED = "COCO annotations"
# An id as text that is a number; one with leading zeros is a text of its own, as "01" and "1" may be two pictures.
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.0+)?")
# What stands beside the name of the split in a file's name.
_BESIDE_SPLIT = re.compile(r"^(instances|annotations)_|_annotations(\.coco)?$")

_Id: TypeAlias = int | str | None


class Coco(JsonFormat):
    """COCO's instances file: a row for each entry of `images`, numbered by its place there.

    A picture's labels are the categories of its annotations, crowds (`iscrowd`) included; a picture without
    annotations has none of the labels, (). Categories are matched by name (by id where the labels have no other
    names). A category outside the labels makes its pictures bad rows (unknown-label), unless the labels come from a
    labels file (`LabelSet.restricts`): then it is ignored. The captions file is optional, and what it says about
    other pictures is ignored. Ids may be written as 10, as 10.0 (pandas does so) or as the text "10".

    Names: instances_train2017.json (COCO; captions_train2017.json beside it has the captions),
    train/_annotations.coco.json (Roboflow), labels.json, annotations.json or train.json (FiftyOne and others),
    instances_default.json (CVAT).
    A root category (Roboflow's category 0) that has no annotations is left out where its name is that of another
    category, or it stands above others; see `_roots`.
    """

    name = "coco"
    title = "COCO annotations"
    shape = "an object with `images`, `annotations` and `categories`"
    file_names = ("*.json",)
    split_files = (
        "instances_{split}*.json",
        "annotations/instances_{split}*.json",
        "{split}.json",
        "annotations/{split}.json",
        "{split}_annotations.json",
        "{split}_annotations.coco.json",
        "annotations_{split}.json",
    )

    @override
    @classmethod
    def fits(cls, content: Any) -> bool:
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            return False
        annotations = content.get(_ANNOTATIONS)
        return isinstance(content.get("categories"), list) or (
            # Without categories their ids are the labels; a file of captions has no ids of categories.
            isinstance(annotations, list)
            and any(isinstance(each, dict) and "category_id" in each for each in annotations)
        )

    @override
    def recognizes(self, source: Path) -> bool:
        named = source.name.lower().startswith(_INSTANCES) and source.suffix.lower() == ".json"
        return named or super().recognizes(source)

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        found = super().find_whole(folder)
        if not found and (inside := folder / _ANNOTATIONS).is_dir():
            found = super().find_whole(inside)
        # COCO's other tasks (person_keypoints_*.json) have the same pictures.
        named = [files for files in found if files[0].name.startswith(_INSTANCES)]
        return named or found

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        content = load_object(file, _EXPECTED)
        categories = _categories(file, content)
        annotations = entries(file, content, _ANNOTATIONS, _EXPECTED)
        yield from _notes(file, content, categories, annotations, labels)
        keys = _label_keys(file, _used(categories, _roots(content, categories, annotations)), labels)
        labels_of: dict[_Id, list[str]] = {}
        bad: dict[_Id, str] = {}
        for place, entry in enumerate(annotations):
            image, category = _id(entry, "image_id"), _id(entry, "category_id")
            labels_of.setdefault(image, [])
            if not isinstance(category, int) or category not in keys:
                found = entry.get("category_id")
                bad[image] = f"annotations[{place}] has the category_id {found!r}; expected one of `categories`"
            elif (label := keys[category]) is not None:
                labels_of[image].append(label)
        captions = _captions(_captions_file(file))
        images = entries(file, content, "images", _EXPECTED)
        names = with_tails(PictureNames((name,) if name else (), False) for name in map(_file_name, images))
        numbers: dict[_Id, int] = {}
        for number, (entry, other_names) in enumerate(zip(images, names, strict=True), start=1):
            key, name = _id(entry, "id"), _file_name(entry)
            if key is None or not name:
                message = (
                    f"found id {entry.get('id')!r}, file_name {entry.get('file_name')!r}; expected both of a picture"
                )
                yield Problem(file, number, "bad-row", message)
            elif key in numbers:
                yield Problem(file, number, "duplicate-id", f"found id {key!r} again; record {numbers[key]} has it")
            elif key in bad:
                yield Problem(file, number, "bad-row", bad[key])
            else:
                row = clean_row(file, number, name, captions.get(key, []), tuple(labels_of.get(key, ())))
                yield with_other_names(row, other_names[1:])
            if key is not None:
                numbers.setdefault(key, number)
        for key in sorted(labels_of.keys() - numbers.keys(), key=str):
            message = f"found annotations with the image_id {key!r}; expected the id of one of `images`"
            yield Problem(file, None, "bad-row", message)

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet:
        # The categories, in the order of their ids: `names` are their names, `ids` their ids.
        categories: dict[int, str] = {}
        roots: set[int] | None = None
        for file in files:
            content = load_object(file, _EXPECTED)
            found = _categories(file, content)
            for key, name in found.items():
                if categories.setdefault(key, name) != name:
                    raise DataError(f"{file}: category {key} is {name!r} here but {categories[key]!r} in another file")
            here = _roots(content, found, entries(file, content, _ANNOTATIONS, _EXPECTED))
            roots = here if roots is None else roots & here
        by_name: dict[str, int] = {}
        for key in sorted(categories):
            if key not in (roots or ()):
                by_name.setdefault(categories[key], key)
        try:
            return LabelSet(tuple(by_name), tuple(map(str, by_name.values())))
        except DataError as error:
            raise DataError(f"{', '.join(map(str, files))}: {error}") from None

    @override
    def describe(self, file: Path) -> str:
        content = load_object(file, _EXPECTED)
        categories = _categories(file, content)
        annotations = entries(file, content, _ANNOTATIONS, _EXPECTED)
        names = list(dict.fromkeys(_used(categories, _roots(content, categories, annotations)).values()))
        shown = ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} ... {names[-1]}"
        images = entries(file, content, "images", _EXPECTED)
        captions = _captions_file(file)
        parts = [f"{len(images):,} pictures in `images`", f"{len(names):,} categories ({shown})"]
        parts += [f"captions in {captions.name}"] if captions is not None else []
        return f"{self.title}: {', '.join(parts)}"

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        # For annotations/instances_train2017.json: images/train2017, train2017 or images, in its folder or the folder
        # above `annotations`. With a pictures folder given: train2017 in it, or that folder itself. FiftyOne has the
        # pictures in `data`, Roboflow beside the file.
        subset = _BESIDE_SPLIT.sub("", file.stem)
        if images is not None:
            return [images / subset, images, file.parent]
        roots = [file.parent, file.parent.parent] if file.parent.name == _ANNOTATIONS else [file.parent]
        return [
            *(root / name for root in roots for name in (f"images/{subset}", subset, "images", "data")),
            file.parent,
        ]


def _captions_file(file: Path) -> Path | None:
    """Return the captions file that belongs to an instances file, by its name; None when there is none."""
    if not file.name.startswith(_INSTANCES):
        return None
    beside = file.with_name(file.name.replace(_INSTANCES, "captions_", 1))
    return beside if beside.is_file() else None


def _file_name(entry: Mapping[str, Any]) -> str:
    """Return the name of a picture; "" where there is none."""
    name = entry.get("file_name")
    return name.strip() if isinstance(name, str) else ""


def _roots(
    content: Mapping[str, Any], categories: Mapping[int, str], annotations: Sequence[Mapping[str, Any]]
) -> set[int]:
    """Return the categories that only stand above others: Roboflow's category 0.

    Such a category has no annotation and no category above it (its `supercategory` is "none"), and it is the
    supercategory of another one, or has the name of another one.
    """
    found = content.get("categories")
    if not isinstance(found, list):
        return set()
    parents = {_id(entry, "id"): str(entry.get("supercategory") or "none").strip() for entry in found}
    names = Counter(categories.values())
    roots = {
        key
        for key, name in categories.items()
        if parents[key].lower() == "none" and (names[name] > 1 or name in parents.values())
    }
    return roots - {_id(entry, "category_id") for entry in annotations} if roots else roots


def _used(categories: Mapping[int, str], roots: set[int]) -> dict[int, str]:
    return {key: name for key, name in categories.items() if key not in roots}


def _notes(
    file: Path,
    content: Mapping[str, Any],
    categories: Mapping[int, str],
    annotations: Sequence[Mapping[str, Any]],
    labels: LabelSet | None,
) -> Iterator[Problem]:
    """Yield what is to be said about the file as a whole."""
    roots = _roots(content, categories, annotations)
    named = sorted({categories[key] for key in roots})
    for name in named:
        other = name in _used(categories, roots).values()
        if other or labels is None or name not in labels.names:
            same = ", which another category has too," if other else ""
            message = f"the root category {name!r}{same} has no annotations; it is left out"
            yield Problem(file, None, "ignored", message, "warning")
    for name, count in Counter(_used(categories, roots).values()).items():
        if count > 1:
            message = f"{count} categories are called {name!r}; they are one label"
            yield Problem(file, None, "interpreted", message, "warning")
    if "categories" not in content:
        message = f"found no `categories`; the {len(categories)} category ids of the annotations are the labels"
        yield Problem(file, None, "interpreted", message, "warning")
    if boxes := sum(bool(entry.get("bbox") or entry.get("segmentation")) for entry in annotations):
        message = f"the categories of {boxes} boxes or masks count as labels of the whole picture"
        yield Problem(file, None, "interpreted", message, "warning")


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


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """Return the names of the categories by id; where the file lacks them, the ids that its annotations have."""
    if "categories" not in content:
        found = {_id(entry, "category_id") for entry in entries(file, content, _ANNOTATIONS, _EXPECTED)}
        ids = sorted(key for key in found if isinstance(key, int))
        if not ids:
            raise DataError(f"{file}: found no 'categories'; expected a COCO instances file (not its captions file)")
        return {key: str(key) for key in ids}
    categories: dict[int, str] = {}
    for entry in entries(file, content, "categories", _EXPECTED):
        key, name = _id(entry, "id"), entry.get("name")
        if not isinstance(key, int) or not isinstance(name, str):
            raise DataError(
                f"{file}: found the category id {entry.get('id')!r}, name {name!r}; expected a number and a text"
            )
        if broken := not_utf8(name):
            raise DataError(f"{file}: category {key}: {broken}")
        if key in categories:
            raise DataError(f"{file}: found category {key} twice; expected each once")
        categories[key] = " ".join(name.split())
    return categories


def _captions(file: Path | None) -> dict[_Id, list[str]]:
    captions: dict[_Id, list[str]] = {}
    if file is None:
        return captions
    for place, entry in enumerate(entries(file, load_object(file, _EXPECTED), _ANNOTATIONS, _EXPECTED)):
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
