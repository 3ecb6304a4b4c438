"""Data in which some labels are unknown, for tests."""

import dataclasses

import numpy as np

from mlic_train.data import Record, Split
from mlic_train.data.splits import Splits


def forget(splits: Splits, share: float = 0.3) -> Splits:
    """Return the splits with a share of the labels of each row made unknown, always the same ones."""
    rng = np.random.default_rng(0)
    named = {name: _forget(split, share, rng) for name, split in splits.named().items()}
    return dataclasses.replace(splits, **named)  # type: ignore[arg-type] # the names are fields that hold splits


def _forget(split: Split, share: float, rng: np.random.Generator) -> Split:
    records: list[Record] = []
    for record in split.records:
        unknown = tuple(np.flatnonzero(rng.random(len(split.labels)) < share).tolist())
        labels = tuple(index for index in record.labels or () if index not in unknown)
        records.append(dataclasses.replace(record, labels=labels, unknown=unknown))
    return dataclasses.replace(split, records=tuple(records))
