"""Exports of Label Studio: JSON (tasks with annotations) and JSON_MIN (an object for each annotation).

Formats: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem
from mlic_runtime.base.override import override
from mlic_runtime.errors import DataError

from .format import Rows, clean_row, split_called
from .json_files import JsonFormat, load_json
from .picture_names import address_notes, names_of, with_tails
from .xml_files import XmlError, load_xml

_TASK_KEYS = ("annotations", "completions", "predictions")
# What JSON_MIN adds to the data of a task, before and after the answers (label_studio_sdk, converter.py).
_BEFORE, _AFTER = "id", ("annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "history")
_IMAGE_KEYS = ("image", "img", "picture", "photo", "image_url", "imageurl", "url", "file_name", "filename")
_CAPTION_KEYS = ("caption", "captions", "text", "description")
_SPLIT_KEYS = ("split", "subset", "fold", "partition", "set")
_LABEL_KEYS = ("label", "labels", "choice", "choices", "class", "classes", "tag", "tags", "category", "categories")
_REGION = {"x", "points", "rle", "vertices", "start"}  # what the value of an answer about a part of a picture has
_REGIONS = {"rectangle", "ellipse", "polygon", "keypoint", "brush", "bitmask", "vector"}  # without labels of their own
_FEW_TEXTS = 20  # different texts that are choices although hardly one occurs twice


@dataclass(slots=True)
class _Answer:
    """What one person answered: labels as (control, name), and captions."""

    labels: list[tuple[str, str]] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    truth: bool = False


@dataclass(slots=True)
class _Task:
    """A task: its number in the file, its data, and its answers; none if nobody annotated it."""

    number: int
    data: Mapping[str, Any]
    answers: list[_Answer]
    cancelled: bool = False


@dataclass(slots=True)
class _Seen:
    """What was counted while the answers were read.

    Attributes:
        regions: boxes and other parts of pictures whose labels count for the whole picture.
        paths: choices of a taxonomy.
        unread: answers that are no labels, by what they are.
        controls: the controls that have labels, in the order of the file.
    """

    regions: int = 0
    paths: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    controls: dict[str, str] = field(default_factory=dict)


class LabelStudio(JsonFormat):
    """Label Studio's JSON and JSON_MIN.

    Labels are the answers of type choices and taxonomy (a path such as Animal/Dog), and the labels of boxes, polygons
    and other regions. Predictions and drafts are no answers. An empty answer means none of the labels; tasks without an
    answer, or only with cancelled ones, are left out. Where several people answered, labels that only some of them
    chose are unknown; answers that are marked as ground truth count alone. The labelling configuration (`<View>`) in an
    XML file beside the export declares the labels.
    """

    name = "label-studio"
    title = "Label Studio export"
    shape = "a list of tasks with `data` and `annotations` (JSON), or of objects with `annotation_id` (JSON_MIN)"
    split_files = ("{split}.json",)

    @override
    @classmethod
    def fits(cls, content: Any) -> bool:
        if not isinstance(content, list) or not content or not isinstance(content[0], dict):
            return False
        return _is_task(content[0]) or _is_minimal(content[0])

    @override
    def read_rows(self, file: Path, labels: LabelSet | None) -> Rows:
        tasks, problems, seen = _read(file)
        yield from problems
        image, caption, split = _keys(file, tasks)
        done = [task for task in tasks if task.answers]
        if not done:
            raise DataError(
                f"{file}: found {len(tasks)} tasks, none of which has an annotation (predictions are none); "
                "expected an export after the labelling"
            )
        yield from _notes(file, tasks, seen, labels, {image, caption, split})
        names = _label_names(done, labels)
        pictures = [names_of(_text(task.data.get(image)) if image else "") for task in done]
        yield from address_notes(file, pictures)
        blank = 0
        for task, picture, places in zip(done, pictures, with_tails(pictures), strict=True):
            captions = _texts(task.data.get(caption)) if caption else []
            blank += any(not text.strip() for text in captions)
            captions = [text for text in captions if text.strip()]
            captions += [text for answer in _counting(task) for text in answer.captions if text.strip()]
            sure, unsure = _agreed([[names[label] for label in answer.labels] for answer in _counting(task)])
            first = places[0] if places else _text(task.data.get(image)) if picture.address and image else ""
            row = clean_row(file, task.number, first, captions, sure)
            if isinstance(row, Problem):
                yield row
                continue
            said = split_called(_text(task.data.get(split))) if split else None
            yield dataclasses.replace(row, unknown=unsure, split=said, other_names=places[1:])
        if blank:
            yield Problem(file, None, "empty-caption", f"{blank} of {len(done)} tasks have a blank caption", "warning")

    @override
    def read_labels(self, files: Sequence[Path]) -> LabelSet | None:
        configurations = {found for file in files if (found := _configuration(file)) is not None}
        if not configurations:
            return None
        labels = _distinct(label for found in sorted(configurations) for label in _declared(found))
        controls = _controls(labels)
        names = tuple(_distinct(f"{control}: {name}" * (len(controls[name]) > 1) or name for control, name in labels))
        try:
            return LabelSet(names, names)
        except DataError as error:
            raise DataError(f"{', '.join(map(str, sorted(configurations)))}: {error}") from None

    @override
    def describe(self, file: Path) -> str:
        tasks, _, seen = _read(file)
        image, caption, split = _keys(file, tasks)
        kind = "JSON" if _is_task(load_json(file)[0]) else "JSON_MIN"
        parts = [f"{what} in {key!r}" for what, key in (("picture", image), ("caption", caption)) if key is not None]
        controls = ", ".join(f"{name!r} ({kind})" for name, kind in seen.controls.items())
        parts.append(f"labels from {controls}" if controls else "no labels")
        parts += [f"split in {split!r}"] if split else []
        unread = _unread_keys(tasks, {image, caption, split})
        end = f"; not read: {', '.join(map(repr, unread))}" if unread else ""
        return f"{self.title} ({kind}): {len(tasks):,} tasks, {', '.join(parts)}{end}"


def _is_task(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("data"), dict) and any(key in entry for key in _TASK_KEYS)


def _is_minimal(entry: Any) -> bool:
    return isinstance(entry, dict) and "annotation_id" in entry and ("annotator" in entry or "lead_time" in entry)


def _read(file: Path) -> tuple[list[_Task], list[Problem], _Seen]:
    """Return the tasks of an export, in their order, with the problems of those that cannot be read."""
    content, seen = load_json(file), _Seen()
    if not LabelStudio.fits(content):
        raise DataError(f"{file}: not an export of Label Studio; expected {LabelStudio.shape}")
    if not _is_task(content[0]):
        return *_minimal_tasks(file, content, seen), seen
    tasks: list[_Task] = []
    problems: list[Problem] = []
    for number, entry in enumerate(content, start=1):
        try:
            tasks.append(_task(number, entry, seen))
        except ValueError as error:
            problems.append(Problem(file, number, "bad-row", str(error)))
    return tasks, problems, seen


def _task(number: int, entry: Any, seen: _Seen) -> _Task:
    """Return a task of JSON; ValueError where it is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("data"), dict):
        raise ValueError(f"found {_short(entry)}; expected a task with `data`")
    annotations = entry.get("annotations", entry.get("completions"))
    annotations = [] if annotations is None else annotations
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        raise ValueError(f"found the annotations {_short(annotations)}; expected a list of objects")
    kept = [each for each in annotations if not (each.get("was_cancelled") or each.get("skipped"))]
    answers = []
    for annotation in kept:
        answer = _Answer(truth=bool(annotation.get("ground_truth")))
        results = annotation.get("result")
        results = [] if results is None else results
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise ValueError(f"found the result {_short(results)}; expected a list of objects")
        labelled = {str(each.get("id")) for each in results if _has_labels(each)}
        for result in results:
            if _text(result.get("type")) not in _REGIONS or str(result.get("id")) not in labelled:
                _add_result(answer, result, seen)
        answers.append(answer)
    return _Task(number, entry["data"], answers, bool(annotations) and not answers)


