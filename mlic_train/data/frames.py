"""DataFrames of pandas and polars, without either: they are written as JSON lines, and read like any table.

The file lies in the user's cache, and its name says its content: the same rows give the same file, so that a run on
them can be resumed.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlic_runtime.base.files import os_error_reason, replace_file
from mlic_runtime.base.user_folders import cache_folder
from mlic_runtime.errors import OutputError
from mlic_train.errors import DataError


def is_frame(data: object) -> bool:
    """Return whether an object is a DataFrame of pandas or polars, by its methods."""
    return hasattr(data, "columns") and (hasattr(data, "iter_rows") or hasattr(data, "to_dict"))


def write_frame(frame: Any) -> Path:
    """Write a DataFrame as JSON lines into the user's cache, if it is not there yet; return the file.

    Missing values become null, in every column: a row without labels is not labelled.

    Raises:
        DataError: a column has no name, or two have the same; a cell holds bytes or an object; or nothing says where
            the cache is.
        OutputError: the file cannot be written.
    """
    names = list(frame.columns)
    if bad := [name for name in names if not isinstance(name, str)]:
        raise DataError(f"found a DataFrame with the column {bad[0]!r}; expected texts as names of columns")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"found a DataFrame with two columns {twice[0]!r}; expected each once")
    lines = [
        json.dumps({name: _plain(value, name, number) for name, value in row.items()}, ensure_ascii=True)
        for number, row in enumerate(_rows(frame), start=1)
    ]
    content = "".join(f"{line}\n" for line in lines).encode("ascii")
    cache = cache_folder()
    if cache is None:
        raise DataError("no home folder is known to keep the DataFrame in; set XDG_CACHE_HOME, or write it to a file")
    file = cache / "data" / f"dataframe-{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    try:
        if not file.is_file() or file.read_bytes() != content:
            replace_file(file, content)
    except OSError as error:
        hint = "set XDG_CACHE_HOME to another place"
        raise OutputError(f"cannot write {file}: {os_error_reason(error)}; {hint}") from None
    return file


def _rows(frame: Any) -> Iterator[Mapping[str, Any]]:
    if hasattr(frame, "iter_rows"):  # polars
        return iter(frame.iter_rows(named=True))
    return iter(frame.to_dict(orient="records"))


def _plain(value: Any, name: str, number: int) -> Any:
    """Return a cell as JSON holds it."""
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, and polars' series in a cell
        value = value.tolist()
    elif hasattr(value, "to_list"):
        value = value.to_list()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path) or hasattr(value, "isoformat"):
        return None if str(value) == "NaT" else str(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        return [_plain(each, name, number) for each in (sorted(value) if isinstance(value, set) else value)]
    if type(value).__name__ == "NAType":  # pandas.NA
        return None
    raise DataError(
        f"found a {type(value).__name__} in the column {name!r} of row {number} of the DataFrame; expected a text, a "
        "number or a list: name the files of pictures"
    )
