"""Captions that are files of their own."""

from pathlib import Path

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.text import normalize_whitespace, not_utf8
from mlic_runtime.errors import CaptionError
from mlic_runtime.limits import MAX_ROW_BYTES

SIDECAR_SUFFIX = ".txt"


def decode_caption(content: bytes, name: str) -> str | None:
    """Return the caption from the content of a file in UTF-8; None where it is blank.

    Args:
        content: the first MAX_ROW_BYTES + 1 bytes of the file.
        name: of the file, for errors.

    Raises:
        CaptionError: it has more than MAX_ROW_BYTES, or is not UTF-8.
    """
    if len(content) > MAX_ROW_BYTES:
        raise CaptionError(f"the caption {name} has more than {MAX_ROW_BYTES} bytes")
    caption = content.decode("utf-8-sig", "surrogateescape")
    broken = not_utf8(caption)
    if broken:
        raise CaptionError(f"the caption {name}: {broken}")
    return normalize_whitespace(caption)


def read_sidecar(picture: Path) -> str | None:
    """Return the caption of a picture from the .txt file beside it; see `decode_caption`.

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
        raise CaptionError(f"cannot read the caption {str(path)!r}: {os_error_reason(error)}") from error
    return decode_caption(content, repr(str(path)))