def _has_labels(result: Mapping[str, Any]) -> bool:
    kind = result.get("type")
    return isinstance(kind, str) and kind.lower().endswith("labels")


def _add_result(answer: _Answer, result: Mapping[str, Any], seen: _Seen) -> None:
    """Add what one control says; ValueError where its value is not what its type has."""
    kind, value, control = _text(result.get("type")).lower(), result.get("value"), _text(result.get("from_name"))
    if not isinstance(value, dict):
        if kind not in ("relation", ""):
            raise ValueError(f"found the value {_short(value)} of a result of type {kind!r}; expected an object")
        seen.unread[kind or "results without a type"] += 1
    elif kind == "choices" and _REGION & value.keys():
        seen.unread[f"choices {control!r} of regions"] += 1
    elif kind == "textarea":
        if control.lower() in _CAPTION_KEYS:
            answer.captions += _names(value.get("text"), kind)
        else:
            seen.unread[f"textarea {control!r}"] += 1
    elif kind == "choices" or kind == "taxonomy" or (_has_labels(result) and kind in value):
        _add_labels(answer, control, kind, value.get(kind), seen)
    else:
        seen.unread[f"{kind} {control!r}"] += 1


def _add_labels(answer: _Answer, control: str, kind: str, value: Any, seen: _Seen) -> None:
    if kind == "taxonomy":
        paths = value if isinstance(value, list) and all(isinstance(path, list) for path in value) else [value]
        names = ["/".join(_names(path, kind)) for path in paths]
        seen.paths += len(names)
    else:
        names = _names(value, kind)
    seen.regions += kind not in ("choices", "taxonomy")
    seen.controls.setdefault(control, kind)
    answer.labels += [(control, name) for name in names if name]


