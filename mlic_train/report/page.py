"""One self-contained HTML file: headings, tables, plots and pictures, with nothing fetched from anywhere."""

import base64
import io
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import jinja2
from PIL import Image

from mlic_runtime.base.output_files import write_bytes
from mlic_train.errors import TrainError

# What XML and HTML do not allow in text, and halves of characters, which cannot be encoded.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Table:
    """A table of text and numbers; without a header it is a list of facts, each a name and a value.

    `folded` is the title under which it is folded away, or "".
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    folded: str = ""
    template: ClassVar[str] = "table.html"


@dataclass(frozen=True)
class Plot:
    """A plot as a data URI; `alt` says in words what it shows, and a `wide` one scrolls."""

    source: str
    alt: str
    wide: bool
    template: ClassVar[str] = "plot.html"


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with text under it; a `small` one has a fixed width."""

    source: str
    caption: str
    alt: str
    small: bool
    template: ClassVar[str] = "picture.html"


@dataclass(frozen=True)
class Pair:
    """Two pictures side by side in one frame, and what they have in common."""

    first: Picture
    second: Picture
    note: str
    template: ClassVar[str] = "pair.html"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says how to read what follows, and tables, pictures or smaller sections."""

    title: str
    caption: str
    parts: Sequence["Part"] = ()
    template: ClassVar[str] = "section.html"


Part: TypeAlias = Table | Plot | Picture | Pair | Section


def table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Return a table of rows that have the same keys: those are its header."""
    return Table(list(rows[0]), [list(row.values()) for row in rows])


def facts(rows: Iterable[Sequence[object]], folded: str = "") -> Table:
    """Return a table of names and values; see `Table` for `folded`."""
    return Table((), list(rows), folded)


def side_by_side(columns: Mapping[str, Mapping[str, object]]) -> Table:
    """Return a table with a column for each mapping and a row for each of their keys."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return Table(("", *columns), [(name, *(column.get(name) for column in columns.values())) for name in names])


def left_out(title: str, reason: str) -> Section:
    """Return a section that only says why there is nothing in it."""
    return Section(title, f"Left out: {reason}.")


def thumbnail(image: Image.Image, caption: str, size: int = 180) -> Picture:
    """Return a photo of at most `size` pixels a side as JPEG, with text under it."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return Picture(data_uri(buffer, "image/jpeg"), caption, caption, small=True)


def drawing(image: Image.Image, caption: str, alt: str) -> Picture:
    """Return a drawn image with few colours as a PNG of its own size, with text under it."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(32).save(buffer, format="PNG", optimize=True)
    return Picture(data_uri(buffer, "image/png"), caption, alt, small=False)


def data_uri(buffer: io.BytesIO, kind: str) -> str:
    """Return the bytes as an address that holds them itself."""
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def render_page(title: str, parts: Sequence[Part], warnings: Sequence[str] = ()) -> str:
    """Return the whole document.

    Args:
        title: of the page.
        parts: what stands on it, in order.
        warnings: sentences in bold above the parts.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mlic_train.report"),
        autoescape=True,
        finalize=_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(title=title, parts=parts, warnings=warnings, level=1)


def _text(value: object) -> str:
    """Return what a template shows: counts with commas, other numbers to four digits, and only valid characters."""
    if value is None:
        return ""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return f"{int(value):,}"
    return f"{value:.4f}" if isinstance(value, float) else _NOT_TEXT.sub("\ufffd", str(value))


def check_writable(output: Path) -> None:
    """Refuse a file that could not be written, before the work and not after it.

    Raises:
        TrainError: a folder on its way is a file, or may not be written to.
    """
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise TrainError(f"{output}: cannot be written: {folder} is no folder to write to; choose another --output")


def write_page(output: Path, document: str) -> None:
    """Write the document as one file, which is never seen half-written.

    Raises:
        TrainError: a folder on its way cannot be made.
        OutputError: the file cannot be written; what was there is unchanged.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{output}: cannot be written: {error.strerror}; choose another --output") from None
    write_bytes(output, document.encode("utf-8"))
