"""What the drawings share: boxes, lines and texts of an SVG file, in colours that read on white."""

from collections.abc import Iterable
from html import escape

INK, GREY, LINE = "#1f2328", "#57606a", "#8c959f"
BLUE, ORANGE, GREEN, PLAIN = "#ddeefc", "#fdeedc", "#e2f3e4", "#f6f8fa"


def text(
    x: float, y: float, words: str, *, size: int = 13, colour: str = INK, bold: bool = False, middle: bool = False
) -> str:
    """Return one line of text whose baseline is at `y`, beginning at or centred on `x`."""
    weight = ' font-weight="600"' if bold else ""
    anchor = ' text-anchor="middle"' if middle else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{weight}{anchor}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    """Return a box with round corners."""
    size = f'width="{width:g}" height="{height:g}" rx="5"'
    return f'<rect x="{x:g}" y="{y:g}" {size} fill="{fill}" stroke="{LINE}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return an arrow from (x1, y1) to (x2, y2)."""
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{GREY}" stroke-width="1.5" marker-end="url(#head)"/>'


def page(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Return the whole file."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker>'
    )
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        f"<defs>{head}</defs>",
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
