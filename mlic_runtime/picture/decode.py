"""Picture preprocessing, once for training and serving: both call `read_pixels`."""

import math
import os
import re
from collections import deque
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from mlic_runtime.base.arrays import Pixels
from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.text import error_line
from mlic_runtime.errors import ImageError
from mlic_runtime.limits import MAX_PIXELS
from mlic_runtime.package.manifest import ImageSpec

from .cost import require_affordable
from .formats import open_picture
from .signatures import FORMATS

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | npt.NDArray[Any]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# A JPEG is decoded at a half, quarter or eighth of its size if that covers this share of the wanted size. With 1, a
# picture of 640x480 for a model of 256x256 would be decoded in full, for 16 lines that the half lacks: 1.5 of 4.7 ms of
# CPU time. The cost in label decisions is in benchmarks/results/decode-hybrid.json.
_COVERED = 15 / 16
# Pillow's documentation: from 3.0 on, the result of the two-step resize is close to that of a plain one.
_REDUCING_GAP = 3.0
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# Pixels that are converted at a time where that takes several copies: for the largest pictures, copies of all pixels
# would take a gigabyte.
_STRIP = 1 << 20
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# A marker that has a length; between the data of two scans there are only such markers (ITU-T T.81, B.1.1).
_JPEG_SEGMENT, _JPEG_SEGMENT_BYTES = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]"), 2 + 65_535
# EXIF orientation -> the transposition that makes the picture upright (EXIF 2.32, tag 0x0112); 5 to 8 swap the sides.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: ImageSource,
    *,
    spec: ImageSpec | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
) -> Image.Image:
    """Read a picture as upright RGB; transparency becomes white, 16 bits become 8 by scale.

    Args:
        source: a path, the bytes of a picture file, a binary stream, a PIL image or a uint8 array (H, W, 3) RGB.
            Its format is one of `signatures.FORMATS`, or HEIC where pillow-heif is installed; the first frame counts.
        spec: the size that is wanted later. With it, a JPEG is decoded at a half, quarter or eighth of its size
            where that still covers 15/16 of it, which is several times faster; the caller must resize afterwards.
        max_pixels: larger pictures (width x height) are refused before they are decoded; `cost` says what else is. For
            the frames and tiles of GIF, TIFF and WebP, twice Pillow's own `PIL.Image.MAX_IMAGE_PIXELS` holds as well.
        allow_truncated: accept a file whose end is missing, unless all of its pixels are zero. Missing pixels are grey
            in a JPEG, else black, or white where the picture has transparency. This holds for JPEG, PNG, GIF, BMP and
            uncompressed TIFF with a complete header; a truncated WebP is always refused. It has no effect on a PIL
            image.

    Returns:
        A new image in mode "RGB" without metadata.

    Raises:
        ImageError: missing, not a regular file, not a picture, truncated, too large, or of an unusable type.
    """
    image = view_image(source, spec=spec, max_pixels=max_pixels, allow_truncated=allow_truncated)
    if image is source or isinstance(image, ImageFile.ImageFile):
        image = image.copy()
    image.info = {}  # else an orientation that has been applied would be applied again
    return image


def view_image(
    source: ImageSource,
    *,
    spec: ImageSpec | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
) -> Image.Image:
    """Do as `load_image` without its last copy: the image may be the source itself, or have the file's metadata.

    It is to be read at once, such as by `to_pixels`, and not to be changed, kept or loaded again.
    """
    try:
        if isinstance(source, np.ndarray):
            return _from_array(source, max_pixels)
        if isinstance(source, Image.Image):
            rgb, turn = _load_rgb(source, None, max_pixels)
        else:
            rgb, turn = _load_file(source, spec, max_pixels, allow_truncated)
        return rgb if turn is None else rgb.transpose(turn)
    except ImageError as error:
        _clear_frames(error)
        raise ImageError(f"cannot read picture {_describe(source)}: {error}") from None
    except Exception as error:  # on hostile bytes, Pillow's decoders raise nearly anything
        _clear_frames(error)
        raise ImageError(f"cannot read picture {_describe(source)}: {_cause(error)}") from error


