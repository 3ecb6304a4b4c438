"""What a single prediction of `mlic-infer` is made of: from its arguments, files and standard input."""

import sys
from pathlib import Path
from typing import BinaryIO

from mlic_runtime.base.files import os_error_reason
from mlic_runtime.errors import CaptionError, ImageError, InputError
from mlic_runtime.rows.columns import STDIN


def picture_of(image: str | None) -> str | bytes | None:
    """The argument IMAGE as `Predictor.predict` takes it: a path, or what standard input holds.

    Raises:
        InputError: nothing can be read from standard input.
    """
    if image != STDIN:
        return image
    data = _read_stdin("a picture")
    if not data:
        raise ImageError("cannot read a picture from standard input: it is empty")
    return data


def caption_of(image: str | None, caption: str | None, sidecar: bool) -> str | None:
    """The argument CAPTION, or what standard input or the file beside IMAGE holds instead.

    A file or an input that is blank says that there is no caption; a file that is missing is an error, because it was
    asked for.

    Raises:
        InputError: the caption cannot be read, is not UTF-8 or is too long (see `caption_files`).
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
    return caption


def _read_stdin(what: str, limit: int = -1) -> bytes:
    stream: BinaryIO | None = None if sys.stdin is None else sys.stdin.buffer  # None: the process was started without
    if stream is None:
        raise InputError(f"cannot read {what} from standard input: it is closed")
    try:
        return stream.read(limit)
    except OSError as error:
        raise InputError(f"cannot read {what} from standard input: {os_error_reason(error)}") from error
