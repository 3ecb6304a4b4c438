"""CVAT for images 1.1: annotations.xml, with the pictures in `images` beside it.

Format: https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_range
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError

from .format import Format, Rows, clean_row, split_called, with_other_names, with_split
from .picture_names import PictureNames, with_tails
from .xml_files import load_xml

_ROOT = re.compile(rb"<annotations[\s>]")
_HEAD_BYTES = 4096
_TAG = "tag"  # of the whole picture; the other children of an image are shapes
_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")


class Cvat(Format):
    """CVAT's XML: a row for each `<image>`, numbered by its place.

    Labels are those of the tags, and of the boxes and other shapes. A picture without any has none of the labels. The
    labels of the task or project (`<meta>`) are declared. An image's `subset`, else that of the task, says the split.
    """

    name = "cvat"
    title = "CVAT for images"
    file_names = ("annotations.xml",)
    split_files = ("{split}.xml",)

    @override
    def recognizes(self, source: Path) -> bool:
        if super().recognizes(source) or not source.is_file() or source.suffix.lower() != ".xml":
            return super().recognizes(source)
        try:
            head = read_range(source, 0, _HEAD_BYTES)
        except OSError:
            return False
        text = head.decode("utf-16", "ignore").encode() if head.startswith((b"\xff\xfe", b"\xfe\xff")) else head
        return _ROOT.search(text) is not None

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        root = _load(file)
        images = root.findall("image")
        yield from _notes(file, root, images)
        default = (root.findtext("meta/task/subset") or root.findtext("meta/job/subset") or "").strip()
        subsets = [(image.get("subset") or default).strip() for image in images]
        # A project keeps its pictures in a folder for each subset.
        pictures = [
            PictureNames((name, f"{subset}/{name}") if subset else (name,), False)
            for name, subset in zip((image.get("name", "").strip() for image in images), subsets, strict=True)
        ]
        for number, (image, subset, names) in enumerate(zip(images, subsets, with_tails(pictures), strict=True), 1):
            name = image.get("name", "").strip()
            found = [child for child in image if child.tag == _TAG or child.tag in _SHAPES]
            if not name:
                yield Problem(file, number, "bad-row", "found an <image> without a name; expected a picture's name")
            elif missing := [child.tag for child in found if not child.get("label", "").strip()]:
                message = f"found a <{missing[0]}> of {name!r} without a label; expected one"
                yield Problem(file, number, "bad-row", message)
            else:
                keys = tuple(dict.fromkeys(_clean(child.get("label", "")) for child in found))
                row = clean_row(file, number, name, [], keys)
                yield with_split(with_other_names(row, names[1:]), split_called(subset))

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        names: dict[str, None] = {}
        for file in files:
            names.update(dict.fromkeys(_declared(_load(file))))
        if not names:
            return None
        return LabelSet.declared(names, files)

    @override
    def describe(self, file: Path) -> str:
        root = _load(file)
        images = root.findall("image")
        found = Counter(child.tag for image in images for child in image if child.tag == _TAG or child.tag in _SHAPES)
        kinds = ", ".join(f"{count:,} <{tag}>" for tag, count in found.most_common()) or "no annotations"
        return f"{self.title}: {len(images):,} pictures, {len(_declared(root))} declared labels; {kinds}"


def _load(file: Path) -> Element:
    root = load_xml(file)
    if root.tag != "annotations":
        raise DataError(f"{file}: found the XML element <{root.tag}>; expected <annotations> of CVAT for images 1.1")
    if root.find("track") is not None and root.find("image") is None:
        raise DataError(f"{file}: found CVAT for video (<track>); expected CVAT for images 1.1: export it as that")
    return root


def _declared(root: Element) -> list[str]:
    """Return the labels of the task, job or project, without the parts of skeletons (which have a parent)."""
    found = root.findall("meta/*/labels/label")
    return [_clean(label.findtext("name") or "") for label in found if not (label.findtext("parent") or "").strip()]


def _notes(file: Path, root: Element, images: Sequence[Element]) -> list[Problem]:
    children = [child for image in images for child in image]
    shapes = sum(child.tag in _SHAPES for child in children)
    attributes = sum(child.find("attribute") is not None for child in children)
    others = Counter(child.tag for child in children if child.tag != _TAG and child.tag not in _SHAPES)
    tracks = len(root.findall("track"))
    subsets = Counter(subset for image in images if (subset := (image.get("subset") or "").strip()))
    odd = {name: count for name, count in subsets.items() if split_called(name) is None and name.lower() != "default"}
    notes = []
    if shapes:
        notes.append(("interpreted", f"the labels of {shapes} boxes or other shapes count for the whole picture"))
    if attributes:
        notes.append(("ignored", f"the attributes of {attributes} annotations are not read"))
    for what, count in (*others.items(), *([("track", tracks)] if tracks else [])):
        notes.append(("ignored", f"{count} elements <{what}> are not read"))
    if odd:
        named = ", ".join(f"{name!r} ({count} pictures)" for name, count in list(odd.items())[:5])
        notes.append(("ignored", f"the subset {named} is no split; expected train, val or test"))
    return [Problem(file, None, kind, message, "warning") for kind, message in notes]


def _clean(name: str) -> str:
    return " ".join(name.split())
