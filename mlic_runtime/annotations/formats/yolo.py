"""YOLO: a text for each picture, with a line for each box: the number of its class, then coordinates.

Ultralytics has `images/train/1.jpg`, `labels/train/1.txt` and a YAML file with the names of the classes; Roboflow
`train/images/1.jpg`, `train/labels/1.txt` and data.yaml; darknet, labelImg and CVAT have the text beside the picture,
and the names in obj.names or classes.txt. A list of pictures, such as train.txt, may say what belongs to a split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.pictures import leads_outside
from mlic_runtime.annotations.source.tree import examples, files_in, is_picture, read_beside, walk
from mlic_runtime.base.override import override
from mlic_runtime.base.text import error_line
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_ANNOTATIONS_BYTES

from .folder_format import SPLIT_WORDS, FolderFormat, note
from .format import Row, Rows, clean_row
from .sidecars import are_boxes
from .yaml_files import load_yaml

_IMAGES, _LABELS = "images", "labels"
_NAME_FILES = ("obj.names", "classes.txt", "_darknet.labels")  # darknet and CVAT, labelImg, Roboflow's darknet export
_YAML = (".yaml", ".yml")
_DATA_YAML = ("data.yaml", "data.yml")
_LOOKED_AT = 20  # texts that tell whether a folder is YOLO's
_MIN_NUMBERS = 5  # of a line: a class and a box; outlines have more


class Yolo(FolderFormat):
    """YOLO's texts.

    A source is the folder of the pictures, or a list of them. The text of `images/train/1.jpg` is `labels/train/1.txt`
    (the last folder of that name counts), else `1.txt` beside it. A picture's labels are the classes of its boxes or
    outlines. A picture whose text is empty or missing has none of the labels, as Ultralytics reads it.
    """

    name = "yolo"
    title = "YOLO"

    @override
    def recognizes(self, source: Path) -> bool:
        if source.is_file():
            return source.suffix.lower() == ".txt" and _names(source.parent) is not None and bool(_listed(source))
        if not source.is_dir():
            return False
        root, folder = _label_folder(source)
        names = [name for name in walk(root / folder).others if name.endswith(".txt")]
        texts = [_text(root, f"{folder}/{name}") for name in names if name not in _NAME_FILES][:_LOOKED_AT]
        return any(text.strip() for text in texts) and are_boxes(texts)

    @override
    def find_split(self, folder: Path, split: str) -> list[tuple[Path, ...]]:
        declared = _declared_source(folder, split)
        places = [declared, folder / f"{split}.txt", folder / _IMAGES / split, folder / split / _IMAGES]
        found = [place for place in places if place is not None and self.recognizes(place)]
        return [(found[0],)] if found else []  # what is declared wins over what is usual

    @override
    def find_whole(self, folder: Path) -> list[tuple[Path, ...]]:
        found = [place for place in (folder / _IMAGES, folder) if self.recognizes(place)]
        return [(found[0],)] if found else []

    @override
    def picture_folders(self, file: Path, images: Path | None) -> list[Path]:
        return [_root(file)]

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        named = {tuple(names.values()) for file in files if (names := _names(file)) is not None}
        if len(named) > 1:
            raise DataError(f"{files[0]}: found other names of classes than for {files[-1]}; expected the same")
        labels = next(iter(named), None)
        return None if labels is None else LabelSet(labels, labels)

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        names, root = _names(file), _root(file)
        pictures = _listed(file) if file.is_file() else [f"{_inside(file)}{name}" for name in walk(file).pictures]
        if not pictures:
            raise DataError(f"{file}: found no picture; expected {self.title}'s pictures and texts")
        if file == _declared_source(root, "train"):
            for split in ("val", "test"):
                place = _declared_source(root, split)
                if place is not None and not self.recognizes(place):
                    yield note(file, f"{place}, which the YAML file names for {split}, has no texts with labels")
        counts = _Counts()
        for number, picture in enumerate(pictures, start=1):
            yield _row(file, root, number, picture, names, counts)
        if counts.boxes:
            yield note(file, f"{counts.boxes} boxes or outlines count as labels of the whole picture", "interpreted")
        if counts.without:
            message = f"found {len(counts.without)} pictures without a text, with none of the labels"
            yield note(file, f"{message}: {examples(counts.without)}", "interpreted")
        if names is None:
            yield note(
                file, "found no names of classes (data.yaml, obj.names, classes.txt): their numbers are the names"
            )

    @override
    def describe(self, file: Path) -> str:
        names = _names(file)
        said = "classes by number" if names is None else f"{len(names)} classes ({', '.join(list(names.values())[:4])})"
        return f"{self.title}: {said}; boxes are labels of the whole picture"


@dataclass
class _Counts:
    """What is counted over a source, to be said once."""

    boxes: int = 0
    without: list[str] = field(default_factory=list)


def _row(
    file: Path, root: Path, number: int, picture: str, names: Mapping[int, str] | None, counts: _Counts
) -> Row | Problem:
    if leads_outside(picture):
        return Problem(file, number, "bad-row", f"found the picture {picture!r}; expected one inside {root}")
    text_name = _text_of(root, picture)
    if not (root / text_name).is_file():
        counts.without.append(picture)
        return clean_row(file, number, picture, (), ())
    labels = []
    try:
        for line in read_beside(root, text_name).split("\n"):
            if line.strip():
                labels.append(_label(line.split(), names))
    except ValueError as error:
        return Problem(file, number, "bad-row", f"{text_name}: {error}")
    counts.boxes += len(labels)
    return clean_row(file, number, picture, (), tuple(dict.fromkeys(labels)))


def _label(cells: Sequence[str], names: Mapping[int, str] | None) -> str:
    """Return the label of a line; ValueError if it is no box, or its class has no name."""
    if len(cells) < _MIN_NUMBERS or not are_boxes([" ".join(cells)]):
        shown = " ".join(cells)[:60]
        raise ValueError(f"found the line {shown!r}; expected the number of a class and at least four coordinates")
    number = int(cells[0][:9])
    if names is None:
        return str(number)
    if number not in names:
        raise ValueError(f"found the class {cells[0][:20]}; expected one of the {len(names)} that have a name")
    return names[number]


def _root(source: Path) -> Path:
    """Return the folder that names of pictures are relative to; it holds their texts too."""
    return source.parent if source.is_file() else _label_folder(source)[0]


def _inside(source: Path) -> str:
    """Return the name of a folder of pictures in its root, with a slash behind; "" for the root itself."""
    path = source.relative_to(_root(source)).as_posix()
    return "" if path == "." else f"{path}/"


def _label_folder(pictures: Path) -> tuple[Path, str]:
    """Return the root of a folder of pictures, and the folder in it with their texts: in `labels`, or itself."""
    here = pictures
    for _ in range(3):
        folder = (PurePosixPath(_LABELS) / pictures.relative_to(here).as_posix()).as_posix()
        if here.name.lower() == _IMAGES and (here.parent / folder).is_dir():
            return here.parent, folder
        here = here.parent
    return pictures, "."


def _text_of(root: Path, picture: str) -> str:
    """Return where the text of a picture belongs: in `labels` for one in `images`, else beside it."""
    path = PurePosixPath(picture).with_suffix(".txt")
    places = [place for place, part in enumerate(path.parts) if part.lower() == _IMAGES]
    if places:
        parts = (*path.parts[: places[-1]], _LABELS, *path.parts[places[-1] + 1 :])
        if (root / Path(*parts[:-1])).is_dir():
            return str(PurePosixPath(*parts))
    return str(path)


def _listed(file: Path) -> list[str]:
    """Return the pictures that a list names, relative to its folder; an empty list if it is no list of pictures."""
    lines = [line.strip().replace("\\", "/") for line in _text(file.parent, file.name).split("\n") if line.strip()]
    if not lines or not all(is_picture(file.parent, line) for line in lines[:_LOOKED_AT]):
        return []
    names = []
    for line in lines:
        name = line.removeprefix("./")
        # CVAT and darknet write paths from the folder above: data/obj_train_data/1.jpg.
        shorter = name.partition("/")[2]
        outside = leads_outside(name)
        names.append(shorter if not outside and not (file.parent / name).is_file() and shorter else name)
    return list(dict.fromkeys(names))


def _names(source: Path) -> dict[int, str] | None:
    """Return the names of classes by number, from the nearest file that has them; None without any.

    Raises:
        DataError: the file cannot be used.
    """
    here = source if source.is_dir() else source.parent
    for _ in range(4):
        if here.is_dir() and (found := _names_in(here)) is not None:
            return found
        name = here.name.lower()
        if not (name in (_IMAGES, "data") or name.startswith((*SPLIT_WORDS, "obj_"))):
            return None
        here = here.parent
    return None


def _names_in(folder: Path) -> dict[int, str] | None:
    names = files_in(folder)
    content = _yaml(folder)
    if content:
        found = content["names"]
        pairs = found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list) else ())
        result = {number: " ".join(str(name).split()) for number, name in pairs}
        if not result or not all(isinstance(number, int) for number in result):
            raise DataError(f"{folder}: found the names {str(found)[:60]!r} in its YAML file; expected a list of names")
        return dict(sorted(result.items()))
    for name in (*_NAME_FILES, *(name for name in names if name.endswith(".names"))):
        if name in names:
            lines = [" ".join(line.split()) for line in _text(folder, name).split("\n")]
            return dict(enumerate(line for line in lines if line))
    return None


def _yaml(folder: Path) -> dict[str, Any]:
    """Return the content of the YAML file of a data set, which has `names`; {} without one.

    Raises:
        DataError: data.yaml is not YAML.
    """
    for name in files_in(folder):
        if name.lower().endswith(_YAML):
            text = _text(folder, name)
            if "names" not in text and name.lower() not in _DATA_YAML:
                continue
            try:
                content = load_yaml(text)
            except ValueError as error:
                if name.lower() in _DATA_YAML:
                    raise DataError(f"{folder / name}: not YAML ({error_line(error)}); expected `names`") from None
                continue
            if isinstance(content, dict) and isinstance(content.get("names"), (list, dict)):
                return content
    return {}


def _declared_source(folder: Path, split: str) -> Path | None:
    """Return the pictures of a split as the YAML file says it; None where it does not, or they are not there.

    A split that has the same pictures as the training split has none of its own (as in Ultralytics' coco8 to coco128).
    """
    content = _yaml(folder)
    places: dict[str, Path | None] = {}
    for key in ("train", split):
        value = content.get(key)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        places[key] = _resolve(folder, value) if isinstance(value, str) else None
    return None if split != "train" and places[split] == places["train"] else places[split]


def _resolve(folder: Path, value: str) -> Path | None:
    """Return what an entry of the YAML file names in a folder; Roboflow's begin with ../, others with ./."""
    name = value.strip().replace("\\", "/")
    while name.startswith(("../", "./")):
        name = name.partition("/")[2]
    if not name or leads_outside(name):
        return None
    place = folder / name
    return place if place.exists() else None


def _text(folder: Path, name: str) -> str:
    try:
        return read_beside(folder, name, MAX_ANNOTATIONS_BYTES)
    except ValueError:
        return ""
