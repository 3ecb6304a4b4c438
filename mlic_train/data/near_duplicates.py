"""Pictures that are nearly the same: a difference hash, and the small grey copies that it is made of."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

# 64 bits: is a point darker than its neighbour to the right? (dHash, N. Krawetz 2013, "Kind of Like That".)
# Chosen on 5,425 COCO pictures: of 14.7 million pairs of different pictures none is within both bounds (several are
# within the first alone: an aeroplane, a bird and a kite in an empty sky). Of 181 copies each at half the size, 100 or
# 640 pixels wide, with JPEG quality 30 or 50, in grey, with 20 % more contrast or 10 % brighter, 96 to 100 % are within
# both; of copies with 2 % cut off at each side 82 %; of copies that are 20 % brighter less than half.
MAX_BITS = 6
MAX_GREY = 16.0  # mean difference of the 8 x 9 grey copies, of 255
_MIN_CONTRAST = 8  # between darkest and brightest of the 72 points; below that, the 64 bits are noise
_CELLS = 4_000_000  # pairs compared at a time: 16 MB; bounds memory, does not change the result


def has_contrast(grey: npt.NDArray[np.uint8]) -> bool:
    """Return whether a small grey copy has enough contrast for its hash to mean anything."""
    return bool(np.ptp(grey) >= _MIN_CONTRAST)


def close_pairs(grey: npt.NDArray[np.int16]) -> Iterator[tuple[int, int, int, float]]:
    """Yield (later, earlier, bits, grey) of all pictures that are near each other.

    Args:
        grey: int (N, 8, 9), the small grey copies.
    """
    signs = np.where(grey[:, :, 1:] > grey[:, :, :-1], 1, -1).reshape(len(grey), 64).astype(np.float32)
    step = max(1, _CELLS // len(grey))
    for start in range(0, len(grey), step):
        # A product of signs is 64 minus twice the number of bits that differ: exact, and far faster than counting.
        products = signs[start : start + step] @ signs[: start + step].T
        for row, earlier in np.argwhere(products >= 64 - 2 * MAX_BITS).tolist():
            later = start + row
            if earlier < later:
                difference = float(np.abs(grey[later] - grey[earlier]).mean(dtype=np.float64))
                if difference <= MAX_GREY:
                    yield later, earlier, int(64 - products[row, earlier]) // 2, difference
