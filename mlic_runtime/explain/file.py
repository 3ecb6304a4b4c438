"""An `Explanation` as a file: a page or a picture, by its ending."""

from collections.abc import Callable, Mapping
from pathlib import Path

from mlic_runtime.base.files import open_regular, os_error_reason, replace_file
from mlic_runtime.base.text import encode
from mlic_runtime.errors import OutputError

from .drawing import to_png
from .explanation import Explanation
from .page import MARK, to_page

ENDINGS: Mapping[str, Callable[[Explanation], bytes]] = {
    ".html": lambda explanation: encode(to_page(explanation)),
    ".htm": lambda explanation: encode(to_page(explanation)),
    ".png": to_png,
}
_START = 256  # bytes that hold MARK


def check_explanation_file(path: Path) -> None:
    """Refuse a file that `write_explanation` would not write.

    Raises:
        OutputError: its ending is not one of ENDINGS, or there is something else than an earlier explanation.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OutputError(f"an explanation is a file that ends in .html or .png; found {str(path)!r}")
    try:
        with open_regular(path) as stream:
            start = stream.read(_START)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {os_error_reason(error)}; choose another file") from error
    if MARK.encode() not in start:
        raise OutputError(f"{str(path)!r} exists and is not an explanation by MLIC: choose another file, or remove it")


def write_explanation(explanation: Explanation, path: Path) -> None:
    """Write an HTML page or a PNG picture, by the ending; an earlier explanation there is replaced, never half-written.

    Raises:
        OutputError: see `check_explanation_file`; or it cannot be written.
    """
    check_explanation_file(path)
    content = ENDINGS[path.suffix.lower()](explanation)
    try:
        replace_file(path, content, mode=0o666)  # less the user's umask: others may read results
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {os_error_reason(error)}; choose another file") from error
