"""Create ML's JSON: a list of pictures with the labels of their boxes, or of the whole picture.

Create ML, Roboflow (`_annotations.createml.json`), labelImg and CVAT's users write it for object detection. For
classification the same file has labels without coordinates, or texts in their place.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError

from .format import Rows, clean_row, with_other_names
from .json_files import JsonFormat, load_json
from .picture_names import names_of, with_tails

_PICTURE_KEYS = ("image", "imagefilename", "filename", "imageurl", "file", "path")
_LABEL_KEYS = ("annotations", "annotation", "labels", "label")


class CreateMl(JsonFormat):
    """Create ML's JSON, such as `[{"image": "1.jpg", "annotations": [{"label": "dog", "coordinates": {...}}]}]`.

    `annotations` is a list of objects with a label, or of texts; `annotation`, `labels` and `label` may stand for it,
    and `imagefilename`, `filename` and others for `image`, in any case. A picture with an empty list has none of the
    labels. One without any of these keys, or with null, is not labelled; it is left out and counted.
    """

    name = "createml"
    title = "Create ML JSON"
    shape = "a list of objects with `image` and `annotations`"
    file_names = ("*.createml.json",)
    split_files = ("{split}.json", "{split}.createml.json")

    @override
    @classmethod
    def fits(cls, content: Any) -> bool:
        if not isinstance(content, list) or not content or not isinstance(content[0], dict):
            return False
        first = _lower(content[0])
        if "annotator" in first or "annotation_id" in first or "data" in first:  # Label Studio
            return False
        try:
            _labels(first)
        except ValueError:
            return False
        return isinstance(_first(first, _PICTURE_KEYS), str) and any(key in first for key in _LABEL_KEYS)

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        content = load_json(file)
        if not isinstance(content, list):
            raise DataError(f"{file}: found a JSON {type(content).__name__}; expected {self.shape}")
        boxes = left_out = 0
        unread: set[str] = set()
        read: list[tuple[int, str, list[str]]] = []
        for number, value in enumerate(content, start=1):
            try:
                entry = _lower(value)
                name = _first(entry, _PICTURE_KEYS)
                if not isinstance(name, str) or not name.strip():
                    raise ValueError(f"found the picture {name!r}; expected a file name under `image`")
                found = _labels(entry)
            except ValueError as error:
                yield Problem(file, number, "bad-row", str(error))
                continue
            unread.update(entry.keys() - {*_PICTURE_KEYS, *_LABEL_KEYS, "verified"})
            if found is None:
                left_out += 1
                continue
            boxes += found[1]
            read.append((number, name, found[0]))
        places = with_tails(names_of(name) for _, name, _ in read)
        for (number, name, found_labels), names in zip(read, places, strict=True):
            row = clean_row(file, number, names[0] if names else name, (), tuple(dict.fromkeys(found_labels)))
            yield with_other_names(row, names[1:])
        if boxes:
            message = f"{boxes} annotations with coordinates count as labels of the whole picture"
            yield Problem(file, None, "interpreted", message, "warning")
        if left_out:
            message = f"found {left_out} pictures without annotations, not labelled and left out"
            yield Problem(file, None, "ignored", message, "warning")
        if unread:
            message = f"found the keys {', '.join(map(repr, sorted(unread)[:10]))}, which are not read"
            yield Problem(file, None, "ignored", message, "warning")

    @override
    def describe(self, file: Path) -> str:
        content = load_json(file)
        entries = len(content) if isinstance(content, list) else 0
        return f"{self.title}: {entries} pictures; the labels of annotations are those of the whole picture"


def _lower(value: Any) -> dict[str, Any]:
    """Return an object with its keys in lower case; ValueError if it is something else, or has one twice."""
    if not isinstance(value, dict):
        raise ValueError(f"found {str(value)[:60]!r}; expected an object with `image` and `annotations`")
    entry = {key.lower(): each for key, each in value.items()}
    if len(entry) != len(value):
        raise ValueError("found a key twice, in upper and lower case; expected each once")
    return entry


def _first(entry: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((entry[key] for key in keys if entry.get(key) is not None), None)


def _labels(entry: dict[str, Any]) -> tuple[list[str], int] | None:
    """Return the labels of a picture and how many of them have coordinates; None where it is not labelled.

    Raises:
        ValueError: there is something else than labels.
    """
    value = _first(entry, _LABEL_KEYS)
    if value is None:
        return None
    labels, boxes = [], 0
    for each in value if isinstance(value, list) else [value]:
        label = _first(_lower(each), ("label", "labels", "class")) if isinstance(each, dict) else each
        boxes += isinstance(each, dict) and "coordinates" in _lower(each)
        for one in label if isinstance(label, list) else [label]:
            if isinstance(one, bool) or not isinstance(one, (str, int)) or not str(one).strip():
                raise ValueError(f"found the annotation {str(each)[:60]!r}; expected an object with a label, or a text")
            labels.append(" ".join(str(one).split()))
    return labels, boxes