def _clear_frames(error: BaseException | None) -> None:
    """Clear the variables of the frames that an error passed: who keeps the error would keep the picture in memory."""
    import traceback  # here, because only pictures that fail need it

    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def to_pixels(image: Image.Image, spec: ImageSpec, out: Pixels | None = None) -> Pixels:
    """Resize an RGB image to the model's input.

    Downscaling is antialiased (Pillow's filters), so the result does not depend on where a thin line falls.

    Args:
        image: mode "RGB", upright (see `load_image`); it is not changed.
        spec: the target; "stretch" ignores the aspect ratio, "crop" keeps it and cuts the centre out.
        out: array for the result, uint8 (H, W, 3), such as one row of a batch; None makes a new one.

    Returns:
        uint8 (H, W, 3) in [0, 255], RGB; `out` if it was given.

    Raises:
        ImageError: the image is not in mode "RGB".
        ValueError: `out` has another shape or dtype.
    """
    if image.mode != "RGB":
        raise ImageError(f"to_pixels needs an RGB image, found mode {image.mode!r}: use load_image")
    shape = (spec.height, spec.width, 3)
    if out is not None and (out.shape != shape or out.dtype != np.uint8):
        raise ValueError(f"out must be uint8 {shape}, found {out.dtype} {out.shape}")
    box = _centre_box(image.size, spec) if spec.resize == "crop" else None
    resized = image.resize(
        (spec.width, spec.height), _RESAMPLING[spec.interpolation], box=box, reducing_gap=_REDUCING_GAP
    )
    if out is None:
        return np.array(resized, dtype=np.uint8)
    out[...] = np.asarray(resized, dtype=np.uint8)
    return out


def read_pixels(
    source: ImageSource,
    spec: ImageSpec,
    out: Pixels | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
) -> Pixels:
    """Read any picture as `load_image` does, and resize it as `to_pixels` does.

    An array of the target size stays unchanged.

    Returns:
        uint8 (H, W, 3); `out` if it was given.

    Raises:
        ImageError: see `load_image`.
    """
    image = view_image(source, spec=spec, max_pixels=max_pixels, allow_truncated=allow_truncated)
    return to_pixels(image, spec, out)


def _open_stream(source: str | os.PathLike[str] | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, (str, os.PathLike)):
        stream = open_regular(source)
        if os.fstat(stream.fileno()).st_size == 0:
            stream.close()
            raise ImageError("it is empty")
        return stream
    if isinstance(source, (bytes, bytearray, memoryview)):
        data: Any = source
    elif hasattr(source, "read"):
        data = source.read()
    else:
        raise ImageError("expected a path, bytes, a binary stream, a PIL image or a uint8 array (H, W, 3)")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"the stream gave {type(data).__name__}, expected bytes: open it in binary mode")
    if len(data) == 0:
        raise ImageError("it is empty")
    return BytesIO(data)


def _with_jpeg_end(stream: BinaryIO, allow_truncated: bool) -> BinaryIO:
    """Return the stream; for a JPEG that may be truncated, a copy with an end marker: libjpeg fills in the rest."""
    if not allow_truncated or stream.read(len(_JPEG_START)) != _JPEG_START:
        return stream
    data = _JPEG_START + stream.read()
    for marker in deque(_JPEG_SEGMENT.finditer(data, max(0, len(data) - _JPEG_SEGMENT_BYTES)), maxlen=1):
        length = data[marker.end() : marker.end() + 2]
        if len(length) < 2 or marker.end() + int.from_bytes(length, "big") > len(data):
            data = data[: marker.start()]  # the end marker would be read as a part of this truncated segment
    return BytesIO(data + _JPEG_END)


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"expected a uint8 array of shape (H, W, 3), found {array.dtype} {array.shape}")
    _check_size((array.shape[1], array.shape[0]), max_pixels)
    return Image.fromarray(np.ascontiguousarray(array))


