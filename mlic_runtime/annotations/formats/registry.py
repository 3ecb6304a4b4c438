"""The formats that can be read.

A new one is a module beside this one, a line in `FORMATS` (in `NAMED_LIKE_TABLES` if its files end as a table's), and
its name in `annotations.names.DATA_FORMATS`.
"""

from pathlib import Path

from mlic_runtime.annotations.names import DATA_FORMATS
from mlic_runtime.errors import DataError

from .coco import Coco
from .competition import Competition
from .createml import CreateMl
from .cvat import Cvat
from .datumaro import Datumaro
from .folder_format import FolderFormat
from .format import ColumnNames, Format
from .imagefolder import ImageFolder
from .json_files import describe_unknown
from .label_studio import LabelStudio
from .named_like_tables import NAMED_LIKE_TABLES
from .shards import Shards
from .sidecars import CaptionSidecars, TagSidecars
from .table import CsvTable, JsonArray, JsonLines, ParquetTable
from .voc import PascalVoc
from .yolo import Yolo

FORMATS: tuple[Format, ...] = (
    *NAMED_LIKE_TABLES,
    CsvTable(),
    Competition(),
    Coco(),
    LabelStudio(),
    Cvat(),
    Datumaro(),
    CreateMl(),
    JsonLines(),
    JsonArray(),
    ParquetTable(),
    Shards(),
    PascalVoc(),
    Yolo(),
    TagSidecars(),
    ImageFolder(),
    CaptionSidecars(),
)
"""Of several formats that recognize a source, the first reads it."""

_NAME_IT = "or name it, as in mlic-train --data-format csv"


def find_format(file: Path, name: str = "auto", columns: ColumnNames | None = None) -> Format:
    """Return the format of that name, or for "auto" the one that recognizes the file.

    Args:
        file: the source.
        name: one of DATA_FORMATS.
        columns: the columns that the user names; formats that are no tables refuse them.

    Raises:
        DataError: there is no format of that name, or none recognizes the file.
    """
    if name not in DATA_FORMATS:
        raise DataError(f"found the data format {name!r}; expected one of {', '.join(DATA_FORMATS)}")
    for each in FORMATS:
        if each.recognizes(file) if name == "auto" else each.name == name:
            return each.with_columns(columns or ColumnNames())
    if file.suffix.lower() == ".json" and file.is_file():
        raise DataError(describe_unknown(file, FORMATS))
    if file.is_dir():
        titles = ", ".join(each.title for each in FORMATS if isinstance(each, FolderFormat))
        raise DataError(f"{file}: found no data in this folder; expected {titles}; {_NAME_IT}")
    known = ", ".join(pattern for each in FORMATS for pattern in each.file_names)
    raise DataError(f"{file}: cannot tell its format by its name; expected {known}; {_NAME_IT}")
