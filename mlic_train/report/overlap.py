"""The section on leakage: what two splits share, with the pictures side by side."""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

from .captions import Repeated, repeated_parts
from .html import pair, paragraph, subheading, table
from .leakage import MAX_BITS, MAX_GREY, NEAR, SAME_BYTES, SAME_ID, Pair, Shared
from .pictures import show
from .wording import count, listing

_EXAMPLES = 8  # pairs of a kind that are shown
CAPTION = "identical captions"


def verdict(shared: Mapping[str, Shared], splits: Sequence[str], compared: int) -> str:
    """In one or two sentences: can a measurement on val or test be trusted?

    Args:
        shared: by kind.
        splits: in order.
        compared: how many pictures could be compared by bytes and likeness.
    """
    if len(splits) < 2:
        return "There is one split only: nothing can have leaked into another."
    # One name in two folders may well be two pictures: bytes decide where both are known, as in `--check`.
    same = {_row(one) for kind in (SAME_ID, SAME_BYTES) for one in shared[kind].across() if one.same_bytes is not False}
    near = {_row(one) for one in shared[NEAR].across()} - same
    if not same and not near:
        means = "names, bytes and likeness tell" if compared else "names tell; pictures were not compared"
        return f"No picture is in two splits, as far as {means}."
    parts = []
    if same:
        parts.append(f"{count(len(same), 'row')} with a picture that an earlier split has too")
    if near:
        parts.append(f"{count(len(near), 'row')} with a picture that is nearly one of an earlier split")
    later = [split for split in splits if any(row[0] == split for row in same | near)]
    by_split = [f"{sum(row[0] == split for row in same | near):,} in {split}" for split in later]
    return (
        f"Leakage: {listing(parts)} ({listing(by_split)}). What is measured on pictures that training or tuning has "
        "seen is too good: take them out of one of the splits."
    )


def leakage_parts(
    names: Sequence[str],
    splits: Sequence[str],
    shared: Mapping[str, Shared],
    captions: Mapping[str, list[str]],
    repeated: Repeated,
    *,
    compared: int,
) -> list[str]:
    """What the splits share, kind by kind.

    Args:
        names: of the labels.
        splits: in order.
        shared: by kind.
        captions: of every split.
        repeated: of the captions.
        compared: how many pictures could be compared by bytes and likeness.
    """
    columns = sorted(combinations_with_replacement(splits, 2), key=lambda both: both[0] == both[1])
    kinds = {SAME_ID: shared[SAME_ID].counts}
    if compared:
        kinds |= {SAME_BYTES: shared[SAME_BYTES].counts, NEAR: shared[NEAR].counts}
    if any(captions.values()):
        kinds[CAPTION] = repeated.counts
    header = ["rows of the second that the first has too", *(_column(*both) for both in columns)]
    parts = [
        paragraph(verdict(shared, splits, compared)),
        table(
            header, [[kind, *(_cell(kind, counts[both], both) for both in columns)] for kind, counts in kinds.items()]
        ),
        paragraph(
            "Near-identical: the 8 x 8 difference hashes (a bit says whether a point of the shrunken grey picture is "
            f"darker than its neighbour) differ in at most {MAX_BITS} of 64 bits, and the shrunken pictures by at most "
            f"{MAX_GREY:g} of 255 on average; bytes that are identical are not counted again, nor pictures of a single "
            "shade. This finds copies in another size or quality, not mirrored or strongly cropped ones."
            if compared
            else "No picture was read: bytes and likeness were not compared."
        ),
    ]
    for kind, found in shared.items():
        parts += _examples(names, kind, found)
    parts.append(subheading("Captions that occur again"))
    if any(captions.values()):
        parts += repeated_parts(captions, repeated)
    else:
        parts.append(paragraph("Left out: there is no caption."))
    return parts


def _row(one: Pair) -> tuple[str, Path, int]:
    return one.second.split, one.second.record.file, one.second.record.number


def _column(first: str, second: str) -> str:
    return f"within {first}" if first == second else f"{first} and {second}"


def _cell(kind: str, number: int, both: tuple[str, str]) -> str:
    return "" if kind == SAME_ID and both[0] == both[1] else f"{number:,}"


def _examples(names: Sequence[str], kind: str, found: Shared) -> list[str]:
    """Pairs of different splits first: they are what matters."""
    across = found.across()
    rest = [one for one in found.pairs if one.first.split == one.second.split]
    ordered = [*sorted(across, key=_closeness), *sorted(rest, key=_closeness)]
    if not ordered:
        return []
    shown = [one for one in ordered if one.first.record.image and one.second.record.image][:_EXAMPLES]
    title = f"{kind}: {count(len(across), 'pair')} of two splits, {len(rest):,} within one"
    parts = [subheading(title[0].upper() + title[1:])]
    if shown:
        if len(shown) < len(ordered):
            parts.append(paragraph(f"The first {len(shown)}:"))
        return parts + [pair(show(one.first, names), show(one.second, names), _note(kind, one)) for one in shown]
    ids = [f"{one.second.record.image_id} ({one.first.split} and {one.second.split})" for one in ordered]
    return [*parts, paragraph(listing(ids, 20) + ".")]


def _closeness(one: Pair) -> tuple[int, float]:
    return one.bits, one.grey


def _note(kind: str, one: Pair) -> str:
    first, second = one.first.record.labels, one.second.record.labels
    labels = "" if first is None or second is None or first == second else "; the labels differ"
    if kind == NEAR:
        return f"{one.bits} of 64 bits differ, {one.grey:.1f} of 255 on average{labels}"
    other = ", but other bytes: two pictures, or two versions of one" if one.same_bytes is False else ""
    return f"{kind}{other}{labels}"