def _names(value: Any, kind: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, (str, int, float)) and not isinstance(each, bool) for each in values):
        raise ValueError(f"found the {kind} {_short(value)}; expected a list of texts")
    return [" ".join(str(each).split()) for each in values]


def _minimal_tasks(file: Path, content: list[Any], seen: _Seen) -> tuple[list[_Task], list[Problem]]:
    """Return the tasks of JSON_MIN: the objects of one task (`id`) are the answers of several people to it."""
    problems = [
        Problem(file, number, "bad-row", f"found {_short(entry)}; expected an object with `annotation_id`")
        for number, entry in enumerate(content, start=1)
        if not isinstance(entry, dict)
    ]
    objects = [(number, entry) for number, entry in enumerate(content, start=1) if isinstance(entry, dict)]
    controls = _minimal_controls([entry for _, entry in objects])
    tasks: dict[object, _Task] = {}
    for number, entry in objects:
        answer = _Answer()
        try:
            for control in controls:
                _add_minimal(answer, control, entry.get(control), seen)
        except ValueError as error:
            problems.append(Problem(file, number, "bad-row", str(error)))
            continue
        data = {key: value for key, value in entry.items() if key not in (_BEFORE, *_AFTER, *controls)}
        key = entry.get(_BEFORE)
        task = tasks.setdefault(number if key is None else ("id", str(key)), _Task(number, data, []))
        if entry.get("annotation_id") is not None:
            task.answers.append(answer)
    return list(tasks.values()), problems


