"""Pictures inside Parquet files, as Hugging Face writes them."""

import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlic_runtime.errors import DataError, InputError
from mlic_runtime.tables.table import PARQUET_EXTRA

_KEPT = 4  # row groups of pictures in memory, of each process
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ParquetPicture:
    """A picture whose bytes are a cell of a Parquet file.

    Reading one reads the pictures of its row group, which Hugging Face gives 100 rows; the last few groups are kept. So
    reading in order costs little, and reading in random order up to a hundred times as much: `mlic-shards` writes
    shards, where every picture is read alone.

    Attributes:
        parquet: the file's path.
        column: its column; of Hugging Face's pictures, the part `bytes`.
        row: from 0 on.
        size: in bytes.
        name: the picture's name.
    """

    parquet: str
    column: str
    row: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.parquet}, row {self.row + 1}"

    def read_bytes(self) -> bytes:
        """Return its content.

        Raises:
            OSError: the file cannot be read, or has changed since it was scanned.
        """
        try:
            status = Path(self.parquet).stat()
            with _lock:
                first, cells = _row_group(self.parquet, status.st_mtime_ns, self.column, self.row)
                content = cells[self.row - first].as_py() if self.row - first < len(cells) else None
        except (ValueError, LookupError) as error:  # pyarrow's own errors are these or an OSError
            raise OSError(5, f"it is damaged: {' '.join(str(error).split())}", self.parquet) from None
        if not isinstance(content, bytes) or len(content) != self.size:
            raise OSError(
                5, f"it has changed: found no picture of {self.size} bytes in row {self.row + 1}", self.parquet
            )
        return content


def picture_sizes(file: Path, column: str) -> Iterator[int | None]:
    """Yield the size of each picture of a column in bytes; None where there is none.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow.compute as pc

    try:
        for batch in _open(str(file)).iter_batches(64, columns=[column]):
            yield from pc.binary_length(_leaf(batch.column(0), column)).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None


def picture_column(file: Path, name: str) -> str | None:
    """Return the part of a column that has pictures' bytes, such as `image.bytes`; None where it has none."""
    import pyarrow as pa

    kind = _open(str(file)).schema_arrow.field(name).type
    if pa.types.is_struct(kind) and {"bytes", "path"} >= {field.name for field in kind}:
        return f"{name}.bytes" if "bytes" in {field.name for field in kind} else None
    return name if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def _open(file: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(PARQUET_EXTRA) from error
    return parquet.ParquetFile(file, pre_buffer=False)


@functools.lru_cache(maxsize=16)
def _starts(file: str, version: int) -> tuple[int, ...]:
    """Return the first row of each row group, and the number of all rows."""
    starts = [0]
    with _open(file) as opened:
        for group in range(opened.metadata.num_row_groups):
            starts.append(starts[-1] + opened.metadata.row_group(group).num_rows)
    return tuple(starts)


def _row_group(file: str, version: int, column: str, row: int) -> tuple[int, Any]:
    """Return the first row of a row's group, and the cells of the group."""
    starts = _starts(file, version)
    group = next((number for number, end in enumerate(starts[1:]) if row < end), None)
    if group is None:
        raise OSError(5, f"it has changed: found {starts[-1]} rows", file)
    return starts[group], _cells(file, version, column, group)


@functools.lru_cache(maxsize=_KEPT)
def _cells(file: str, version: int, column: str, group: int) -> Any:
    with _open(file) as opened:
        cells = opened.read_row_group(group, columns=[column]).column(0).combine_chunks()
    return _leaf(cells, column)


def _leaf(cells: Any, column: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.struct_field(cells, "bytes") if pa.types.is_struct(cells.type) else cells
