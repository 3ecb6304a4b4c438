"""The names of class labels from the card of a Hugging Face data set: README.md with YAML between lines of `---`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlic_runtime.limits import MAX_DATASET_CARD_BYTES

from .yaml_files import load_yaml

CARD_NAME = "README.md"


def class_names(file: Path, column: str) -> tuple[str, ...]:
    """Return the names of the class labels in a column of a file, by number; () where no card says them.

    The card lies in the file's folder or one of the two above it, and says them as `dataset_info.features` with the
    type `class_label`, or a list of it.

    Args:
        file: the table.
        column: the column of labels.
    """
    for folder in (file.parent, file.parent.parent, file.parent.parent.parent):
        if names := _names(folder / CARD_NAME).get(column):
            return names
    return ()


def _names(card: Path) -> Mapping[str, tuple[str, ...]]:
    try:
        if card.stat().st_size > MAX_DATASET_CARD_BYTES:
            return {}
        text = card.read_text("utf-8")
        if not text.startswith("---") or "class_label" not in text:
            return {}
        content = load_yaml(text[3:].partition("\n---")[0])
    except (OSError, ValueError):
        return {}
    found = {}
    for feature in _features(content):
        if names := _class_label(feature):
            found[str(feature.get("name"))] = names
    return found


def _features(content: Any) -> Iterator[Mapping[str, Any]]:
    info = content.get("dataset_info") if isinstance(content, dict) else None
    for each in info if isinstance(info, list) else [info]:
        features = each.get("features") if isinstance(each, dict) else None
        yield from (feature for feature in features or () if isinstance(feature, dict))


def _class_label(feature: Any) -> tuple[str, ...]:
    """Return the names in a feature such as {"name": "label", "dtype": {"class_label": {"names": {"0": "cat"}}}}."""
    while isinstance(feature, dict):
        if isinstance(label := feature.get("class_label"), dict):
            names = label.get("names")
            if isinstance(names, dict):
                names = [
                    names[key] for key in sorted(names, key=lambda key: int(str(key)) if str(key).isdecimal() else 0)
                ]
            return tuple(map(str, names)) if isinstance(names, list) else ()
        feature = next(
            (feature[key] for key in ("dtype", "sequence", "list") if isinstance(feature.get(key), dict)), None
        )
    return ()