def _minimal_controls(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of JSON_MIN that are answers, not data.

    As Label Studio writes them they stand between `id` and `annotator`. Where the order of keys was lost, they are
    those with values that only answers have, and those with names such as `labels`.
    """
    answers: dict[str, None] = {}
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    shaped: set[str] = set()
    for entry in objects:
        keys = list(entry)
        ordered = _BEFORE in keys and "annotator" in keys and keys.index(_BEFORE) < keys.index("annotator")
        between = keys[keys.index(_BEFORE) + 1 : keys.index("annotator")] if ordered else keys
        for key in between:
            value = entry[key]
            if key in (_BEFORE, *_AFTER) or value is None:
                continue
            if _is_answer(value):
                shaped.add(key)
            elif isinstance(value, str):
                texts[key][value] += 1
                if not ordered and key.lower() not in _LABEL_KEYS:
                    continue
            answers.setdefault(key)
    taken = {*_IMAGE_KEYS, *_SPLIT_KEYS}
    return [
        key
        for key in answers
        if key in shaped
        or key.lower() in (*_LABEL_KEYS, *_CAPTION_KEYS)
        or (key.lower() not in taken and len(texts[key]) <= max(_FEW_TEXTS, texts[key].total() // 2))
    ]


def _is_answer(value: Any) -> bool:
    """Return whether a value of JSON_MIN is one that only answers have."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) and bool({"choices", "text", "taxonomy"} & value.keys())


def _add_minimal(answer: _Answer, control: str, value: Any, seen: _Seen) -> None:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):  # one choice, or one text of a textarea
            if control.lower() in _CAPTION_KEYS:
                answer.captions.append(each)
            elif each.strip():
                _add_labels(answer, control, "choices", [each], seen)
        elif isinstance(each, dict):
            kinds = [key for key in each if key in ("choices", "taxonomy", "text") or key.lower().endswith("labels")]
            for kind in kinds or ["values"]:
                found = {"textarea" if kind == "text" else kind: kind}
                result = {"type": next(iter(found)), "from_name": control, "value": each}
                _add_result(answer, result, seen)
        elif each is not None:
            seen.unread[f"{type(each).__name__} {control!r}"] += 1


def _keys(file: Path, tasks: Sequence[_Task]) -> tuple[str | None, str | None, str | None]:
    """Return the keys of the picture, the caption and the split in the data of tasks; None where there is none.

    Raises:
        DataError: there is neither picture nor caption, or several keys may be the picture.
    """
    keys = _distinct(key for task in tasks for key in task.data)

    def known(names: Iterable[str]) -> str | None:
        return next((key for name in names for key in keys if key.lower() == name), None)

    image, caption, split = known(_IMAGE_KEYS), known(_CAPTION_KEYS), known(_SPLIT_KEYS)
    if image is None:
        places = [key for key in keys if key not in (caption, split) and _are_pictures(tasks, key)]
        if len(places) > 1:
            raise DataError(f"{file}: found pictures under {', '.join(map(repr, places))}; expected one, as `image`")
        image = places[0] if places else None
    if split is not None and any(task.answers and split_called(_text(task.data.get(split))) is None for task in tasks):
        split = None
    answered = any(answer.captions for task in tasks for answer in task.answers)
    if tasks and image is None and caption is None and not answered:
        found = ", ".join(map(repr, keys[:10])) or "nothing"
        raise DataError(f"{file}: found {found} in the data of tasks; expected a picture in `image`, or a `caption`")
    return image, caption, split


def _are_pictures(tasks: Iterable[_Task], key: str) -> bool:
    values = [task.data[key] for task in tasks if task.data.get(key)]
    ends = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
    return bool(values) and all(
        isinstance(value, str) and (value.startswith("/data/") or value.partition("?")[0].lower().endswith(ends))
        for value in values
    )


def _counting(task: _Task) -> list[_Answer]:
    """Return the answers that count: those marked as ground truth where there are any, else all."""
    return [answer for answer in task.answers if answer.truth] or task.answers


