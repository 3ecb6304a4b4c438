"""What the columns of a table hold: picture, captions, labels, split; found by their names and by their cells."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlic_runtime.annotations.labels import MISSING, LabelSet, normal_form, split_cell
from mlic_runtime.tables.columns import (
    CAPTION_COLUMNS,
    Columns,
    find_columns,
    numbered,
    plain_name,
    ranked,
    require_column,
    require_once,
)

from .format import ColumnNames, split_called

# The best first; see `columns.IMAGE_COLUMNS`.
LABEL_COLUMNS = (
    *("labels", "label", "label_list", "label_names", "label_name", "label_ids", "label_id", "tags", "tag", "tag_list"),
    *("classes", "class", "class_names", "class_name", "class_ids", "class_id", "categories", "category"),
    *("category_names", "category_name", "category_ids", "category_id", "genres", "genre", "choices", "choice"),
    *("finding_labels", "findings", "keywords", "topics", "topic", "attributes", "attribute_ids", "targets", "target"),
    *("Kategorien", "Kategorie", "Klassen", "Klasse", "Schlagwörter", "Schlagworte", "Etiketten", "Etikett"),
    *("étiquettes", "etiquettes", "étiquette", "etiquette", "catégories", "catégorie", "categorie", "classe"),
    *("etiquetas", "etiqueta", "categorías", "categorias", "categoría", "categoria", "clases", "clase"),
)
SPLIT_COLUMNS = ("split", "subset", "partition", "data_split", "set", "data_set", "fold", "usage")
UNSURE_COLUMN = "unknown"
_FLAGS = {  # columns of yes and no: the split of each
    **dict.fromkeys(("isvalid", "isval", "isvalidation", "valid", "validation"), ("val", "train")),
    "istest": ("test", "train"),
    **dict.fromkeys(("istrain", "istraining"), ("train", "val")),
}
# What Label Studio writes into a CSV export besides the task's data and the answers.
_STUDIO = frozenset({"annotationid", "annotator", "leadtime", "createdat", "updatedat", "agreement", "history"})
_KEPT_VALUES = 50  # different cells of a column that are kept: no more are a split's words

YES, NO, UNKNOWN, BLANK, CROSS, FRACTION, NUMBER, TEXT, LIST, OTHER = range(10)
_WORDS = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), YES),
    **dict.fromkeys(("0", "0.0", "false", "no"), NO),
    **dict.fromkeys(("-1", "-1.0", "?", *MISSING), UNKNOWN),
    "": BLANK,
    "x": CROSS,
}
_ONE_HOT = frozenset({YES, NO, UNKNOWN, BLANK})


def kind_of(value: Any) -> int:
    """Return what a cell may be: YES, NO, UNKNOWN, BLANK, CROSS (an x), FRACTION, NUMBER, TEXT, LIST or OTHER."""
    if value is None:
        return BLANK
    if isinstance(value, bool):
        return YES if value else NO
    if isinstance(value, str):
        word = value.strip().casefold()
        if word in _WORDS:
            return _WORDS[word]
        if word.startswith(("[", '{"choices"')):
            return LIST
        try:
            value = float(word)
        except ValueError:
            return TEXT
    if isinstance(value, int | float):
        if math.isnan(value) or value == -1:
            return UNKNOWN
        return YES if value == 1 else NO if value == 0 else FRACTION if 0 < value < 1 else NUMBER
    return LIST if isinstance(value, list | dict) else OTHER


@dataclass(slots=True)
class _Seen:
    """What the cells of a column are: how many of each kind, the first texts, and the first folders of paths."""

    kinds: Counter[int] = field(default_factory=Counter)
    values: dict[str, None] = field(default_factory=dict)
    folders: dict[str, None] = field(default_factory=dict)

    @property
    def one_hot(self) -> bool:
        crosses = self.kinds.keys() <= {BLANK, CROSS} and CROSS in self.kinds
        return crosses or (self.kinds.keys() <= _ONE_HOT and (YES in self.kinds or NO in self.kinds))

    @property
    def soft(self) -> bool:
        """Whether it is like a column of yes and no, but has fractions."""
        return FRACTION in self.kinds and self.kinds.keys() <= _ONE_HOT | {FRACTION}


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a table hold.

    Attributes:
        columns: the picture and the captions.
        labels: the column of Labels cells, or those that hold a label each (tags); empty without any.
        one_hot: columns named like labels with yes or no in each cell.
        crosses: whether the cells of `one_hot` are x or blank, and blank means no.
        split: the column of the split; None without one.
        by_folder: whether the first folder of each picture's name is its split.
        unsure: the column with a list of labels that the row neither has nor lacks, `unknown`; None without one.
        unread: columns that nothing is read from.
        notes: what is to be said about it.
        unknown: how many cells of `one_hot` say neither yes nor no.
        studio: whether Label Studio wrote the table.
        soft: why its labels cannot be read, because a column that is like one of labels has fractions; "" otherwise.
    """

    columns: Columns
    labels: tuple[str, ...]
    one_hot: tuple[str, ...]
    crosses: frozenset[str]
    split: str | None
    by_folder: bool
    unsure: str | None
    unread: tuple[str, ...]
    notes: tuple[str, ...]
    unknown: int
    studio: bool
    soft: str

    def describe(self) -> str:
        """Return what is read as what, for people."""
        parts = []
        if self.columns.image is not None:
            parts.append(f"picture in {self.columns.image!r}")
        if self.columns.captions:
            parts.append(f"captions in {_named(self.columns.captions)}")
        if self.one_hot:
            parts.append(f"{len(self.one_hot)} label columns ({_range(self.one_hot)})")
        elif self.labels:
            parts.append(f"labels in {_named(self.labels)}")
        else:
            parts.append("no labels")
        if self.split is not None:
            parts.append(f"split in {self.split!r}")
        if self.by_folder:
            parts.append("split by the first folder of the pictures' names")
        unread = f"; not read: {_named(self.unread)}" if self.unread else ""
        return f"{', '.join(parts)}{unread}"

    def split_of(self, value: Any) -> str | None:
        """Return the split that a cell of the column `split` names; None where it names none."""
        assert self.split is not None
        flags = _FLAGS.get(plain_name(self.split))
        if flags is not None and (kind := kind_of(value)) in (YES, NO):
            return flags[0] if kind == YES else flags[1]
        return split_called(str(value))


