"""A caption that is a file of its own, and what holds for the captions of every source of rows."""

import re
from pathlib import Path

from .errors import CaptionError
from .files import open_regular

SIDECAR_SUFFIX = ".txt"

# Of a row, or of a caption that is a file of its own. A quote that is never closed, or a file that is one line, ends in
# an error and not in all of the memory. (The csv module has a limit of its own for a cell, 131,072 characters.)
MAX_ROW_BYTES = 1024 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_caption(content: bytes, name: str) -> str | None:
    """A caption that is a file of its own, in UTF-8; None where it is blank.

    Args:
        content: of the file, up to MAX_ROW_BYTES + 1.
        name: what errors call the file.

    Raises:
        CaptionError: it has more than MAX_ROW_BYTES, or is not UTF-8.
    """
    if len(content) > MAX_ROW_BYTES:
        raise CaptionError(f"the caption {name} has more than {MAX_ROW_BYTES} bytes")
    caption = content.decode("utf-8-sig", "surrogateescape")
    broken = not_utf8(caption)
    if broken:
        raise CaptionError(f"the caption {name}: {broken}")
    return one_spaced(caption)


def read_sidecar(picture: Path) -> str | None:
    """The caption of a picture from the .txt file beside it; see `decode_caption`.

    Raises:
        CaptionError: it cannot be read.
        FileNotFoundError: there is none.
    """
    path = picture.parent / f"{picture.stem}{SIDECAR_SUFFIX}"
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_ROW_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CaptionError(f"cannot read the caption {str(path)!r}: {error.strerror or error}") from error
    return decode_caption(content, repr(str(path)))


def one_spaced(caption: str | None) -> str | None:
    """The caption with each run of whitespace as one space, as in training; None where it is blank."""
    return None if caption is None else " ".join(caption.split()) or None


def not_utf8(text: str) -> str | None:
    """What is wrong with text that holds lone surrogates, from undecodable bytes or out of JSON; None without any."""
    found = _SURROGATE.search(text)
    if found is None:
        return None
    code = ord(found[0])
    what = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"character \\u{code:04x}"
    return f"found the {what}, which is not UTF-8; expected UTF-8 text"