def _agreed(answers: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels that all answers have, and those that only some have."""
    found = _distinct(label for answer in answers for label in answer)
    sure = tuple(label for label in found if all(label in answer for answer in answers))
    return sure, tuple(label for label in found if label not in sure)


def _controls(labels: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    controls: dict[str, list[str]] = {}
    for control, name in labels:
        found = controls.setdefault(name, [])
        if control not in found:
            found.append(control)
    return controls


def _label_names(tasks: Iterable[_Task], labels: LabelSet | None) -> dict[tuple[str, str], str]:
    """Return what each answer is called as a label: its name, or "control: name" where several controls have it."""
    found = _distinct(label for task in tasks for answer in task.answers for label in answer.labels)
    controls = _controls(found)
    names = {}
    for control, name in found:
        long = f"{control}: {name}"
        names[control, name] = long if (len(controls[name]) > 1 if labels is None else long in labels) else name
    return names


def _notes(
    file: Path, tasks: Sequence[_Task], seen: _Seen, labels: LabelSet | None, read: set[str | None]
) -> Iterator[Problem]:
    """Yield what is to be said about the file as a whole."""

    def note(kind: str, message: str) -> Problem:
        return Problem(file, None, kind, message, "warning")

    if left := [task for task in tasks if not task.answers]:
        cancelled = sum(task.cancelled for task in left)
        message = f"{len(left)} of {len(tasks)} tasks have no annotation ({cancelled} of them were cancelled)"
        yield note("ignored", f"{message}; they are left out")
    if seen.regions:
        yield note("interpreted", f"the labels of {seen.regions} boxes or other regions count for the whole picture")
    if seen.paths:
        message = f"{seen.paths} choices of a taxonomy are labels named by their paths, such as 'Animal/Dog'"
        yield note("interpreted", message)
    if seen.unread:
        found = ", ".join(f"{count} of {what}" for what, count in seen.unread.most_common(10))
        yield note("ignored", f"answers that are no labels are not read: {found}")
    if unread := _unread_keys(tasks, read):
        yield note("ignored", f"the data {', '.join(map(repr, unread))} of tasks is not read")
    several = [task for task in tasks if len(task.answers) > 1]
    truths = [task for task in several if any(answer.truth for answer in task.answers)]
    if truths:
        yield note("interpreted", f"{len(truths)} tasks have an annotation marked as ground truth, which counts alone")
    differing = [task for task in several if any(_agreed([[*map(str, a.labels)] for a in _counting(task)])[1])]
    if differing:
        message = (
            f"{len(several)} tasks have several annotations, which differ in {len(differing)}; "
            "labels that only some have are unknown there"
        )
        yield note("interpreted", message)
    names = _label_names([task for task in tasks if task.answers], labels)
    if long := [name for (_, plain), name in names.items() if name != plain]:
        message = f"several controls have the same choice, so labels are named by both, such as {long[0]!r}"
        yield note("interpreted", message)


def _unread_keys(tasks: Iterable[_Task], read: set[str | None]) -> list[str]:
    return _distinct(key for task in tasks for key, value in task.data.items() if key not in read and value != "")[:20]


def _configuration(file: Path) -> Path | None:
    """Return the labelling configuration beside an export; None without one.

    Raises:
        DataError: there are several.
    """
    found = []
    for path in sorted(file.parent.glob("*.xml")):
        if path.is_file() and path.stat().st_size < 1024 * 1024:
            try:
                root = load_xml(path)
            except (XmlError, DataError):
                continue  # another file than a configuration; what reads that one will complain
            if root.tag == "View":
                found.append(path)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{file.parent}: found the labelling configurations {names}; expected one beside the export")
    return found[0] if found else None


def _declared(file: Path) -> list[tuple[str, str]]:
    """Return (control, name) for each label that a labelling configuration offers."""
    found: list[tuple[str, str]] = []

    def collect(control: str, element: Any, path: tuple[str, ...], nested: bool) -> None:
        for child in element:
            inside = path
            if child.tag in ("Choice", "Label") and (value := child.get("alias") or child.get("value")):
                inside = (*path, " ".join(value.split())) if nested else (" ".join(value.split()),)
                found.append((control, "/".join(inside)))
            collect(control, child, inside, nested)

    for element in load_xml(file).iter():
        control = element.tag in ("Choices", "Taxonomy") or element.tag.endswith("Labels")
        if control and element.get("perRegion") != "true":
            collect(element.get("name", ""), element, (), element.tag == "Taxonomy")
    return found


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [_text(each) for each in values if each is not None]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None or isinstance(value, (list, dict)) else str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