def find_layout(
    header: Sequence[str],
    rows: Iterable[dict[str, Any]],
    given: ColumnNames,
    known: LabelSet | None,
    skip: Sequence[str],
    each_own: bool = False,
) -> Layout:
    """Find what the columns of a table hold.

    Args:
        header: the names of the columns; JSON lines may have more, which are added in the order of the rows.
        rows: the cells of all rows, by column.
        given: the columns that the user names.
        known: the labels of the data set, where they are known already: columns of their names are labels.
        skip: columns whose cells are not in `rows`.
        each_own: whether each row may have columns of its own, as in JSON lines.

    Raises:
        InputError: there is neither a picture nor a caption, or a named column is not there.
    """
    seen = {name: _Seen() for name in header}
    kinds: dict[Any, int] = {}
    for cells in rows:
        for name, value in cells.items():
            column = seen.get(name)
            if column is None:
                column = seen[name] = _Seen()
            kind = kinds.get(value) if type(value) is str else kind_of(value)
            if kind is None:
                kind = kind_of(value)
                if len(value) < 16:
                    kinds[value] = kind
            column.kinds[kind] += 1
            if len(column.values) < _KEPT_VALUES and isinstance(value, str | int | float):
                column.values.setdefault(str(value).strip())
            if type(value) is str and len(column.folders) < _KEPT_VALUES:
                column.folders.setdefault(first_folder(value))
    names = [*header, *(name for name in seen if name not in header)]
    return _Finder(names, seen, given, known, skip, each_own).find()


