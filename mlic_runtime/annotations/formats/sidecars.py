"""Texts beside pictures (sidecars): tags as taggers and image boards' tools write them, or captions.

For the picture `a.jpg` these are `a.txt`, `a.caption`, `a.tags` and `a.json`, or `a.jpg.txt` and so on. Which tools
write what: kohya's scripts and the WD14 tagger put tags with commas, or a caption, into `a.txt` or `a.caption`;
gallery-dl and Hydrus put one tag a line into `a.jpg.txt`, or JSON into `a.jpg.json`; other downloaders put tags with
underscores and spaces between them into `a.txt`; labelme puts shapes into `a.json`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.tree import Tree, examples, read_beside, walk
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError

from .folder_format import FolderFormat, note, whole_set
from .format import Rows, clean_row

_TEXTS = (".txt", ".caption", ".tags")
_JSON = ".json"
_LOOKED_AT = 2000  # texts that decide what all are
_SHARE = 0.9  # of the texts, or of the tags in them, that have to fit
_TAG_WORDS = 3  # that nearly all tags have at most; "looking at viewer" has three
_NUMBER = re.compile(r"-?[0-9]{0,12}(\.[0-9]{0,40})?(e[-+]?[0-9]{1,4})?", re.IGNORECASE)
_TAG_KEYS = ("tags", "labels", "tag_string", "keywords")
_CAPTION_KEYS = ("caption", "captions", "description")

_Separator = Literal[",", "\n", " ", "keys"]
_SAID = {
    ",": "tags separated by commas",
    "\n": "tags, one a line",
    " ": "tags separated by spaces",
    "keys": "tags, by their keys",
    None: "captions",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How the texts of one ending are read, decided once for a data set.

    Attributes:
        separator: between tags; "keys" for JSON with tags; None where the texts are captions.
        looked_at: texts that decided.
        tags: those of them that look like tags, or have them.
    """

    separator: _Separator | None
    looked_at: int
    tags: int

    def __str__(self) -> str:
        look = "have" if self.separator == "keys" else "look like"
        return f"{_SAID[self.separator]} ({self.tags} of {self.looked_at} texts {look} tags)"


@dataclass
class _Beside:
    """What the files beside one picture say; `labels` is None where none of them has tags."""

    labels: list[str] | None = None
    captions: list[str] = field(default_factory=list)
    bad: str | None = None


def find_sidecars(tree: Tree) -> dict[str, list[str]]:
    """Return the files beside each picture that has any: for each ending `a.txt`, or else `a.jpg.txt`."""
    others = set(tree.others)
    stems = Counter(str(PurePosixPath(name).with_suffix("")) for name in tree.pictures)
    found: dict[str, list[str]] = {}
    for name in tree.pictures:
        stem = str(PurePosixPath(name).with_suffix(""))
        for suffix in (*_TEXTS, _JSON):
            # Beside a.jpg and a.png, a.txt could be about either.
            choices = [name + suffix] if stems[stem] > 1 else [stem + suffix, name + suffix]
            found.setdefault(name, []).extend([each for each in choices if each in others][:1])
    return {name: files for name, files in found.items() if files}


def judge(texts: Sequence[str]) -> Reading:
    """Return how texts are read: as tags if at least nine of ten look like a list of them, else as captions.

    The separator is the line break where as many texts have several lines as have a comma, else the comma; without both
    it is the space, if half of the texts have words with an underscore. A text looks like a list of tags if each part
    has at most three words and does not end a sentence; one part in ten may be longer. A short caption looks the same
    (`a red car`). So there also have to be separators in half of the texts, or all parts are single words, or a third
    of the parts occur in several texts.
    """
    texts = [text.strip() for text in texts if text.strip()][:_LOOKED_AT]
    lines = sum(_has_lines(text) for text in texts)
    commas = sum("," in text for text in texts)
    separator: _Separator = "\n" if lines and lines >= commas else ","
    if not lines and not commas and sum("_" in text for text in texts) * 2 >= len(texts) > 0:
        separator = " "
    lists = [split_tags(text, separator) for text in texts]
    tags = sum(map(_looks_like_tags, lists))
    texts_with = Counter(tag for parts in lists for tag in set(parts))
    parts = [part for each in lists for part in each]
    apart = (
        sum(len(each) > 1 for each in lists) * 2 >= len(lists)
        or all(len(part.split()) == 1 for part in parts)
        or sum(texts_with[part] > 1 for part in parts) * 3 >= len(parts)
    )
    is_tags = bool(texts) and tags >= _SHARE * len(texts) and apart
    return Reading(separator if is_tags else None, len(texts), tags)


