"""Pascal VOC: an XML file for each picture, and lists that say which picture is in which split.

VOC itself and labelImg have `Annotations/*.xml`, `JPEGImages/*.jpg` and `ImageSets/Main/*.txt`; Roboflow's export has
the XML beside the pictures in train/, valid/ and test/.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.tree import Tree, bytes_beside, examples, files_in, read_beside, walk
from mlic_runtime.base.files import open_regular
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_ANNOTATIONS_BYTES

from .folder_format import FolderFormat, note
from .format import SPLIT_NAMES, Row, Rows, clean_row
from .xml_files import XmlError, parse_xml

_ANNOTATION_FOLDERS = ("", "Annotations", "annotations", "annotations/xmls", "xmls")
_LISTS = "ImageSets/Main"
_NO_PICTURES = ("SegmentationClass", "SegmentationObject", "masks")  # of VOC: pictures that are annotations
_ROOT = re.compile(rb"<annotation[\s>]")
_CLASS_LIST = re.compile(r"(.+)_(train|val|trainval|test)\.txt")
_PRESENT, _DIFFICULT, _ABSENT = "1", "0", "-1"


class PascalVoc(FolderFormat):
    """Pascal VOC.

    A picture's labels are the names of its objects, difficult and truncated ones included. A picture whose XML has no
    object has none of the labels; one without XML is left out. The picture of `a.xml` is `a.jpg`, in the same folder or
    in another one of the source; where there is none of that name, the one that <filename> names.

    The lists ImageSets/Main/train.txt, val.txt, trainval.txt and test.txt give the splits (of trainval, what is in
    neither of the others is for training); what none of them lists is left out.

    Without any XML, the classification lists `dog_train.txt` give the labels: 1 present, -1 absent, 0 unknown. The VOC
    development kit gives 0 to a picture with difficult objects of the class only, and its evaluation leaves it out.
    """

    name = "voc"
    title = "Pascal VOC"

    @override
    def recognizes(self, source: Path) -> bool:
        return source.is_dir() and (_first_annotation(source) is not None or bool(_class_lists(source)))

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        tree = walk(file)
        annotations = [name for name in tree.others if name.lower().endswith(".xml")]
        if annotations:
            yield from _rows_of_xml(file, tree, annotations)
        else:
            yield from _rows_of_lists(file, tree)

    @override
    def describe(self, file: Path) -> str:
        tree = walk(file)
        annotations = sum(name.lower().endswith(".xml") for name in tree.others)
        lists = _split_lists(file)
        parts = [f"{annotations} XML files: objects are labels of the whole picture, difficult ones included"]
        if not annotations:
            parts = [f"lists of {len(_class_lists(file))} classes: 1 present, -1 absent, 0 unknown"]
        if lists:
            parts.append(f"splits by {', '.join(f'{_LISTS}/{name}.txt' for name in lists)}")
        return f"{self.title}: {'; '.join(parts)}"


@dataclass
class _Counts:
    """What is counted over a source, to be said once."""

    left_out: list[str] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)


def _rows_of_xml(folder: Path, tree: Tree, annotations: Sequence[str]) -> Rows:
    lists = _split_lists(folder)
    splits, twice = _splits(lists)
    pictures = _Pictures(tree)
    counts = _Counts()
    used = set()
    for number, name in enumerate(annotations, start=1):
        stem = PurePosixPath(name).stem
        if splits and stem not in splits:
            counts.left_out.append(name)
            used.update(pictures.of(name, None))
            continue
        row = _row_of_xml(folder, number, name, pictures, counts)
        if isinstance(row, Row) and row.image_id is not None:
            used.add(row.image_id)
            if stem in twice:
                message = f"{stem!r} is in the lists {' and '.join(twice[stem])}; expected it in one split"
                row = Problem(folder, number, "split-overlap", message)
            else:
                row = replace(row, split=splits.get(stem))
        yield row
    if counts.objects["all"]:
        marked = [f"{counts.objects[mark]} {mark}" for mark in ("difficult", "truncated") if counts.objects[mark]]
        included = f", {' and '.join(marked)} ones included" if marked else ""
        yield note(
            folder,
            f"{counts.objects['all']} objects count as labels of the whole picture{included}",
            "interpreted",
        )
    if counts.left_out:
        found = f"{len(counts.left_out)} annotations that no list in {_LISTS} names"
        yield note(folder, f"found {found}, left out: {examples(counts.left_out)}")
    if without := [name for name in tree.pictures if name not in used and not _is_mask(name)]:
        yield note(folder, f"found {len(without)} pictures without an annotation, left out: {examples(without)}")


def _row_of_xml(folder: Path, number: int, name: str, pictures: "_Pictures", counts: _Counts) -> Row | Problem:
    try:
        root = _parse(folder, name)
    except ValueError as error:
        return Problem(folder, number, "bad-row", str(error))
    labels = []
    for each in root.findall("object"):
        label = " ".join((each.findtext("name") or "").split())
        if not label:
            return Problem(folder, number, "bad-row", f"{name!r}: found an object without a <name>; expected its class")
        labels.append(label)
        counts.objects.update(["all"])
        counts.objects.update(mark for mark in ("difficult", "truncated") if (each.findtext(mark) or "").strip() == "1")
    named = (root.findtext("filename") or "").strip()
    found = pictures.of(name, named)
    if len(found) != 1:
        what = f"{len(found)} pictures ({examples(found)})" if found else "no picture"
        message = f"{name!r}: found {what} named {PurePosixPath(name).stem!r} or {named!r} in {folder}; expected one"
        return Problem(folder, number, "missing-picture", message)
    return clean_row(folder, number, found[0], (), tuple(dict.fromkeys(labels)))


def _parse(folder: Path, name: str) -> Element:
    """Return the root of an annotation; ValueError, with its name, says what is wrong."""
    content = bytes_beside(folder, name)
    try:
        root = parse_xml(content)
    except XmlError as error:
        raise ValueError(f"{name!r}: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"{name!r}: found the element <{root.tag}>; expected <annotation>")
    return root


class _Pictures:
    """The pictures of a source, by stem and by name."""

    def __init__(self, tree: Tree) -> None:
        self._by_key: dict[str, list[str]] = {}
        for name in tree.pictures:
            if not _is_mask(name):
                path = PurePosixPath(name)
                for key in {path.stem, path.name}:
                    self._by_key.setdefault(key, []).append(name)

    def of(self, annotation: str, filename: str | None) -> list[str]:
        """Return the pictures that an annotation may be about: by its stem, else by <filename>.

        Of several, those in its folder win, then the one of that very file name, then those in folders for pictures.
        """
        path = PurePosixPath(annotation)
        named = PurePosixPath((filename or "").replace("\\", "/")).name
        found = self._by_key.get(path.stem) or self._by_key.get(named) or self._by_key.get(PurePosixPath(named).stem)
        found = found or []
        for keep in (
            lambda each: each.parent == path.parent,
            lambda each: each.name == named,
            lambda each: each.parent.name.lower() in ("jpegimages", "images"),
        ):
            if len(found) > 1:
                found = [name for name in found if keep(PurePosixPath(name))] or found
        return found


def _is_mask(name: str) -> bool:
    return PurePosixPath(name).parts[0] in _NO_PICTURES


def _first_annotation(folder: Path) -> str | None:
    """Return an XML file of a source that is an annotation; None without any."""
    for inside in _ANNOTATION_FOLDERS:
        here = folder / inside
        names = files_in(here) if here.is_dir() else []
        for name in [name for name in names if name.lower().endswith(".xml")][:3]:
            try:
                with open_regular(here / name) as stream:
                    if _ROOT.search(stream.read(1024)):
                        return str(PurePosixPath(inside, name))
            except OSError:
                continue
    return None


def _lists_in(folder: Path) -> list[str]:
    here = folder / _LISTS
    return files_in(here) if here.is_dir() else []


def _split_lists(folder: Path) -> dict[str, list[str]]:
    """Return the names that the lists of splits have, by the name of the list.

    Raises:
        DataError: a list cannot be read.
    """
    found = {}
    for words in (*SPLIT_NAMES.values(), ("trainval",)):
        for word in words:
            if f"{word}.txt" in _lists_in(folder):
                found[word] = [line.split()[0] for line in _lines(folder, f"{word}.txt")]
    return found


def _splits(lists: Mapping[str, Iterable[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the split of each name, and the lists of each name that is in several splits."""
    splits: dict[str, str] = {}
    named: dict[str, list[str]] = {}
    for split, words in SPLIT_NAMES.items():
        for word in words:
            for name in lists.get(word, ()):
                if splits.setdefault(_stem(name), split) != split or _stem(name) not in named:
                    named.setdefault(_stem(name), []).append(f"{word}.txt")
    for name in lists.get("trainval", ()):
        splits.setdefault(_stem(name), "train")
    return splits, {name: words for name, words in named.items() if len(words) > 1}


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".xml") else path.name


