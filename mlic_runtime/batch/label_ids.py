"""Label ids, which the files of some data sets hold instead of names. A model package knows names only."""

import csv
import io
from pathlib import Path

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_LABEL_IDS_BYTES

COLUMNS = ("LabelID", "Name")


def read_label_ids(file: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Read the ids of a model's labels from a labels file, in the format of mlic-train: CSV with LabelID and Name.

    Labels that the model does not have are ignored.

    Args:
        file: in UTF-8.
        labels: the model's labels.

    Returns:
        The id of each label, in their order.

    Raises:
        InputError: the file is not such a CSV or lacks a label, or an id is empty or contains a space.
    """
    ids: dict[str, str] = {}
    for number, (label_id, name) in enumerate(_read(file), start=1):
        if not label_id or len(label_id.split()) != 1:
            raise InputError(f"{str(file)!r}, row {number}: found the id {label_id!r}; expected a text without spaces")
        if label_id in ids.values() or name in ids:
            raise InputError(f"{str(file)!r}, row {number}: found {label_id!r}, {name!r} again; expected each once")
        ids[name] = label_id
    missing = [label for label in labels if label not in ids]
    if missing:
        raise InputError(
            f"{str(file)!r} has no id for {', '.join(map(repr, missing[:5]))}: it must list all {len(labels)} labels "
            "of the model"
        )
    return tuple(ids[label] for label in labels)


def _read(file: Path) -> list[tuple[str, str]]:
    """Return (id, name) of each row."""
    try:
        with open_regular(file) as stream:
            content = stream.read(MAX_LABEL_IDS_BYTES + 1)
        if len(content) > MAX_LABEL_IDS_BYTES:
            raise InputError(f"{str(file)!r} has more than {MAX_LABEL_IDS_BYTES} bytes, which no file of label ids has")
        text = content.decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except OSError as error:
        raise InputError(f"cannot read the label ids {str(file)!r}: {os_error_reason(error)}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{str(file)!r} is not CSV in UTF-8: {error}; expected {','.join(COLUMNS)}") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if sorted(header) != sorted(COLUMNS) or any(len(row) != 2 for row in rows):
        raise InputError(
            f"{str(file)!r} has the columns {','.join(header)!r}; expected {','.join(COLUMNS)} in every row"
        )
    id_column, name_column = (header.index(column) for column in COLUMNS)
    return [(row[id_column].strip(), " ".join(row[name_column].split())) for row in rows[1:]]