def split_tags(text: str, separator: str) -> list[str]:
    """Return the tags of a text, each once; line breaks separate tags beside any other separator."""
    parts = re.split(r"\s+" if separator == " " else rf"[{separator}\n]", text)
    return list(dict.fromkeys(filter(None, (" ".join(part.split()) for part in parts))))


def read_captions(folder: Path, tree: Tree) -> tuple[dict[str, list[str]], set[str]]:
    """Return the captions beside the pictures of a folder where the texts there are captions, and the files read.

    Texts that cannot be read are left out.
    """
    sidecars = find_sidecars(tree)
    readings = _readings(folder, tree, sidecars)
    captions: dict[str, list[str]] = {}
    used: set[str] = set()
    for name, files in sidecars.items():
        chosen = [file for file in files if _kind(file, readings) == "captions"]
        captions[name] = _read(folder, chosen, readings).captions
        used.update(chosen)
    return captions, used


class _Sidecars(FolderFormat):
    """What both formats share: they read the same files, and differ in what the texts are."""

    captions_only = False

    @override
    def recognizes(self, source: Path) -> bool:
        if not source.is_dir():
            return False
        tree = walk(source)
        sidecars = find_sidecars(tree)
        # A single text beside a thousand pictures is a note; and texts may be those of another format (YOLO).
        if len(sidecars) * 2 < len(tree.pictures) or not sidecars:
            return False
        readings = _readings(source, tree, sidecars)
        kinds = {None if reading.separator is None else "tags" for reading in readings.values()}
        return bool(kinds) and ("tags" in kinds) != self.captions_only

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        tree = walk(file)
        sidecars = find_sidecars(tree)
        if not sidecars:
            raise DataError(f"{file}: found no text beside a picture; expected files such as 1.txt beside 1.jpg")
        readings = self._readings(file, tree, sidecars)
        blank, used = 0, set()
        for number, name in enumerate((name for name in tree.pictures if name in sidecars), start=1):
            beside = _read(file, sidecars[name], readings)
            used.update(sidecars[name])
            if beside.bad is not None:
                yield Problem(file, number, "bad-row", beside.bad)
                continue
            tags = None if self.captions_only or beside.labels is None else tuple(beside.labels)
            blank += tags == () or (self.captions_only and not beside.captions)
            yield clean_row(file, number, name, beside.captions, tags)
        for suffix, reading in readings.items():
            yield note(file, f"the {suffix} files are read as {reading}{self._advice(reading)}", "interpreted")
        if blank:
            what = "without a caption" if self.captions_only else "with none of the labels"
            yield note(file, f"found {blank} blank texts: pictures {what}")
        if without := [name for name in tree.pictures if name not in sidecars]:
            yield note(file, f"found {len(without)} pictures without a text beside them, left out: {examples(without)}")
        if others := [name for name in tree.others if name not in used]:
            yield note(file, f"found {len(others)} files that belong to no picture, not read: {examples(others)}")

    @override
    def describe(self, file: Path) -> str:
        tree = walk(file)
        sidecars = find_sidecars(tree)
        said = [f"{suffix} files as {reading}" for suffix, reading in self._readings(file, tree, sidecars).items()]
        return f"{self.title}: {len(sidecars)} of {len(tree.pictures)} pictures; {'; '.join(said)}"

    def _readings(self, folder: Path, tree: Tree, sidecars: Mapping[str, list[str]]) -> dict[str, Reading]:
        """Return how each ending is read; where the user chose the format, its texts are what the format says."""
        readings = _readings(folder, tree, sidecars)
        if self.captions_only:
            return {suffix: replace(each, separator=None) for suffix, each in readings.items()}
        if any(reading.separator is not None for reading in readings.values()):
            return readings
        return {suffix: replace(each, separator=each.separator or ",") for suffix, each in readings.items()}

    def _advice(self, reading: Reading) -> str:
        other = "tags" if reading.separator is None else "captions"
        return f"; for {other}: mlic-train --data-format {other}" if 0 < reading.tags < reading.looked_at else ""


class TagSidecars(_Sidecars):
    """A picture's tags, in a text or JSON file beside it, are its labels; see `judge`.

    A picture whose text is blank has none of the labels. A picture without a text is left out.
    """

    name = "tags"
    title = "tags beside pictures"
    fallback = True


class CaptionSidecars(_Sidecars):
    """A picture's caption is in a text or JSON file beside it. There are no labels."""

    name = "captions"
    title = "captions beside pictures"
    fallback = True
    captions_only = True


