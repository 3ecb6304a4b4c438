"""Label ids: what a data set's files say instead of names. A model package knows names only."""

import csv
import io
from pathlib import Path

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import InputError
from mlic_runtime.limits import MAX_LABEL_IDS_BYTES

COLUMNS = ("LabelID", "Name")


def read_label_ids(file: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Read the ids of a model's labels from a labels file, as mlic-train reads it: CSV with the columns LabelID, Name.

    Labels that the model does not have are passed over.

    Args:
        file: in UTF-8.
        labels: the model's labels.

    Returns:
        The id of each label, in their order.

    Raises:
        InputError: the file is not such a CSV, lacks a label, or an id cannot stand in a list separated by spaces.
    """
    found: dict[str, str] = {}
    for number, (label_id, name) in enumerate(_read(file), start=1):
        if not label_id or len(label_id.split()) != 1:
            raise InputError(f"{str(file)!r}, row {number}: found the id {label_id!r}; expected a text without spaces")
        if label_id in found.values() or name in found:
            raise InputError(f"{str(file)!r}, row {number}: found {label_id!r}, {name!r} again; expected each once")
        found[name] = label_id
    missing = [label for label in labels if label not in found]
    if missing:
        raise InputError(
            f"{str(file)!r} has no id for {', '.join(map(repr, missing[:5]))}: it must list all {len(labels)} labels "
            "of the model"
        )
    return tuple(found[label] for label in labels)


def _read(file: Path) -> list[tuple[str, str]]:
    """(id, name) of each row."""
    try:
        with open_regular(file) as stream:
            text = stream.read(MAX_LABEL_IDS_BYTES + 1).decode("utf-8-sig")
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
    places = [header.index(column) for column in COLUMNS]
    return [(row[places[0]].strip(), " ".join(row[places[1]].split())) for row in rows[1:]]
