"""Names of shards: braces that stand for many names, and addresses of shards that lie elsewhere.

In all other modules a shard's name is a `Path`, like that of any data file. A Path turns the address
`s3://bucket/a.tar` into `s3:/bucket/a.tar`; `location_of` returns the address.
"""

import itertools
import math
import re
from pathlib import Path

from mlic_runtime.errors import DataError
from mlic_runtime.limits import MAX_SHARDS

SHARD_SUFFIX = ".tar"
_BRACES = re.compile(r"\{([^{}]*)\}")
_NESTED = re.compile(r"\{[^{}]*\{")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
# Two letters at least, because `C:` is a drive. No chains such as simplecache::s3://bucket/a.tar: a test with several
# threads that read through one failed now and then.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")


def is_shards(name: str) -> bool:
    """Return whether a name stands for shards, by its end."""
    return name.lower().endswith(SHARD_SUFFIX)


def is_pattern(name: str) -> bool:
    """Return whether a name stands for other names or is an address, so that no file of that name has to be there."""
    return is_shards(name) and (_BRACES.search(name) is not None or _ADDRESS.match(name) is not None)


def location_of(file: Path) -> str:
    """Return what to open: the address, for a name that is one, else the path."""
    return _ADDRESS.sub(r"\1://", file.as_posix(), count=1) if is_remote(file) else str(file)


def is_remote(file: Path) -> bool:
    """Return whether the name is an address, such as s3://bucket/train-000000.tar."""
    return _ADDRESS.match(file.as_posix()) is not None


def expand(file: Path) -> tuple[Path, ...]:
    """Return the shards that a name stands for, in order, such as `train-{000..063}.tar` or `{a,b}-{0..9}.tar`.

    As in a shell, the numbers of a range have as many digits as its longer end if one of its ends begins with 0. A name
    without braces stands for itself.

    Raises:
        DataError: the pattern names a file that is not there, or more than 100,000, or has braces inside braces.
    """
    name = str(file)
    if not is_pattern(name) or file.exists():
        return (file,)
    if _NESTED.search(name):
        raise DataError(
            f"{file}: found braces inside braces; expected ranges such as {{000..063}}, lists such as {{a,b}}"
        )
    # re.split gives what is outside and what is inside of braces in turns.
    parts = [_choices(file, part) if place % 2 else [part] for place, part in enumerate(_BRACES.split(name))]
    if math.prod(map(len, parts)) > MAX_SHARDS:
        raise DataError(f"{file}: it names more than {MAX_SHARDS} files; expected fewer")
    files = tuple(Path("".join(chosen)) for chosen in itertools.product(*parts))
    missing = [each for each in files if not is_remote(each) and not each.exists()]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of its {len(files)} files are not there, the first is {missing[0]}; expected all"
        )
    return files


def _choices(file: Path, inside: str) -> list[str]:
    """Return what a pair of braces stands for; with anything else than a range or a list inside, for itself."""
    bounds = _RANGE.fullmatch(inside)
    if bounds is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = int(bounds[1]), int(bounds[2])
    if abs(last - first) >= MAX_SHARDS:
        raise DataError(f"{file}: it names more than {MAX_SHARDS} files; expected fewer")
    padded = any(len(end) > 1 and end.startswith("0") for end in bounds.groups())
    width = max(map(len, bounds.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]