class _Finder:
    """Gives each column one meaning."""

    def __init__(
        self,
        names: Sequence[str],
        seen: dict[str, _Seen],
        given: ColumnNames,
        known: LabelSet | None,
        skip: Sequence[str],
        each_own: bool,
    ) -> None:
        self.each_own = each_own
        self.names, self.seen, self.given, self.known, self.skip = names, seen, given, known, skip
        for name in (*given.labels, *([] if given.split is None else [given.split])):
            require_column(names, name)
        self.soft = ""
        self.studio = len(_STUDIO & set(map(plain_name, names))) >= 2

    def find(self) -> Layout:
        split = self._split()
        # A label may be called Text.
        free = [name for name in self.names if name != split and name not in self.given.labels]
        free = [name for name in free if name in self.given.names or not self._is_flag(name)]
        if self.each_own:  # two spellings in two objects are no fault
            free = [*{plain_name(name): name for name in reversed(free)}.values()][::-1]
        columns = find_columns(free, self.given.image, self.given.caption)
        taken = {columns.image, *columns.captions, split}
        left = [name for name in self.names if name and name not in taken and name not in self.skip]
        if self.studio:
            left = [name for name in left if plain_name(name) not in _STUDIO and plain_name(name) != "id"]
        labels, one_hot, notes = self._labels(left)
        folders = self.seen[columns.image].folders if columns.image in self.seen else {}
        splits = [split_called(folder) for folder in folders]
        by_folder = split is None and None not in splits and "train" in splits and len(set(splits)) > 1
        for name in (*labels, *one_hot):
            require_once(self.names, name)
        unsure = next((name for name in left if plain_name(name) == UNSURE_COLUMN and self._is_list(name)), None)
        unsure = None if one_hot else unsure
        taken |= {*labels, *one_hot, unsure}
        read = {plain_name(name) for name in (columns.image, *columns.captions) if name and self.each_own}
        unread = [name for name in self.names if name not in taken and plain_name(name) not in read]
        unread = [name or "a column without a name" for name in unread]
        crosses = frozenset(name for name in one_hot if CROSS in self.seen[name].kinds)
        unknown = sum(
            count
            for name in one_hot
            if name not in crosses
            for kind, count in self.seen[name].kinds.items()
            if kind in (BLANK, UNKNOWN)
        )
        return Layout(
            columns,
            tuple(labels),
            tuple(one_hot),
            crosses,
            split,
            by_folder,
            unsure,
            tuple(unread),
            tuple(notes),
            unknown,
            self.studio,
            self.soft,
        )

    def _is_flag(self, name: str) -> bool:
        """Return whether a column is called like captions, other than `caption`, but holds yes and no."""
        called = ranked([name], CAPTION_COLUMNS[2:])
        return bool(called) and self._is_one_hot(name) and CROSS not in self.seen[name].kinds

    def _is_list(self, name: str) -> bool:
        return self.seen[name].kinds.keys() <= {LIST, BLANK, *([TEXT] if self.each_own else [])}

    def _is_one_hot(self, name: str) -> bool:
        return name in self.seen and self.seen[name].one_hot

    def _split(self) -> str | None:
        if self.given.split is not None:
            return self.given.split
        for name in ranked(self.names, SPLIT_COLUMNS):
            values = [value for value in self.seen[name].values if value]
            if values and all(map(split_called, values)):
                return name
        flags = [name for name in self.names if plain_name(name) in _FLAGS and self._is_one_hot(name)]
        return flags[0] if len(flags) == 1 else None

    def _labels(self, left: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
        """Return the columns of Labels cells, those of yes and no, and what is to be said about the choice."""
        if self.given.labels:
            given = list(self.given.labels)
            several = len(given) > 1 and all(map(self._is_one_hot, given))
            return ([], given, []) if several else (given, [], [])
        cells = ranked(left, LABEL_COLUMNS)
        tags = [name for name in numbered(left, LABEL_COLUMNS) if not self._is_one_hot(name)]
        if self.studio and not cells:
            listed = [name for name in left if LIST in self.seen[name].kinds]
            cells = listed or [name for name in left if TEXT in self.seen[name].kinds][:1]
        if tags and all(LIST not in self.seen[name].kinds for name in tags):
            stems = {plain_name(tag).rstrip("0123456789") for tag in tags}
            whole = [name for name in cells[:1] if plain_name(name) in stems]
            return [*whole, *tags], [], []
        one_hot = [name for name in left if name not in cells and self._is_label(name)]
        if not cells:
            self.soft = self._find_soft(left, one_hot)
            return [], one_hot, []
        if not one_hot:
            return cells[:1], [], []
        plain = {plain_name(name) for name in one_hot}
        parts = {plain_name(part) for value in self.seen[cells[0]].values for part in split_cell(value, "commas")}
        common = sum(part in plain for part in parts)
        if parts and 2 * common >= len(parts):
            return [], one_hot, [f"the column {cells[0]!r} names the same labels as the columns; the columns are read"]
        return cells[:1], [], []

    def _is_label(self, name: str) -> bool:
        if self.known is not None and self.known.restricts and name not in self.known:
            return False
        if self._is_one_hot(name):
            return True
        blank = self.seen[name].kinds.keys() <= {BLANK, UNKNOWN}
        return blank and self.known is not None and normal_form(" ".join(name.split())) in self.known

    def _find_soft(self, left: Sequence[str], one_hot: Sequence[str]) -> str:
        """Return `Layout.soft`."""
        soft = [name for name in left if self.seen[name].soft]
        known = [name for name in soft if self.known is not None and name in self.known]
        mixed = [name for name in soft if {YES, NO} & self.seen[name].kinds.keys() and one_hot]
        bad = known or mixed or (soft if len(soft) > 1 and not one_hot else [])
        if not bad:
            return ""
        value = next(value for value in self.seen[bad[0]].values if kind_of(value) == FRACTION)
        return (
            f"found {value} in the column {bad[0]!r}; expected 1 or 0: soft labels come from a teacher "
            "(mlic-train --teacher); for columns that are no labels, name the columns that are"
        )


def first_folder(name: str) -> str:
    """Return the first folder of a path, "" without one."""
    folder, separator, _ = name.strip().replace("\\", "/").removeprefix("./").partition("/")
    return folder if separator else ""


def list_of(value: Any) -> "str | tuple[str, ...] | None":
    """Return the labels in a cell: a text that is still to be split, or a list of names; None where it has none.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, str) and value.lstrip().startswith('{"choices"'):  # Label Studio
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"found labels {value[:60]!r}, which are not JSON ({error})") from None
    if isinstance(value, dict):
        if value.keys() != {"choices"}:
            raise ValueError(f"found labels {str(value)[:60]}; expected a list of names or ids")
        value = value["choices"]
    if value is None or isinstance(value, str):
        return value
    # pandas writes whole numbers as 10.0 where a column has blanks
    entries = value if isinstance(value, list) else [value]
    entries = [int(each) if isinstance(each, float) and each.is_integer() else each for each in entries]
    for each in entries:
        if isinstance(each, bool) or not isinstance(each, str | int):
            if not isinstance(value, list) and isinstance(each, float) and math.isnan(each):
                return None
            raise ValueError(f"found the label {each!r}; expected a name or an id")
    return tuple(" ".join(str(each).split()) for each in entries)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:8]))
    return shown if len(names) <= 8 else f"{shown}, ... ({len(names)} columns)"


def _range(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]}"
