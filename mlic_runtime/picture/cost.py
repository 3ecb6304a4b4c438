"""Pictures whose pixels cost more than usual: refused before they are decoded.

A limit of pixels bounds time and memory only if all pixels cost about the same. Measured with Pillow 13.0, in CPU time:
a progressive JPEG of 16 megapixels and 200 KB took 12 s, because its pixels are decoded 5,000 times; a BMP of 88
megapixels and 39 KB took 25 s, because Pillow decodes its runs in Python; a WebP of 89 megapixels and 34 bytes took
1.4 GB of memory, because it is held four times.
"""

import re
from typing import BinaryIO

from PIL import Image, ImageFile

from mlic_runtime.errors import ImageError
from mlic_runtime.limits import MAX_JPEG_SCANS

_WEBP_WEIGHT = 2
_RUNS_WEIGHT = 10
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # TIFF 6.0, section 15

# ITU-T T.81, B.1.1.3. Not a byte of data (FF 00), a restart or fill. All of these but _START and _END have a length.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; the others are tables
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_BLOCK = 1 << 16


def require_affordable(image: Image.Image, stream: BinaryIO, max_pixels: int) -> None:
    """Refuse a picture of few pixels that costs much.

    Args:
        image: opened, not yet decoded.
        stream: what it was opened from; its position stays.
        max_pixels: the limit for pixels of the usual cost. Those of a WebP count twice, those of a run-length coded BMP
            10 times.

    Raises:
        ImageError: too many pixels by that count, a larger tile in a TIFF, or more than MAX_JPEG_SCANS scans in a JPEG.
    """
    width, height = image.size
    weight, kind = _weight(image)
    if weight > 1 and width * height * weight > max_pixels:
        raise ImageError(
            f"{width} x {height} pixels of {kind} count {weight} times, and are more than the limit of {max_pixels}; "
            "scale it down"
        )
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        tile = [side for side in (tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)) if isinstance(side, int)]
        if len(tile) == 2 and tile[0] * tile[1] > max_pixels:
            raise ImageError(
                f"a tile of {tile[0]} x {tile[1]} pixels is more than the limit of {max_pixels}; save it with smaller "
                "tiles"
            )
    if image.format in ("JPEG", "MPO"):
        position = stream.tell()
        stream.seek(0)
        scans = _count_scans(stream)
        stream.seek(position)
        if scans > MAX_JPEG_SCANS:
            raise ImageError(
                f"it has more than {MAX_JPEG_SCANS} scans, each of which takes as long as a picture; save it anew"
            )


def _weight(image: Image.Image) -> tuple[int, str]:
    """Return how many usual pixels one pixel of this picture costs, and the name of its kind."""
    if image.format == "WEBP":
        return _WEBP_WEIGHT, "WebP"
    if isinstance(image, ImageFile.ImageFile) and image.tile and image.tile[0][0] == "bmp_rle":
        return _RUNS_WEIGHT, "run-length coded BMP"
    return 1, str(image.format)


def _count_scans(stream: BinaryIO) -> int:
    """Return how many scans of a JPEG a decoder reads, at most MAX_JPEG_SCANS + 1.

    In most files the first scan has all components and is not progressive. Then it is the only one, and nothing behind
    its header is read here.
    """
    components, progressive, scans, position = 0, False, 0, 2
    data, start = b"", 0  # a block of the file, and where it begins
    while True:
        match = _MARKER.search(data, position - start) if position < start + len(data) else None
        if match is None:
            # Read on from the last byte of the block, which may be the first half of a marker.
            position = max(position, start + len(data) - 1)
            stream.seek(position)
            start, data = position, stream.read(_BLOCK)
            if len(data) < 2:
                return scans
            continue
        marker, position = match[1][0], start + match.end()
        if marker == _END:
            return scans
        if marker == _START:
            continue
        stream.seek(position)
        head = stream.read(8)
        if marker in _FRAMES and len(head) == 8:
            components, progressive = head[7], marker in _PROGRESSIVE
        if marker == _SCAN:
            scans += 1
            if scans > MAX_JPEG_SCANS or (scans == 1 and not progressive and head[2:3] == bytes([components])):
                return scans
        position += max(2, int.from_bytes(head[:2], "big"))
