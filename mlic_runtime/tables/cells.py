"""What a cell of a table holds: a picture, captions."""

from typing import Any


def picture_of(value: Any) -> "tuple[str | None, bytes | None]":
    """Return the name and the bytes of a picture in a cell.

    A cell holds a name, bytes, or Hugging Face's `Image`: an object with `bytes`, or `path`, or both.

    Raises:
        ValueError: it holds something else.
    """
    if isinstance(value, dict) and value.keys() & {"bytes", "path"} and value.keys() <= {"bytes", "path"}:
        name, content = value.get("path"), value.get("bytes")
    else:
        name, content = (None, value) if isinstance(value, bytes) else (value, None)
    if isinstance(name, (int, float)) and not isinstance(name, bool) and float(name).is_integer():
        name = str(int(name))  # an id; pandas writes whole numbers as 10.0 where a column has blanks
    if (name is not None and not isinstance(name, str)) or (content is not None and not isinstance(content, bytes)):
        raise ValueError(f"found a picture that is {type(value).__name__}; expected a text")
    return (name or "").strip() or None, content


def captions_of(value: Any) -> list[str]:
    """Return the captions of a cell: a text, a list of texts, or none.

    Raises:
        ValueError: it holds something else.
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    for each in given:
        if not isinstance(each, str):
            raise ValueError(f"found a caption that is {type(each).__name__}; expected a text")
    return given
