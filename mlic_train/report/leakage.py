"""The section on leakage: what two splits share, with the pictures side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

from mlic_train.data import Split
from mlic_train.data.near_duplicates import MAX_BITS, MAX_GREY
from mlic_train.data.records import contradict

from .captions import RepeatedCaptions, repeated_section
from .duplicates import NEAR, SAME_BYTES, SAME_ID, Duplicate, Duplicates
from .page import Pair, Part, Section, Table, facts
from .pictures import row_picture

_EXAMPLES = 8  # pairs of a kind that are shown
_LISTED = 20  # image IDs that are listed where there is no picture to show
_METHOD = (
    (
        "near-identical",
        "the 8 x 8 difference hashes (a bit says whether a point of the shrunken grey picture is darker than its "
        f"neighbour) differ in at most {MAX_BITS} of 64 bits, and the shrunken pictures by at most {MAX_GREY:g} of 255 "
        "on average; the bytes differ",
    ),
    ("is found", "a copy in another size or quality"),
    ("is not found", "a mirrored or strongly cropped copy, a picture of a single shade"),
)


def leakage_facts(splits: Mapping[str, Split], duplicates: Mapping[str, Duplicates]) -> list[tuple[str, str]]:
    """Return how many rows of every split show a picture of an earlier split, or a near copy of one."""
    # One name in two folders may well be two pictures: bytes decide where both are known, as in `--check`.
    same = {
        _key(pair)
        for kind in (SAME_ID, SAME_BYTES)
        for pair in duplicates[kind].across()
        if pair.same_bytes is not False
    }
    near = {_key(pair) for pair in duplicates[NEAR].across()} - same
    result = []
    for name, keys in (("rows with a picture of an earlier split", same), ("rows with a near copy of one", near)):
        counts = Counter(split for split, *_ in keys)
        parts = [f"{counts[split]:,} of {len(splits[split].records):,} in {split}" for split in list(splits)[1:]]
        result.append((name, ", ".join(parts) or "there is one split only"))
    return result


def leakage_section(
    names: Sequence[str],
    captions: Mapping[str, list[str]],
    duplicates: Mapping[str, Duplicates],
    repeated: RepeatedCaptions,
    *,
    compared: bool,
) -> Section:
    """Return what the splits share, kind by kind.

    Args:
        names: those of the labels.
        captions: those of every split, in order.
        duplicates: rows with the same picture, by kind.
        repeated: captions that occur again.
        compared: whether any picture was read, so that bytes and pixels were compared.
    """
    parts: list[Part] = [
        _counts_table(captions, duplicates, repeated, compared),
        facts(_METHOD if compared else [("compared", "names only: no picture was read")]),
    ]
    parts += [_examples(names, kind, one) for kind, one in duplicates.items() if one.pairs]
    parts.append(repeated_section(captions, repeated))
    return Section(
        "Overlap and leakage",
        "Scores on pictures that training or tuning has seen are too good: take these rows out of one of the splits.",
        parts,
    )


def _counts_table(
    captions: Mapping[str, list[str]],
    duplicates: Mapping[str, Duplicates],
    repeated: RepeatedCaptions,
    compared: bool,
) -> Table:
    columns = sorted(combinations_with_replacement(captions, 2), key=lambda both: both[0] == both[1])
    kinds = {kind: duplicates[kind].counts for kind in (SAME_ID, SAME_BYTES, NEAR) if compared or kind == SAME_ID}
    if any(captions.values()):
        kinds["identical captions"] = repeated.counts
    header = [f"within {first}" if first == second else f"{first} and {second}" for first, second in columns]
    rows = [
        (kind, *(None if kind == SAME_ID and first == second else counts[first, second] for first, second in columns))
        for kind, counts in kinds.items()
    ]
    return Table(("rows of the second that the first has too", *header), rows)


def _key(pair: Duplicate) -> tuple[str, Path, int]:
    return pair.second.split, pair.second.record.file, pair.second.record.number


def _examples(names: Sequence[str], kind: str, duplicates: Duplicates) -> Section:
    """Return pairs of one kind, the nearest first; pairs of different splits come before the others."""
    ordered = sorted(duplicates.pairs, key=lambda pair: (pair.first.split == pair.second.split, pair.bits, pair.grey))
    shown = [pair for pair in ordered if pair.first.picture and pair.second.picture][:_EXAMPLES]
    parts: list[Part] = [
        Pair(row_picture(pair.first, names), row_picture(pair.second, names), _note(kind, pair)) for pair in shown
    ]
    if not shown:
        rows = [(pair.second.record.image_id, pair.first.split, pair.second.split) for pair in ordered[:_LISTED]]
        parts.append(Table(("image ID", "split", "split"), rows))
    across = f"{len(duplicates.across()):,} of {len(ordered):,} pairs are of two splits"
    return Section(kind.capitalize(), f"{across}; at most {_EXAMPLES if shown else _LISTED} pairs are shown.", parts)


def _note(kind: str, pair: Duplicate) -> str:
    first, second = pair.first.record, pair.second.record
    differ = first.labels is not None and second.labels is not None and contradict(first, second)
    labels = "; the labels differ" if differ else ""
    if kind == NEAR:
        return f"{pair.bits} of 64 bits differ, {pair.grey:.1f} of 255 on average{labels}"
    other = ", but other bytes: two pictures, or two versions of one" if pair.same_bytes is False else ""
    return f"{kind}{other}{labels}"
