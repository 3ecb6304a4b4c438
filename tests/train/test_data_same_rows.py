"""Training and inference see the same pictures and captions, in the same order, from the same source."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_runtime.errors import InputError
from mlic_runtime.rows.reader import open_rows
from mlic_train.data import find_splits, read_labels, read_split

NAMES = ["b.png", "a.png", "c.png"]


def coco(folder: Path) -> Path:
    images = [{"id": number, "file_name": name} for number, name in enumerate(NAMES)]
    annotations = [{"id": number, "image_id": number, "category_id": 1} for number in range(3)]
    return _json(folder, {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]})


def label_studio(folder: Path) -> Path:
    choice = {"type": "choices", "from_name": "labels", "to_name": "image", "value": {"choices": ["dog"]}}
    tasks = [
        {"id": number, "data": {"image": name, "caption": f"A dog, {name}."}, "annotations": [{"result": [choice]}]}
        for number, name in enumerate(NAMES)
    ]
    return _json(folder, tasks)


def createml(folder: Path) -> Path:
    return _json(folder, [{"image": name, "annotations": [{"label": "dog"}]} for name in NAMES])


def datumaro(folder: Path) -> Path:
    items = [
        {"id": name[0], "annotations": [{"type": "label", "label_id": 0}], "image": {"path": name}} for name in NAMES
    ]
    return _json(folder, {"categories": {"label": {"labels": [{"name": "dog"}]}}, "items": items})


def cvat(folder: Path) -> Path:
    rows = "".join(f'<image id="{n}" name="{name}"><tag label="dog"/></image>' for n, name in enumerate(NAMES))
    file = folder / "annotations.xml"
    file.write_text(f"<annotations><version>1.1</version>{rows}</annotations>")
    return file


def voc(folder: Path) -> Path:
    for name in NAMES:
        text = f"<annotation><filename>{name}</filename><object><name>dog</name></object></annotation>"
        (folder / f"{name[0]}.xml").write_text(text)
    return folder


def yolo(folder: Path) -> Path:
    (folder / "classes.txt").write_text("dog\n")
    for name in NAMES:
        (folder / f"{name[0]}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return folder


def _json(folder: Path, content: object) -> Path:
    file = folder / "export.json"
    file.write_text(json.dumps(content))
    return file


def zipped(folder: Path) -> Path:
    coco(folder)
    file = folder.with_suffix(".zip")
    with zipfile.ZipFile(file, "w") as archive:
        for each in sorted(folder.iterdir()):
            archive.write(each, each.name)
    return file


@pytest.mark.parametrize("write", [coco, label_studio, createml, datumaro, cvat, voc, yolo, zipped])
def test_training_and_inference_see_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Path], write: Callable[[Path], Path]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    for seed, name in enumerate(NAMES):
        draw(folder / name, seed)
    source = write(folder)
    files = find_splits(source)
    records = read_split(files.train, read_labels(files.train), images=files.images).records
    with open_rows(source) as reader:
        rows = list(reader)
    expected = [(str(each.image), each.captions[0] if each.captions else None) for each in records]
    assert len(expected) == 3
    assert [(row.image, row.caption) for row in rows] == expected
    assert reader.note.startswith("read as ")
    assert "labels are not used" in reader.note


def test_a_missing_picture_is_an_error_in_its_place(tmp_path: Path, draw: Callable[..., Path]) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "c.png")
    with open_rows(coco(tmp_path)) as reader:
        errors = [row.error for row in reader]
    assert [error is None for error in errors] == [False, True, True]
    assert "--image-root" in str(errors[0])


def test_a_broken_zip_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"a\.zip.*: not a zip file"):
        open_rows(tmp_path / "a.zip")
