"""The labels of a data set, and how a Labels cell is read."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlic_runtime.base.text import not_utf8
from mlic_train.data.source.files import read_text
from mlic_train.errors import DataError

_COLUMNS = ["LabelID", "Name"]
_SEPARATORS = re.compile(r"[;|]")
_WHOLE_NUMBER = re.compile(r"([0-9]+)(?:\.0+)?")  # pandas writes whole numbers as 10.0 where a column has blanks


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels that are predicted, in the order of the model's outputs.

    Attributes:
        names: one name per label, unique.
        ids: the id of each label in the data files, unique; the same as `names` where the data has no other.
        restricts: True when a labels file lists them: COCO categories outside it are then left out on purpose.

    Raises:
        DataError: there is no label, a name or id is blank, repeated, contains `;` or `|`, or is both the id of one
            label and the name of another.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    restricts: bool = field(default=False, compare=False)
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
                if index.setdefault(key, position) != position:
                    raise DataError(
                        f"{key!r} is the name of label {self.ids[position]!r} and the id of label "
                        f"{self.names[index[key]]!r}; expected names and ids that cannot be confused"
                    )
        object.__setattr__(self, "_index", index)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, id_or_name: object) -> bool:
        return id_or_name in self._index

    def index(self, id_or_name: str) -> int:
        """Return the position of a label, given by its id or by its name; `10.0` is the id `10`.

        Raises:
            DataError: no label has that id or name; the message offers the nearest ones.
        """
        try:
            return self._index[id_or_name if id_or_name in self._index else _plain_number(id_or_name)]
        except KeyError:
            near = difflib.get_close_matches(id_or_name, self._index, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {self._listing()}"
            raise DataError(f"unknown label {id_or_name!r}; {hint}") from None

    def parse(self, cell: str) -> tuple[int, ...]:
        """Read a Labels cell into sorted label indices; a blank cell is (), none of the labels.

        Names may contain spaces, so the cell is read by the first of these rules that fits:

        1. it contains `;` or `|`: a list separated by them (`traffic light; dog`);
        2. the whole cell is the id or the name of a label (`traffic light`);
        3. a list separated by spaces (`1 19`).

        Raises:
            DataError: one of them is unknown.
        """
        whole = " ".join(cell.split())
        keys = [whole] if whole in self._index else split_cell(cell)
        return self.indices(keys)

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


def split_cell(cell: str) -> list[str]:
    """Split a Labels cell at `;` and `|` where it has any, else at spaces; blank entries are dropped."""
    parts = _SEPARATORS.split(cell) if _SEPARATORS.search(cell) else cell.split()
    return [part for part in (" ".join(part.split()) for part in parts) if part]


def _plain_numbers(labels: Collection[str]) -> Collection[str]:
    """Return labels with `10.0` as `10` if all are whole numbers; else they are names, such as versions, and stay."""
    return list(map(_plain_number, labels)) if all(map(_WHOLE_NUMBER.fullmatch, labels)) else labels


def _plain_number(label: str) -> str:
    number = _WHOLE_NUMBER.fullmatch(label)
    return label if number is None else number[1]


def infer_labels(cells: Iterable[str | tuple[str, ...]]) -> LabelSet:
    """Return the labels that occur in data as ids and names, by number when all are whole numbers, else by name.

    Labels that are all whole numbers may be written as `10.0`. A cell is split as in `LabelSet.parse`. Its rule 2 needs
    names that are not known yet; instead, when any cell contains `;` or `|`, none is split at spaces.

    Raises:
        DataError: no label occurs.
    """
    cells = list(cells)
    listed = any(isinstance(cell, str) and _SEPARATORS.search(cell) for cell in cells)
    found: set[str] = set()
    for cell in cells:
        if isinstance(cell, tuple):
            found.update(cell)
        elif listed:
            found.update(split_cell(cell + ";"))
        else:
            found.update(split_cell(cell))
    found = set(_plain_numbers(found))
    numbers = all(label.isascii() and label.isdigit() for label in found)
    keys = tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))
    return LabelSet(keys, keys)
