"""Names of files that lie elsewhere, and the errors of reading them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from mlic_runtime.errors import InputError, MlicError


def is_uri(text: str) -> bool:
    """Whether a text is a URI such as s3://bucket/pictures, and not a path."""
    scheme, found, _ = text.partition("://")  # chained ones, such as simplecache::s3, are fsspec's
    return bool(found) and len(scheme) > 1 and scheme[0].isalpha() and all(c.isalnum() or c in "+-.:" for c in scheme)


def plain(name: str) -> str:
    """The path of a file: URI; any other text as it is.

    Raises:
        InputError: the URI names another machine.
    """
    scheme, found, rest = name.partition("://")
    if not found or scheme.lower() != "file":
        return name
    host, slash, path = rest.partition("/")
    if not slash or host not in ("", "localhost"):
        raise InputError(f"found the URI {name!r}; expected file:///FOLDER/NAME, a path of this machine")
    return unquote(path if os.name == "nt" else f"/{path}")


def absolute(name: str) -> str:
    """A path as it is called from everywhere; a URI as it is."""
    name = plain(name)
    return name if is_uri(name) else str(Path(name).absolute())


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """While something is read from elsewhere: what goes wrong is an OSError or one of ours, with one line to say.

    File systems let through what the libraries below them raise, of any kind.
    """
    try:
        yield
    except (OSError, MlicError):
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise OSError(kind + " ".join(str(error).split())) from error


def without_dots(parts: tuple[str, ...]) -> list[str]:
    """The parts of a path with each `..` taken back; ValueError if one leads above the start."""
    kept: list[str] = []
    for part in parts:
        if part != os.pardir:
            kept.append(part)
        elif kept:
            kept.pop()
        else:
            raise ValueError("it begins above its start")
    return kept
