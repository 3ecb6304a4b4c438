"""Rows of prediction from the records of a table.

A row names its picture (`Row.name`), or has its bytes (`Row.image`, from Parquet). A row that breaks the rules of its
format has an `error`, and reading goes on with the next one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mlic_runtime.base.text import normalize_whitespace, not_utf8, one_line
from mlic_runtime.errors import InputError
from mlic_runtime.tables.cells import captions_of, picture_of
from mlic_runtime.tables.columns import Columns, find_columns
from mlic_runtime.tables.table import BrokenRow, Table, TableRow

from .row import Row


def rows_of(table: Table, notes: list[str], image: str | None = None, caption: str | None = None) -> Iterator[Row]:
    """Yield the rows of a table.

    The objects of JSON lines may have different keys: then the columns are looked for in each of them.

    Args:
        table: the table.
        notes: a list that gets a line about the columns that are not read.
        image: the column of the picture, if the user names it.
        caption: the column of the captions, if the user names it.

    Raises:
        InputError: the header of CSV or Parquet has no known column, or not the named ones.
    """
    notes += table.notes
    json = table.title.startswith("JSON")
    found: dict[tuple[str, ...], Columns | InputError] = {}

    def columns_of(names: tuple[str, ...]) -> Columns | InputError:
        if names not in found:
            given = [name if not json or name in names else None for name in (image, caption)]
            try:
                found[names] = find_columns(names, *given)
            except InputError as error:
                found[names] = error
        return found[names]

    if table.header or not json:
        columns = columns_of(table.header)
        if isinstance(columns, Columns):
            notes += _describe(table.header, columns)
        elif not json:
            raise columns

    def rows() -> Iterator[Row]:
        for number, record in enumerate(table.rows, start=1):
            columns = columns_of(tuple(record.cells) if json else table.header)
            if isinstance(record, BrokenRow):
                name = None if isinstance(columns, InputError) else record.cells.get(columns.image or "")
                yield bad_row(name, f"row {number}: {record.message}")
            elif isinstance(columns, InputError):
                yield bad_row(None, f"row {number}: {columns}")
            else:
                yield _make_row(number, record, columns)

    return rows()


def parquet_columns(names: Sequence[str], image: str | None = None, caption: str | None = None) -> list[str]:
    """Return the columns of a Parquet file that rows are made of; see `open_table`.

    Raises:
        InputError: see `find_columns`.
    """
    columns = find_columns(names, image, caption)
    return [*([] if columns.image is None else [columns.image]), *columns.captions[:1]]


def bad_row(name: Any, message: str) -> Row:
    """Return a row that could not be read."""
    name = name.strip() or None if isinstance(name, str) and not not_utf8(name) else None
    return Row(name=name, error=InputError(one_line(message)))


def _make_row(number: int, record: TableRow, columns: Columns) -> Row:
    name = None
    try:
        value = record.cells.get(columns.image) if columns.image is not None else None
        name, content = picture_of(value)
        if name is not None and (broken := not_utf8(name)):
            return bad_row(None, f"row {number}, picture: {broken}")
        texts = captions_of(record.cells.get(columns.captions[0]) if columns.captions else None)
    except ValueError as error:
        return bad_row(name, f"row {number}: {error}")
    captions = [caption for text in texts if (caption := normalize_whitespace(text)) is not None]
    if len(captions) > 1:
        return bad_row(name, f"row {number}: found {len(captions)} captions; expected one: give each a row of its own")
    caption = captions[0] if captions else None
    if caption is not None and (broken := not_utf8(caption)):
        return bad_row(name, f"row {number}, caption: {broken}")
    return Row(content, caption, name)


def _describe(names: Sequence[str], columns: Columns) -> Iterator[str]:
    """Yield what is read as what where there was a choice, and what is not read."""
    others = [*columns.others, *columns.captions[1:]]
    if others:
        if columns.image is not None:
            yield f"the picture is in {columns.image}"
        if columns.captions:
            yield f"the caption is in {columns.captions[0]}"
    unread = [name for name in names if name not in (columns.image, *columns.captions[:1])]
    if unread:
        yield f"not read from the input: {one_line(', '.join(unread))}"