def _load_file(
    source: str | os.PathLike[str] | bytes | BinaryIO, spec: ImageSpec | None, max_pixels: int, allow_truncated: bool
) -> tuple[Image.Image, Image.Transpose | None]:
    """Do as `_load_rgb`, and close the file's own image: it should not be in memory while the result is turned."""
    with _open_stream(source) as file, _with_jpeg_end(file, allow_truncated) as stream, open_picture(stream) as image:
        require_affordable(image, stream, max_pixels)
        return _load_rgb(image, spec, max_pixels, allow_truncated)


def _load_rgb(
    image: Image.Image, spec: ImageSpec | None, max_pixels: int, allow_truncated: bool = False
) -> tuple[Image.Image, Image.Transpose | None]:
    """Return the image decoded as RGB, and the transposition that makes it upright."""
    _check_size(image.size, max_pixels)
    if spec is not None and image.format in ("JPEG", "MPO"):
        size = (math.ceil(_COVERED * spec.width), math.ceil(_COVERED * spec.height))
        image.draft(None, size if _orientation(image) < 5 else size[::-1])
    _decode(image, allow_truncated)
    # After decoding: Pillow turns a TIFF when it loads it, and the EXIF data of a PNG may lie behind the pixels.
    turn = _UPRIGHT.get(_orientation(image))
    return _to_rgb(image), turn


def _decode(image: Image.Image, allow_truncated: bool) -> None:
    """Decode the pixels, without `ImageFile.LOAD_TRUNCATED_IMAGES`: it would apply to all threads of the process."""
    try:
        image.load()
    except OSError:
        if not allow_truncated or not isinstance(image, ImageFile.ImageFile):
            raise
        image.tile = []  # so Pillow does not try to decode the rest
        if image.im is None or image.getbbox() is None:
            raise


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"it has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels are more than the limit of {max_pixels}; scale it down")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 if it is absent or unreadable."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a good picture with broken metadata is still read
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB; itself, if it is RGB already."""
    if image.mode in _SIXTEEN_BIT:
        return _scale_sixteen_bit(image).convert("RGB")
    if image.mode == "F":
        raise ImageError("its pixels are floating-point numbers without a known range: convert it to 8 bits first")
    if image.has_transparency_data:
        white = Image.new("RGB", image.size, "white")
        for box in _strips(image):
            layer = image.crop(box).convert("RGBA")
            white.paste(layer, box, mask=layer.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_sixteen_bit(image: Image.Image) -> Image.Image:
    """Scale 65535 to 255: Pillow's own conversion would clip everything above 255 to white."""
    low, high = cast(tuple[int, int], image.getextrema()) if image.mode == "I" else (0, 65535)
    if low < 0 or high > 65535:
        raise ImageError(f"its pixels reach from {low} to {high}, expected 16 bits: convert it to 8 bits first")
    transparent = image.info.get("transparency")
    levels = np.empty((image.height, image.width), dtype=np.uint8)
    for box in _strips(image):
        values = np.asarray(image.crop(box)).astype(np.int32)
        strip = levels[box[1] : box[3]]
        strip[...] = (values + 128) // 257
        if isinstance(transparent, int):  # the transparent grey of a PNG
            strip[values == transparent] = 255
    return Image.fromarray(levels)


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes (left, upper, right, lower) as wide as the image that together cover it."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _centre_box(size: tuple[int, int], spec: ImageSpec) -> tuple[float, float, float, float]:
    """Return the largest centred box (left, upper, right, lower) of the target's aspect ratio, in source pixels."""
    width, height = size
    scale = min(width / spec.width, height / spec.height)
    box_width, box_height = min(spec.width * scale, width), min(spec.height * scale, height)
    left, upper = (width - box_width) / 2, (height - box_height) / 2
    return left, upper, left + box_width, upper + box_height


def _describe(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))  # repr: a name may hold line breaks
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"({type(source).__name__})"


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # an OSError too
        return f"it is not a picture of a known format ({', '.join(FORMATS)})"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    return os_error_reason(error) if isinstance(error, OSError) else error_line(error)
