"""Draws the rooms of both packages, floor by floor, from import-linter's contracts and the rooms' own first lines.

python scripts/pictures/house.py > docs/pictures/house.svg
"""

import ast
import re
import sys
from pathlib import Path

import svg

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
_ROW, _GAP, _WIDTH, _TOP = 50, 8, 640, 64
_LETTER = 6.2  # pixels that a letter of the small texts takes, about


def purpose(package: str, room: str) -> str:
    """Return what a room says of itself: the first line of its docstring, up to its first stop."""
    folder = ROOT / package / room / "__init__.py"
    file = folder if folder.is_file() else ROOT / package / f"{room}.py"
    words = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    first = re.split(r"[:.](?:\s|$)", words.partition("\n")[0])[0]
    return first.replace("`", "")


def floors(package: str) -> list[list[str]]:
    """Return the rooms of a package, top floor first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each.get("containers") == [package])
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def wrap(words: str, letters: int) -> list[str]:
    """Return a text in at most two lines of so many letters; what is cut ends with three dots."""
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines if len(lines) <= 2 else [lines[0], lines[1][: letters - 3] + "..."]


def draw(package: str, left: float, bottom: float, colour: str) -> list[str]:
    """Return the boxes of a package that stands on `bottom`."""
    parts, rows = [], floors(package)
    top = bottom - len(rows) * (_ROW + _GAP)
    parts.append(svg.text(left, top - 14, package, size=17, bold=True))
    for row, rooms in enumerate(rows):
        y, width = top + row * (_ROW + _GAP), (_WIDTH - _GAP * (len(rooms) - 1)) / len(rooms)
        for column, room in enumerate(rooms):
            x = left + column * (width + _GAP)
            parts.append(svg.box(x, y, width, _ROW, colour))
            if len(rooms) == 1:
                parts.append(svg.text(x + 10, y + 29, room, bold=True))
                lines, start, first = wrap(purpose(package, room), int((width - 110) / _LETTER)), x + 100, y + 29
            else:
                parts.append(svg.text(x + 10, y + 17, room, bold=True))
                lines, start, first = wrap(purpose(package, room), int((width - 16) / _LETTER)), x + 10, y + 37
            shift = 6.5 if len(lines) == 2 else 0
            for number, line in enumerate(lines):
                parts.append(svg.text(start, first - shift + 13 * number, line, size=11, colour=svg.GREY))
    return parts


def house() -> str:
    """Return the drawing."""
    heights = [len(floors(package)) * (_ROW + _GAP) for package in ("mlic_runtime", "mlic_train")]
    bottom = _TOP + max(heights)
    right = 20 + _WIDTH + 60
    parts = [
        svg.text(
            20,
            24,
            "A room imports from rooms below it. mlic_train imports mlic_runtime, never the other way.",
            colour=svg.GREY,
        ),
        *draw("mlic_runtime", 20, bottom, svg.BLUE),
        *draw("mlic_train", right, bottom, svg.ORANGE),
        svg.arrow(right - 10, bottom - 100, 20 + _WIDTH + 12, bottom - 100),
    ]
    return svg.page(right + _WIDTH + 20, bottom + 14, "The rooms of mlic_runtime and mlic_train", parts)


if __name__ == "__main__":
    print(house(), end="")
