"""The options of a measurement, and its inputs: pixels and tokens in memory, and what they were made from."""

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mlic_runtime.base.arrays import Pixels, Tokens
from mlic_runtime.errors import InputError
from mlic_runtime.package.manifest import TOKENIZER_NAME, ImageSpec, TextSpec
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.picture.decode import ImageSource, read_pixels
from mlic_runtime.predict.prediction import check_count
from mlic_runtime.providers.names import AUTO

DEFAULT_CAPTION = "A dog runs along the beach while two people watch"
_SEED = 0
_JPEG_SIZE = (640, 480)  # width, height: COCO's most common size


@dataclass(frozen=True)
class BenchOptions:
    """What a measurement runs on, how often, and how it loads the model.

    Attributes:
        image: the picture; None means a made-up one.
        caption: the caption; None means DEFAULT_CAPTION, and none for a model that reads no captions.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        threads: threads per run; None means one for every physical core that this process may use.
        spin: see `session.create_session`.
        provider: execution provider of the runtime; see `opening.open_graph`.
        precision: which graph, or "auto"; see `opening.open_graph`.
        cache: see `opening.open_graph`.

    Raises:
        InputError: `runs` or `warmup` is below 1.
    """

    image: ImageSource | None = None
    caption: str | None = None
    runs: int = 50
    warmup: int = 10
    threads: int | None = None
    spin: bool = False
    provider: str = "cpu"
    precision: str = AUTO
    cache: bool = True

    def __post_init__(self) -> None:
        check_count("runs", self.runs)
        check_count("warmup", self.warmup)

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of `opening.open_graph` and `Predictor.load`."""
        return {name: getattr(self, name) for name in ("threads", "spin", "provider", "precision", "cache")}


@dataclass(frozen=True)
class BenchInputs:
    """The inputs of a graph, ready to run.

    Attributes:
        pixels: uint8 (B, H, W, 3), RGB.
        input_ids: int64 (B, T), or None for a model that reads no caption.
        attention_mask: int64 (B, T) of 0 and 1, or None for a model that reads no caption.
        picture: where the picture in every row comes from: its path, "from memory", or how it was made up.
        caption: the caption in every row, or None for a model that reads none.
    """

    pixels: Pixels
    input_ids: Tokens | None
    attention_mask: Tokens | None
    picture: str
    caption: str | None

    @property
    def arrays(self) -> tuple[Pixels, Tokens | None, Tokens | None]:
        """(pixels, input_ids, attention_mask), the arguments of `GraphSession.run`."""
        return self.pixels, self.input_ids, self.attention_mask

    @property
    def tokens(self) -> int:
        """T, or 0 for a model that reads no caption."""
        return 0 if self.input_ids is None else int(self.input_ids.shape[1])


def make_inputs(
    image_spec: ImageSpec,
    text_spec: TextSpec | None,
    tokenizer: bytes | None,
    *,
    image: ImageSource | None = None,
    caption: str | None = None,
    batch_size: int = 1,
) -> BenchInputs:
    """Make the inputs of a graph from content in memory.

    Args:
        image_spec: how a picture becomes pixels.
        text_spec: how a caption becomes tokens; None for a model that reads none.
        tokenizer: the content of tokenizer.json; None if and only if `text_spec` is.
        image: the picture for every row; None means pseudo-random pixels from a fixed seed.
        caption: the caption for every row; None means DEFAULT_CAPTION. It must be None for a model that reads none.
        batch_size: rows, >= 1.

    Raises:
        InputError: the picture or the caption cannot be used, or the model reads no caption.
        ValueError: one of `text_spec` and `tokenizer` without the other.
    """
    if image is None:
        shape = (image_spec.height, image_spec.width, 3)
        one = np.random.default_rng(_SEED).integers(0, 256, shape, dtype=np.uint8)
        picture = f"synthetic: pseudo-random pixels, seed {_SEED}"
    else:
        one = read_pixels(image, image_spec)
        picture = describe_picture(image)
    pixels = np.repeat(one[np.newaxis], batch_size, axis=0)
    if text_spec is None and tokenizer is None:
        if caption is not None:
            raise InputError("the model reads no caption: leave it out")
        return BenchInputs(pixels, None, None, picture, None)
    if text_spec is None or tokenizer is None:
        raise ValueError("text_spec and tokenizer go together; found one without the other")
    from mlic_runtime.caption.tokenizer import CaptionTokenizer  # here: a model without captions does not need it

    caption = DEFAULT_CAPTION if caption is None else caption
    ids, mask = CaptionTokenizer(tokenizer, text_spec).encode([caption] * batch_size)
    return BenchInputs(pixels, ids, mask, picture, caption)


def describe_picture(image: ImageSource) -> str:
    """Return the path of a picture, or "from memory"."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else "from memory"


def synthetic_jpeg() -> tuple[bytes, str]:
    """Return (a JPEG file, its origin): smooth noise from a fixed seed, which decodes like a photograph."""
    width, height = _JPEG_SIZE
    coarse = np.random.default_rng(_SEED).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(_JPEG_SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue(), f"synthetic: JPEG of {width} x {height} pixels, smooth noise, seed {_SEED}"


def package_inputs(
    package: ModelPackage, *, image: ImageSource | None = None, caption: str | None = None, batch_size: int = 1
) -> BenchInputs:
    """Make the inputs of a model package's graphs, as `make_inputs` does.

    Raises:
        InputError: see `make_inputs`.
        PackageError: the package is damaged.
    """
    manifest = package.manifest
    tokenizer = None if manifest.text is None else package.read(TOKENIZER_NAME)
    return make_inputs(manifest.image, manifest.text, tokenizer, image=image, caption=caption, batch_size=batch_size)