def _class_lists(folder: Path) -> dict[str, list[str]]:
    """Return the classification lists of each class, such as `dog_train.txt`."""
    found: dict[str, list[str]] = {}
    for name in _lists_in(folder):
        if match := _CLASS_LIST.fullmatch(name):
            found.setdefault(match[1], []).append(name)
    return found


def _lines(folder: Path, name: str) -> Iterator[str]:
    try:
        text = read_beside(folder / _LISTS, name, MAX_ANNOTATIONS_BYTES)
    except ValueError as error:
        raise DataError(f"{folder / _LISTS}: {error}") from None
    return (line for line in text.split("\n") if line.strip())


def _rows_of_lists(folder: Path, tree: Tree) -> Rows:
    """Yield the rows of classification lists, a row for each picture that they name."""
    lists = _split_lists(folder)
    present: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    splits, twice = _splits(lists)
    bad: dict[str, str] = {}
    for label, names in _class_lists(folder).items():
        for list_name in names:
            for line in _lines(folder, list_name):
                key, *value = line.split()
                present.setdefault(key, [])
                if value == [_PRESENT]:
                    present[key].append(label)
                elif value == [_DIFFICULT]:
                    unknown.setdefault(key, []).append(label)
                elif value != [_ABSENT]:
                    bad[key] = f"{list_name}: found {line.strip()[:60]!r}; expected a name with 1, -1 or 0"
                if not lists and (match := _CLASS_LIST.fullmatch(list_name)):
                    splits.setdefault(key, "train" if match[2] == "trainval" else match[2])
    if not present:
        raise DataError(f"{folder}: found no annotation; expected Annotations/*.xml or {_LISTS}/dog_train.txt")
    pictures = _Pictures(tree)
    for number, key in enumerate(sorted(present), start=1):
        found = pictures.of(key + ".xml", None)
        if key in bad or key in twice:
            message = bad.get(key) or f"{key!r} is in the lists {' and '.join(twice[key])}; expected one split"
            yield Problem(folder, number, "bad-row" if key in bad else "split-overlap", message)
        elif len(found) != 1:
            what = f"{len(found)} pictures ({examples(found)})" if found else "no picture"
            yield Problem(folder, number, "missing-picture", f"found {what} named {key!r} in {folder}; expected one")
        else:
            row = clean_row(folder, number, found[0], (), tuple(dict.fromkeys(present[key])))
            left = tuple(dict.fromkeys(each for each in unknown.get(key, ()) if each not in present[key]))
            yield replace(row, unknown=left, split=splits.get(key)) if isinstance(row, Row) else row
    if count := sum(map(len, unknown.values())):
        yield note(
            folder, f"{count} entries of the lists are 0 (difficult): these labels are unknown there", "interpreted"
        )
