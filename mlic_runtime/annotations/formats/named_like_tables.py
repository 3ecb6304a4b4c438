"""The formats whose files are named as a table's are: only their content tells.

They are apart from `registry`, so that a table that is none of these is read without loading all formats.
"""

from pathlib import Path

from .format import Format
from .open_images import OpenImages
from .vertex import Vertex

NAMED_LIKE_TABLES: tuple[Format, ...] = (OpenImages(), Vertex())


def is_only_a_table(file: Path) -> bool:
    """Return whether a file with the name of a table is in none of these formats."""
    return not any(each.recognizes(file) for each in NAMED_LIKE_TABLES)
