"""Texts in and out: on one line, as JSON, as CSV, and as UTF-8."""

import json
import re
from typing import Any

LIST_SEPARATOR = ";"  # between labels in one cell: a name may hold spaces, and mlic-train reads such cells

_SURROGATE = re.compile("[\ud800-\udfff]")
# Valid inside JSON strings, but terminals obey them, or readers of lines split at them, or UTF-8 cannot write them.
_JSON_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def normalize_whitespace(caption: str | None) -> str | None:
    """Return the caption with each run of whitespace as one space, as in training; None if it is blank."""
    return None if caption is None else " ".join(caption.split()) or None


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which gets an s unless it is one: "1 picture", "2,000 pictures"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def error_line(error: BaseException) -> str:
    """Return what an error says, on one line; the name of its class if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def not_utf8(text: str) -> str | None:
    """Return what is wrong with a text that holds lone surrogates, from undecodable bytes or from JSON; else None."""
    match = _SURROGATE.search(text)
    if match is None:
        return None
    code = ord(match[0])
    what = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"character \\u{code:04x}"
    return f"found the {what}, which is not UTF-8; expected UTF-8 text"


def csv_line(cells: list[Any]) -> str:
    """Return a record of CSV, with its line end."""
    import csv  # here, because most predictions are shown otherwise
    import io

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def to_json(value: dict[str, Any], indent: int | None) -> str:
    """Return JSON, with its line end, whose characters are safe for terminals and for readers of lines."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _JSON_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def printable(text: str) -> str:
    """Return the text on one line, control characters escaped: file names can hold line breaks and terminal codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def encode(text: str) -> bytes:
    """Return the text as UTF-8, whatever the locale says.

    A file name may hold bytes that are not UTF-8. Python keeps them as lone surrogates, which are escaped here.
    """
    return text.encode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """Return a text on one line, with what is not Unicode escaped."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
