"""The labels of a data set, and how a Labels cell is read."""

from __future__ import annotations

import ast
import csv
import difflib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlic_runtime.annotations.problems import Problem
from mlic_runtime.annotations.source.files import read_text
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_LIST_CHARACTERS

_COLUMNS = ["LabelID", "Name"]
_SEPARATORS = re.compile(r"[;|]")
_COMMAS = re.compile(r"[,\t]")
# What programs write into a cell without a value, as whole cells: then the row is not labelled.
MISSING = frozenset({"none", "nan", "null", "n/a", "<na>"})
_WHOLE_NUMBER = re.compile(r"([0-9]+)(?:\.0+)?")  # pandas writes whole numbers as 10.0 where a column has blanks


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels that are predicted, in the order of the model's outputs.

    Attributes:
        names: one name per label, unique.
        ids: the id of each label in the data files, unique; the same as `names` where the data has no other.
        restricts: True when a labels file lists them: COCO categories outside it are then left out on purpose.
        splits_at: how cells are split that hold no list, `;` or `|`: at "commas" or "spaces", or "nowhere"; None where
            the labels are declared: then the labels themselves tell (see `parse`).
        notes: what is to be said about how the labels were found.

    Raises:
        DataError: there is no label, a name or id is blank, repeated, contains `;` or `|`, or is both the id of one
            label and the name of another.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    restricts: bool = field(default=False, compare=False)
    splits_at: str | None = field(default=None, compare=False)
    notes: tuple[Problem, ...] = field(default=(), compare=False)
    _index: dict[str, int] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise DataError(f"{len(self.names)} label names but {len(self.ids)} label ids; expected one id per name")
        if not self.names:
            raise DataError("found no label; expected at least one")
        index: dict[str, int] = {}
        for what, keys in (("id", self.ids), ("name", self.names)):
            seen: set[str] = set()
            for position, key in enumerate(keys):
                if not key or key != " ".join(key.split()) or _SEPARATORS.search(key):
                    raise DataError(
                        f"label {what} {key!r}: expected a text without ';' or '|' and without unneeded spaces"
                    )
                if key in seen:
                    raise DataError(f"label {what} {key!r} occurs twice; expected each once")
                seen.add(key)
                if index.setdefault(normal_form(key), position) != position:
                    raise DataError(
                        f"{key!r} is the name of label {self.ids[position]!r} and the id of label "
                        f"{self.names[index[normal_form(key)]]!r}; expected names and ids that cannot be confused"
                    )
        object.__setattr__(self, "_index", index)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, id_or_name: object) -> bool:
        return isinstance(id_or_name, str) and normal_form(id_or_name) in self._index

    def index(self, id_or_name: str) -> int:
        """Return the position of a label, given by its id or by its name; `10.0` is the id `10`.

        Raises:
            DataError: no label has that id or name; the message offers the nearest ones.
        """
        try:
            key = normal_form(id_or_name)
            return self._index[key if key in self._index else _plain_number(key)]
        except KeyError:
            near = difflib.get_close_matches(id_or_name, self._index, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {self._listing()}"
            raise DataError(f"unknown label {id_or_name!r}; {hint}") from None

    def parse(self, cell: str) -> tuple[int, ...]:
        """Read a Labels cell into sorted label indices; a blank cell is (), none of the labels.

        Names may contain spaces and commas, so the cell is read by the first of these rules that fits:

        1. the whole cell is the id or the name of a label (`traffic light`);
        2. it is a list, as JSON or Python write it (`["dog", "cat"]`);
        3. it contains `;` or `|`: a list separated by them (`traffic light; dog`);
        4. a list separated by what `splits_at` says (`1 19`); where the labels are declared, by commas if all parts are
           labels, else by spaces.

        Raises:
            DataError: one of them is unknown.
        """
        whole = normal_form(" ".join(cell.split()))
        return self.indices([whole] if whole in self._index else split_cell(cell, self._splits_at(cell)))

    def is_missing(self, cell: str) -> bool:
        """Return whether a cell says that there is no value, such as `nan`; not where that is the name of a label."""
        return cell.strip().casefold() in MISSING and " ".join(cell.split()) not in self

    def _splits_at(self, cell: str) -> str:
        if self.splits_at is not None:
            return self.splits_at
        return "commas" if _COMMAS.search(cell) and all(p in self for p in split_cell(cell, "commas")) else "spaces"

    def indices(self, ids_or_names: Iterable[str]) -> tuple[int, ...]:
        """Sorted indices of labels given by id or name, each once.

        Raises:
            DataError: one of them is unknown.
        """
        return tuple(sorted({self.index(key) for key in ids_or_names}))

    def _listing(self) -> str:
        shown = [name if name == key else f"{key} ({name})" for name, key in zip(self.names, self.ids, strict=True)]
        return ", ".join(shown[:20]) + (f", ... ({len(shown)} in all)" if len(shown) > 20 else "")

    @classmethod
    def declared(cls, names: Iterable[str], files: Sequence[Path]) -> LabelSet:
        """Return the labels that files declare by name.

        Raises:
            DataError: see `LabelSet`; the message begins with the files.
        """
        keys = tuple(names)
        try:
            return cls(keys, keys)
        except DataError as error:
            raise DataError(f"{', '.join(map(str, files))}: {error}") from None

    @classmethod
    def from_file(cls, file: Path) -> LabelSet:
        """Read a labels file: CSV, UTF-8, with the columns LabelID and Name, one label a row, in output order.

        Ids that are all whole numbers may be written as `10.0`.

        Raises:
            DataError: the file is missing, not such a CSV, or its labels are not unique.
        """
        reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
        ids: list[str] = []
        names: list[str] = []
        try:
            header = [cell.strip() for cell in next(reader, [])]
            # pandas puts its row numbers first; nothing can be confused, as the other two columns have to be there
            index = header[0] if len(header) == 3 and header[0] in ("", "Unnamed: 0") else None
            if sorted(header[index is not None :]) != _COLUMNS:
                raise DataError(f"{file}: found the header {','.join(header)!r}; expected LabelID,Name")
            id_column, name_column = header.index("LabelID"), header.index("Name")
            for number, row in enumerate((row for row in reader if row), start=1):
                if len(row) != len(header):
                    raise DataError(f"{file}:record {number}: found {len(row)} columns; expected LabelID,Name")
                if broken := not_utf8(",".join(row)):
                    raise DataError(f"{file}:record {number}: {broken}")
                ids.append(row[id_column].strip())
                names.append(" ".join(row[name_column].split()))
        except csv.Error as error:
            raise DataError(f"{file}: not a CSV file with LabelID,Name: {error}") from None
        try:
            return cls(tuple(names), tuple(_plain_numbers(ids)), restricts=True)
        except DataError as error:
            raise DataError(f"{file}: {error}") from None


def normal_form(text: str) -> str:
    """Return a text in the Unicode normal form NFC: a label in NFD is the same label."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def split_cell(cell: str, splits_at: str = "spaces") -> list[str]:
    """Split a Labels cell: a list, or at `;` and `|` where it has any, else as told; blank entries are dropped.

    Args:
        cell: the cell.
        splits_at: see `LabelSet.splits_at`.
    """
    parts = _list_in(cell)
    if parts is None and _SEPARATORS.search(cell):
        parts = _SEPARATORS.split(cell)
    if parts is None:
        parts = _COMMAS.split(cell) if splits_at == "commas" else [cell] if splits_at == "nowhere" else cell.split()
    return [part for part in (" ".join(part.split()) for part in parts) if part]


def _list_in(cell: str) -> list[str] | None:
    """Return the entries of a list as JSON or Python write it; None where the cell is something else."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > MAX_LIST_CHARACTERS:
        return None
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        try:
            entries = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    if not isinstance(entries, list) or any(isinstance(e, bool) or not isinstance(e, str | int) for e in entries):
        return None
    return list(map(str, entries))


def _plain_numbers(labels: Collection[str]) -> Collection[str]:
    """Return labels with `10.0` as `10` if all are whole numbers; else they are names, such as versions, and stay."""
    return list(map(_plain_number, labels)) if all(map(_WHOLE_NUMBER.fullmatch, labels)) else labels


def _plain_number(label: str) -> str:
    number = _WHOLE_NUMBER.fullmatch(label)
    return label if number is None else number[1]


def infer_labels(cells: Iterable[str | tuple[str, ...]], where: Path = Path()) -> LabelSet:
    """Return the labels that occur in data as ids and names, by number when all are whole numbers, else by name.

    Labels that are all whole numbers may be written as `10.0`. How cells with several labels are split is decided for
    all of them together: lists, and `;` and `|`, always separate. Where no cell has one of these, commas do. Where none
    has commas either, spaces do if all parts are whole numbers, if every part of the cells with spaces is also a whole
    cell, or if few words are combined in many ways; else such cells are names with spaces. Names that differ in their
    Unicode normal form alone are one.

    Args:
        cells: Labels cells, or lists of names.
        where: the file that the notes of the labels are about.

    Raises:
        DataError: no label occurs.
    """
    counts = Counter(cells)
    texts = {cell: count for cell, count in counts.items() if isinstance(cell, str) and cell.strip()}
    texts = {cell: count for cell, count in texts.items() if cell.strip().casefold() not in MISSING}
    splits_at, notes = _choose_split(texts, {name for cell in counts if isinstance(cell, tuple) for name in cell})
    found: Counter[str] = Counter()
    for cell, count in counts.items():
        parts = cell if isinstance(cell, tuple) else split_cell(cell, splits_at) if cell in texts else []
        for part in dict.fromkeys(" ".join(part.split()) for part in parts):
            found[part] += count
    forms: dict[str, set[str]] = {}
    for name in found:
        forms.setdefault(normal_form(name), set()).add(name)
    twice = [form for form, names in forms.items() if len(names) > 1]
    if twice:
        example = f"such as {twice[0]!r}"
        notes.append(
            f"found {len(twice)} labels, {example}, in two Unicode normal forms (NFC and NFD); each is one label"
        )
    named: Counter[str] = Counter()
    for name, count in found.items():
        named[normal_form(name)] += count
    keys = set(_plain_numbers(named))
    numbers = all(label.isascii() and label.isdigit() for label in keys)
    ordered = tuple(sorted(keys, key=(lambda label: (int(label), label)) if numbers else None))
    said = [Problem(where, None, "interpreted", note, "warning") for note in notes]
    said += [Problem(where, None, "similar-labels", note, "warning") for note in _look_alikes(named)]
    return LabelSet(ordered, ordered, splits_at=splits_at, notes=tuple(said))


def _choose_split(cells: Mapping[str, int], names: Collection[str]) -> tuple[str, list[str]]:
    """Return how cells are split (see `LabelSet.splits_at`), and what is to be said about it; `names` are of lists."""
    total = sum(cells.values())
    lists = {cell: count for cell, count in cells.items() if _list_in(cell) is not None}
    notes = []
    if lists:
        notes.append(f"{sum(lists.values())} of {total} cells of labels are lists, such as {_short(next(iter(lists)))}")
    rest = {cell: count for cell, count in cells.items() if cell not in lists}
    for what, pattern in (("';' or '|'", _SEPARATORS), ("commas", _COMMAS)):
        if split := {cell: count for cell, count in rest.items() if pattern.search(cell)}:
            example = _short(next(iter(split)))
            found = f"{sum(split.values())} of {total} cells, such as {example}"
            notes.append(f"labels are separated by {what} in {found}")
            return ("commas" if pattern is _COMMAS else "nowhere"), notes
    spaced = {cell: count for cell, count in rest.items() if len(cell.split()) > 1}
    if not spaced:
        return ("spaces" if rest else "nowhere"), notes
    whole = {*names, *(" ".join(cell.split()) for cell in rest if cell not in spaced)}
    parts = {part for cell in spaced for part in cell.split()}
    # Few words in many combinations of several lengths are lists, too, although some word never stands alone.
    lengths = {len(cell.split()) for cell in rest}
    # Names of species share words as well, so fewer combinations are enough only where half of the words stand alone.
    few = 2 * len(parts) <= len(spaced) or (len(parts) < len(spaced) and 2 * len(parts & whole) >= len(parts))
    combined = few and len(lengths) > 2
    cut = all(map(_WHOLE_NUMBER.fullmatch, parts)) or parts <= whole or combined
    how = "are separated by spaces" if cut else "have names with spaces"
    found = f"{sum(spaced.values())} of {total} cells, such as {_short(next(iter(spaced)))}"
    why = "; if they are names with spaces, give a labels file" if combined else "; separate several labels by ';'"
    why = "" if cut and not combined else why
    return ("spaces" if cut else "nowhere"), [*notes, f"labels {how} in {found}{why}"]


def _look_alikes(counts: Mapping[str, int]) -> list[str]:
    """Return what is to be said about labels that differ only in case, width, hyphens, underscores or spaces."""
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        plain = re.sub(r"[-_\s]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
        groups.setdefault(plain, []).append(name)
    return [
        f"found {' and '.join(f'{name!r} ({counts[name]} rows)' for name in names)}, which look alike and are "
        "different labels; write them alike if they are one"
        for names in groups.values()
        if len(names) > 1
    ]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
