"""Every value of a small file of each JSON format is replaced by others in turn: rows may be bad, nothing may crash."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlic_runtime.annotations.formats.registry import FORMATS
from mlic_train.data import LabelSet, read_labels, read_split
from mlic_train.errors import DataError

_CHOICES = {"id": "a", "from_name": "labels", "type": "choices", "value": {"choices": ["dog", "cat"]}}
_BOX = {"id": "b", "from_name": "box", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["car"]}}
EXAMPLES: dict[str, Any] = {
    "coco": {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "categories": [{"id": 0, "name": "animal", "supercategory": "none"}, {"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    },
    "label-studio": [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0af3b2c1-1.jpg", "caption": "A dog.", "split": "train"},
            "annotations": [{"result": [_CHOICES, _BOX], "was_cancelled": False, "ground_truth": False}],
        }
    ],
    "datumaro": {
        "categories": {"label": {"labels": [{"name": "dog"}]}},
        "items": [{"id": "1", "image": {"path": "1.jpg"}, "annotations": [{"type": "label", "label_id": 0}]}],
    },
}
MINIMAL = [{"image": "1.jpg", "id": 1, "labels": {"choices": ["dog"]}, "box": [{"x": 1, "labels": ["car"]}]}]
MINIMAL[0] |= {"annotator": 1, "annotation_id": 2, "lead_time": 3}
VALUES: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x;|", "../..", "\ud800", [], [[]], [None], {}, {"a": {}})


def mutations(content: Any) -> Iterator[Any]:
    """Yield copies of JSON with one of its values replaced."""

    def places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inside in items:
            yield from places(inside, (*path, key))

    for path in places(content, ()):
        for value in VALUES:
            changed = [copy.deepcopy(content)]
            target: Any = changed
            for key in (0, *path)[:-1]:
                target = target[key]
            target[(0, *path)[-1]] = value
            yield changed[0]


@pytest.mark.parametrize(
    ("name", "content"), [*EXAMPLES.items(), ("label-studio", MINIMAL)], ids=[*EXAMPLES, "label-studio-minimal"]
)
def test_no_value_crashes_a_format(tmp_path: Path, name: str, content: Any) -> None:
    found = next(each for each in FORMATS if each.name == name)
    declared = LabelSet(("dog", "cat", "car"), ("dog", "cat", "car"))
    read, messages = 0, []
    for number, changed in enumerate(mutations(content)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(changed), encoding="utf-8")
        found.recognizes(file)
        for step in (
            lambda file=file: read_split([file], declared, data_format=name, skip_bad_rows=True, pictures=False),
            lambda file=file: read_labels([file], name),
            lambda file=file: found.describe(file),
        ):
            try:
                step()
                read += 1
            except DataError as error:
                messages.append(str(error))
    assert read
    assert [message for message in messages if "\n" in message] == []
