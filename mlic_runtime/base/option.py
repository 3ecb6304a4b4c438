"""Options as metadata of dataclass fields: default, range, choices and help of each stand here and nowhere else."""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .typed_json import build

_KEY = "option"


@dataclass(frozen=True)
class Option:
    """What is known of an option besides its field's name and type.

    Attributes:
        default: the value if nothing is given; None if it follows from other options, or if there is none.
        help: a line or two for `--help` and the documents.
        group: the heading in `--help-all` and the documents.
        choices: the allowed texts; empty if every text is allowed.
        low: the smallest allowed number; in a tuple, of each element.
        high: the largest allowed number.
        open_low: whether `low` itself is too small.
        common: whether the short help shows the option.
        flag: the name on the command line without "--"; None derives it from the field's name.
        path: the kind of a path: "file", "folder", "new folder", or one that a command defines (see `field_options`).
        metavar: the word for the value in help.
        follows: the rule for a default that depends on other options, in words. The field is None until it is applied.
    """

    default: Any
    help: str
    group: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    common: bool = False
    flag: str | None = None
    path: str | None = None
    metavar: str | None = None
    follows: str | None = None

    @property
    def range(self) -> str:
        """The range in words; empty without one."""
        if self.low is None:
            return "" if self.high is None else f"at most {self.high}"
        if self.high is None:
            return f"above {self.low}" if self.open_low else f"at least {self.low}"
        high = "2^32" if self.high == 2**32 else self.high
        return f"above {self.low}, up to {high}" if self.open_low else f"from {self.low} to {high}"

    @property
    def default_text(self) -> str:
        """The default in words; empty without one."""
        default = self.default
        shown = str(default).lower() if isinstance(default, bool) else "" if default in (None, ()) else str(default)
        return "; ".join(part for part in (shown, self.follows) if part)


def option(default: Any, help: str, group: str, **facts: Any) -> Any:
    """Return a dataclass field that is an option; `facts` are the other attributes of `Option`."""
    about = Option(default, help, group, **facts)
    return dataclasses.field(default=default if about.follows is None else None, metadata={_KEY: about})


def options_of(kind: Any) -> dict[str, Option]:
    """Return the options of a dataclass by the names of their fields, in order."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(kind) if _KEY in field.metadata}


def flag_of(kind: Any, name: str) -> str:
    """Return what an option is called on the command line, without "--"."""
    return options_of(kind)[name].flag or name.replace("_", "-")


@functools.cache
def type_of(kind: Any, name: str) -> Any:
    """Return the type that a field's annotation says."""
    return typing.get_type_hints(kind)[name]


def element_type(kind: Any, name: str) -> tuple[Any, int]:
    """Return an option's type on the command line, and how many values it takes.

    Returns:
        The type without None, or that of a tuple's elements; and 1, the length of a tuple, or -1 for any number.
    """
    hint = type_of(kind, name)
    if type(None) in typing.get_args(hint):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is not tuple:
        return hint, 1
    elements = typing.get_args(hint)
    return elements[0], -1 if elements[-1] is Ellipsis else len(elements)


def checked(kind: Any, name: str, value: Any) -> Any:
    """Return a field's value in the type of its annotation: a list as a tuple, a text as a path, 1 as 1.0.

    Of an option that takes any number of texts or paths, one alone may be given as it is.

    Raises:
        ValueError: another type, a number out of range or none of the choices; the message is one line.
    """
    about = options_of(kind).get(name)
    if about is not None and isinstance(value, str | Path) and element_type(kind, name)[1] == -1:
        value = (value,)
    value = build(type_of(kind, name), _plain(value), name)
    if about is None or value is None:
        return value
    for each in value if isinstance(value, tuple) else (value,):
        if about.choices and each not in about.choices:
            raise ValueError(f"{name} is {each!r}; choose one of: {', '.join(about.choices)}")
        too_low = about.low is not None and (each < about.low or (about.open_low and each == about.low))
        if too_low or (about.high is not None and each > about.high):
            raise ValueError(f"{name} is {each!r}; it must be {about.range}")
    return value


def check(instance: Any, error: type[Exception]) -> None:
    """Check every field of a dataclass, and put its value into the type of its annotation; for `__post_init__`.

    Raises:
        error: a field has another type, a number out of range, or none of its choices.
    """
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if value is None and field.default is None:
            continue
        try:
            object.__setattr__(instance, field.name, checked(type(instance), field.name, value))
        except ValueError as problem:
            raise error(str(problem)) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one that is known, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _plain(value: Any) -> Any:
    """Return the value as parsed JSON would hold it."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
