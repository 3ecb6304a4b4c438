"""What two splits have in common: names, bytes, near-identical pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlic_train.data import Record, Split
from mlic_train.data.source.members import PictureFile

from .looks import Look

SAME_ID, SAME_BYTES, NEAR = "same image ID", "identical bytes", "near-identical"
# 64 bits: is a point darker than its neighbour to the right? (dHash, N. Krawetz 2013, "Kind of Like That".)
# Chosen on 5,425 COCO pictures: of 14.7 million pairs of different ones none is within both bounds (several are within
# the first alone: an aeroplane, a bird and a kite in an empty sky), while of 181 copies each at half the size, 100 or
# 640 pixels wide, with JPEG quality 30 or 50, in grey, with 20 % more contrast or 10 % brighter 96 to 100 % are; of
# copies with 2 % cut off at each side, 82 %. Most copies that are 20 % brighter are not.
MAX_BITS = 6
MAX_GREY = 16.0  # mean difference of the 8 x 9 grey copies, of 255
_MIN_CONTRAST = 8  # between darkest and brightest of the 72 points; below that, the 64 bits are noise
_CELLS = 4_000_000  # pairs compared at a time: 16 MB; bounds memory, does not change the result


@dataclass(frozen=True, slots=True)
class Place:
    """A row in a split."""

    split: str
    record: Record


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows with something in common.

    Attributes:
        first: stands in an earlier split, or earlier in the same one.
        second: the other.
        same_bytes: whether the pictures are the same; None where that is not known, because one was not read.
        bits: how many bits of the hashes differ.
        grey: by how much the small grey copies differ, of 255.
    """

    first: Place
    second: Place
    same_bytes: bool | None = None
    bits: int = 0
    grey: float = 0.0


@dataclass
class Shared:
    """What was found of one kind.

    Attributes:
        counts: for (earlier split, later split), the rows of the later one that have a counterpart in the earlier one;
            for (split, split), the rows that have an earlier counterpart in their own.
        pairs: each of these rows with its counterpart.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    pairs: list[Pair] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Count a row and keep it with its counterpart."""
        self.counts[pair.first.split, pair.second.split] += 1
        self.pairs.append(pair)

    def across(self) -> list[Pair]:
        """The pairs of two different splits: what makes a measurement too good."""
        return [pair for pair in self.pairs if pair.first.split != pair.second.split]


def find_shared(splits: Mapping[str, Split], looks: Mapping[PictureFile, Look]) -> dict[str, Shared]:
    """Find rows with the same picture in the splits.

    `data.check` finds the same overlaps for its list of problems; here, both rows of each are wanted, and pictures that
    are not the same bytes as well.

    Args:
        splits: in the order in which "earlier" is meant.
        looks: what is known of the pictures; a row whose picture is not among them is compared by its image ID only.

    Returns:
        For SAME_ID, SAME_BYTES and NEAR, what was found.
    """
    rows = [Place(name, record) for name, split in splits.items() for record in split.records]
    seen = [place for place in rows if place.record.image in looks]
    digests = [_look(place, looks).digest for place in seen]
    digest_of = dict(zip(seen, digests, strict=True))
    # One name in two folders of a single split is no finding: the folder is part of the name.
    same_id = _equal(rows, [place.record.image_id for place in rows], digest_of, inside=False)
    return {SAME_ID: same_id, SAME_BYTES: _equal(seen, digests, digest_of), NEAR: _near(seen, digests, looks)}


def _look(place: Place, looks: Mapping[PictureFile, Look]) -> Look:
    if place.record.image is None:
        raise ValueError("the row has no picture")
    return looks[place.record.image]


def _equal(
    places: Sequence[Place], keys: Sequence[str | None], digests: Mapping[Place, str], inside: bool = True
) -> Shared:
    """Rows whose key an earlier row has; a row counts once per split that has its key."""
    found = Shared()
    first: dict[str, dict[str, Place]] = {}
    for place, key in zip(places, keys, strict=True):
        if key is None:
            continue
        others = first.setdefault(key, {})
        for split, other in others.items():
            if inside or split != place.split:
                known = place in digests and other in digests
                found.add(Pair(other, place, digests[place] == digests[other] if known else None))
        others.setdefault(place.split, place)
    return found


def _near(places: Sequence[Place], digests: Sequence[str], looks: Mapping[PictureFile, Look]) -> Shared:
    """Rows whose picture is like an earlier one without being the same bytes; each with the nearest of every split."""
    greys = [_look(place, looks).grey for place in places]
    # Copies with the same bytes would be near to all that one of them is near to.
    copies = {
        (place.split, digest): index
        for index, (place, digest) in reversed(list(enumerate(zip(places, digests, strict=True))))
    }
    kept = sorted(index for index in copies.values() if np.ptp(greys[index]) >= _MIN_CONTRAST)
    found = Shared()
    if len(kept) < 2:
        return found
    grey = np.stack([greys[index] for index in kept]).astype(np.int16)  # (N, 8, 9)
    splits = _numbers([places[index].split for index in kept])
    contents = _numbers([digests[index] for index in kept])
    for later, earlier, bits, difference in _candidates(grey, splits, contents):
        found.add(Pair(places[kept[earlier]], places[kept[later]], False, bits, difference))
    return found


def _numbers(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _candidates(
    grey: npt.NDArray[np.int16], splits: npt.NDArray[np.int64], contents: npt.NDArray[np.int64]
) -> list[tuple[int, int, int, float]]:
    """(later, earlier, bits, grey) of near pictures: for each picture the nearest of every split, if any.

    Args:
        grey: int (N, 8, 9).
        splits: int (N), never falling: the split of each picture.
        contents: int (N), equal for equal bytes.
    """
    signs = np.where(grey[:, :, 1:] > grey[:, :, :-1], 1, -1).reshape(len(grey), 64).astype(np.float32)
    flat = grey.reshape(len(grey), -1)
    result = []
    step = max(1, _CELLS // len(grey))
    for start in range(0, len(grey), step):
        stop = min(start + step, len(grey))
        # A product of signs is 64 minus twice the number of bits that differ: exact, and far faster than counting.
        close = signs[start:stop] @ signs[:stop].T >= 64 - 2 * MAX_BITS
        later, earlier = np.nonzero(close)
        later += start
        wanted = (earlier < later) & (contents[earlier] != contents[later])
        later, earlier = later[wanted], earlier[wanted]
        differences = np.concatenate(
            [
                np.zeros(0),
                *(_difference(flat, later[k : k + step], earlier[k : k + step]) for k in range(0, len(later), step)),
            ]
        )
        alike = differences <= MAX_GREY
        later, earlier, differences = later[alike], earlier[alike], differences[alike]
        bits = ((64 - (signs[later] * signs[earlier]).sum(axis=1)) // 2).astype(np.int64)
        order = np.lexsort((earlier, differences, bits, splits[earlier], later))
        keys = (later * (splits[-1] + 1) + splits[earlier])[order]
        _, first = np.unique(keys, return_index=True)
        result += [(int(later[k]), int(earlier[k]), int(bits[k]), float(differences[k])) for k in order[first]]
    return result


def _difference(
    flat: npt.NDArray[np.int16], later: npt.NDArray[np.intp], earlier: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    means: npt.NDArray[np.float64] = np.abs(flat[later] - flat[earlier]).mean(axis=1, dtype=np.float64)
    return means
