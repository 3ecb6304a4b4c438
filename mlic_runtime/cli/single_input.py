"""The picture and the caption of a single prediction of `mlic-infer`: from arguments, files and standard input."""

from pathlib import Path
from typing import BinaryIO

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.base.standard_streams import standard_input
from mlic_runtime.base.text import not_utf8
from mlic_runtime.errors import CaptionError, ImageError, InputError
from mlic_runtime.tables.columns import STDIN


def read_picture(image: str | None) -> str | bytes | None:
    """Return the argument IMAGE as `Predictor.predict` takes it: a path, or the content of standard input.

    Raises:
        InputError: nothing can be read from standard input.
    """
    if image != STDIN:
        return image
    data = _read_stdin("a picture")
    if not data:
        raise ImageError("cannot read a picture from standard input: it is empty")
    return data


def read_caption(image: str | None, caption: str | None, sidecar: bool) -> str | None:
    """Return the argument CAPTION, or the text of standard input or of the file beside IMAGE.

    A blank text means that there is no caption. A missing file is an error, because the user asked for it.

    Raises:
        InputError: the caption cannot be read, is not UTF-8 or is too long (see `rows.sidecar`).
    """
    if sidecar and image is not None:
        from mlic_runtime.rows.sidecar import SIDECAR_SUFFIX, read_sidecar  # here, because most captions are arguments

        try:
            return read_sidecar(Path(image))
        except FileNotFoundError:
            raise CaptionError(
                f"there is no {SIDECAR_SUFFIX} file beside the picture {image!r}: write one, or leave --sidecar out"
            ) from None
    if caption == STDIN:
        from mlic_runtime.limits import MAX_ROW_BYTES
        from mlic_runtime.rows.sidecar import decode_caption

        return decode_caption(_read_stdin("a caption", MAX_ROW_BYTES + 1), "on standard input")
    broken = None if caption is None else not_utf8(caption)
    if broken:
        raise CaptionError(f"the caption: {broken}")
    return caption


def input_stream(what: str) -> BinaryIO:
    """Return standard input, to read `what` from it.

    Raises:
        InputError: it is missing or closed.
    """
    stream = standard_input()
    if stream is None:
        raise InputError(f"cannot read {what} from standard input: it is closed")
    return stream


def _read_stdin(what: str, limit: int = -1) -> bytes:
    try:
        return input_stream(what).read(limit)
    except OSError as error:
        raise InputError(f"cannot read {what} from standard input: {os_error_reason(error)}") from error
