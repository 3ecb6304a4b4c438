"""One self-contained HTML file: text, tables, plots and pictures inside it, nothing fetched from anywhere."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from mlic_train.base.files import write_bytes

# A caption may turn the writing direction or hold lines of its own; neither may reach beyond its cell.
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #8886; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8883; }
th:first-child, td:first-child { text-align: left; }
td, p, h3, figcaption { unicode-bidi: isolate; }
p, h3, figcaption { overflow-wrap: anywhere; }
img { max-width: 100%; } .plot { background: #fff; }
.wide { overflow-x: auto; } .wide img { max-width: none; }
figure { display: inline-block; margin: .5rem; vertical-align: top; font-size: .85rem; }
figure.picture { width: 180px; } figcaption { white-space: pre-line; }
.pair { display: inline-block; margin: .3rem; padding: .2rem; border: 1px solid #8886; vertical-align: top; }
.pair p { margin: 0 .5rem; font-size: .85rem; }
"""
_WIDE = 1500  # pixels; a wider plot would be unreadable at the width of the page, so it scrolls
# What XML and HTML do not allow in text, and halves of characters, which cannot be encoded.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def page(title: str, *sections: str) -> str:
    """A whole document; `sections` are HTML from the functions below, `title` is text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{_text(title)}</h1>\n{''.join(sections)}</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading (text) and what stands under it (HTML)."""
    return f"<h2>{_text(title)}</h2>\n{''.join(parts)}\n"


def subheading(title: str) -> str:
    """A heading (text) inside a section."""
    return f"<h3>{_text(title)}</h3>\n"


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{_text(text)}</p>\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text and numbers; numbers with a fraction are shown to four digits."""
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(_cell(value))}</td>" for value in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def plot(figure: Figure, alt: str) -> str:
    """A matplotlib figure as a PNG inside the page; `alt` says in words what it shows."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    with Image.open(buffer) as drawn:
        wide = ' class="wide"' if drawn.width > _WIDE else ""
    source = _data_uri(buffer.getvalue(), "image/png")
    return f'<p{wide}><img class="plot" alt="{_text(alt)}" src="{source}"></p>\n'


def picture(image: Image.Image, caption: str, size: int = 180) -> str:
    """A picture, at most `size` pixels a side, with text under it."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return _figure(_data_uri(buffer.getvalue(), "image/jpeg"), caption, ' class="picture"')


def drawing(image: Image.Image, caption: str, alt: str) -> str:
    """A drawn image with few colours as a PNG of its own size, with text under it; `alt` says what it shows."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(32).save(buffer, format="PNG", optimize=True)
    return _figure(_data_uri(buffer.getvalue(), "image/png"), caption, "", alt)


def pair(first: str, second: str, note: str) -> str:
    """Two pictures (HTML) side by side in one frame, with what they have in common (text)."""
    return f'<div class="pair">{first}{second}<p>{_text(note)}</p></div>\n'


def write_page(path: Path, document: str) -> None:
    """Write the document under a temporary name, then rename: a report is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, document.encode("utf-8"))


def _figure(source: str, caption: str, attributes: str, alt: str | None = None) -> str:
    shown = _text(caption)
    described = shown if alt is None else _text(alt)
    return f'<figure{attributes}><img alt="{described}" src="{source}"><figcaption>{shown}</figcaption></figure>\n'


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _text(text: str) -> str:
    """Any text as HTML, also where an attribute's value is wanted."""
    return escape(_NOT_TEXT.sub("\ufffd", text))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