def _readings(folder: Path, tree: Tree, sidecars: Mapping[str, list[str]]) -> dict[str, Reading]:
    """Return how the files of each ending are read, decided by all splits together; without YOLO's boxes."""
    basis = whole_set(folder)
    if basis != folder:
        tree = walk(basis)
        sidecars = find_sidecars(tree)
    by_suffix: dict[str, list[str]] = {}
    for files in sidecars.values():
        for name in files:
            texts = by_suffix.setdefault(PurePosixPath(name).suffix, [])
            if len(texts) < _LOOKED_AT:
                texts.append(_read_if_possible(basis, name))
    readings = {}
    for suffix, texts in by_suffix.items():
        if suffix == _JSON:
            tags = sum(map(_has_tags, texts))
            readings[suffix] = Reading("keys" if tags else None, len(texts), tags)
        elif not are_boxes(texts):
            readings[suffix] = judge(texts)
    return readings


def are_boxes(texts: Iterable[str]) -> bool:
    """Return whether texts are boxes as YOLO writes them: on every line a class and at least four numbers."""
    lines = [line.split() for text in texts for line in text.split("\n") if line.strip()]
    return bool(lines) and all(len(line) > 4 and line[0].isdecimal() and all(map(_is_number, line)) for line in lines)


def _has_lines(text: str) -> bool:
    """Return whether a text has several lines; a list with commas that is broken into lines has not."""
    lines = text.split("\n")
    return len(lines) > 1 and not any(line.rstrip().endswith(",") for line in lines[:-1])


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and any(map(str.isdecimal, text))


def _looks_like_tags(parts: Sequence[str]) -> bool:
    longer = sum(len(part.split()) > _TAG_WORDS or part.endswith((".", "!", "?")) for part in parts)
    return bool(parts) and longer * 10 <= len(parts)


def _has_tags(text: str) -> bool:
    found = _Beside()
    try:
        _read_json(found, "", text)
    except (ValueError, RecursionError):
        return False
    return found.labels is not None


def _kind(file: str, readings: Mapping[str, Reading]) -> str | None:
    """Return what a file is read as; None where it is not read."""
    suffix = PurePosixPath(file).suffix
    return None if suffix not in readings else "captions" if readings[suffix].separator is None else "tags"


def _read(folder: Path, files: Iterable[str], readings: Mapping[str, Reading]) -> _Beside:
    found = _Beside()
    for name in files:
        try:
            text = read_beside(folder, name)
            suffix = PurePosixPath(name).suffix
            if suffix == _JSON:
                _read_json(found, name, text)
            elif suffix in readings and readings[suffix].separator is None:
                found.captions += [text] if text.strip() else []
            elif suffix in readings:
                found.labels = [*(found.labels or []), *split_tags(text, readings[suffix].separator or ",")]
        except (ValueError, RecursionError) as error:
            found.bad = f"found {error}" if isinstance(error, ValueError) else f"found {name!r}, nested too deeply"
    return found


def _read_json(found: _Beside, name: str, text: str) -> None:
    """Add the tags and captions of a JSON file; ValueError if it is something else."""
    try:
        entry: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name!r}, which is not JSON ({error}); expected an object with tags") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{name!r}, a JSON {type(entry).__name__}; expected an object with tags")
    tags: list[Any]
    if isinstance(shapes := entry.get("shapes"), list):  # labelme
        tags = [shape.get("label") if isinstance(shape, dict) else None for shape in shapes]
        flags = entry.get("flags")
        tags += [flag for flag, on in flags.items() if on is True] if isinstance(flags, dict) else []
    else:
        keys = [key for key in _TAG_KEYS if entry.get(key) is not None]
        tags = [tag for key in keys for tag in _listed(entry[key])]
        captions = [each for key in _CAPTION_KEYS for each in _one_or_more(entry.get(key))]
        if not keys and not captions:
            raise ValueError(f"{name!r} with none of the keys {', '.join((*_TAG_KEYS, *_CAPTION_KEYS))}, shapes")
        if not all(isinstance(each, str) for each in captions):
            raise ValueError(f"{name!r} with a caption that is no text")
        found.captions += [each for each in captions if each.strip()]
        if not keys:
            return
    if not all(isinstance(tag, str) and tag.strip() for tag in tags):
        raise ValueError(f"{name!r} with a tag that is no text; expected texts")
    found.labels = [*(found.labels or []), *(" ".join(tag.split()) for tag in tags)]


def _listed(value: object) -> list[Any]:
    """Return the tags of a list, of a text with commas or spaces, or of lists by kind, as image boards have them."""
    if isinstance(value, dict):
        return [tag for each in value.values() for tag in _listed(each)]
    return split_tags(value, "," if "," in value else " ") if isinstance(value, str) else _one_or_more(value)


def _one_or_more(value: object) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _read_if_possible(folder: Path, name: str) -> str:
    try:
        return read_beside(folder, name)
    except ValueError:
        return ""
