"""Make golden.json: what Pillow and the `tokenizers` library give, for the tests of the JavaScript module.

    python web/tests/golden.py

Pixels are made by a formula in both languages, so the file holds digests only.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlic_runtime import Predictor
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.package.manifest import ImageSpec, parse_manifest
from mlic_runtime.picture.decode import to_pixels

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "exported" / "hybrid"
SIZES = [(640, 480), (256, 256), (91, 37), (300, 451), (1024, 700), (1, 1), (2000, 3), (1600, 8)]
CAPTIONS = [  # text, or (text, how often)
    "Two giraffes in a room with people looking at them.",
    "  A woman's cat; 3 dogs & a (blue) car...  ",
    "",
    " \t\n",
    "a\0b",
    "İstanbul ǅ ﬁ naïve café e\u0301 ẞ ΑΣ",
    "日本語の犬 한국어 हिन्दी ไทย ھندی",
    "👩‍👩‍👧 dog\u200b cat\ufeff \u00ad soft \u2028 line\u0085next",
    "[PAD] dog [UNK] cat ▁ dog",
    "ａｂｃ ½ ² ⅷ \ue000 \ufffd",  # noqa: RUF001
    "don't-stop…ok—yes ´ ` ^ ~ $ + < = > |",  # noqa: RUF001
    ("word ", 300),
    ("x", 25_000),
]


def picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, 3) by a formula that golden.test.js repeats."""
    at = np.arange(width * height * 3, dtype=np.uint64)
    pixels: npt.NDArray[np.uint8] = (
        ((at * at * np.uint64(31) + at * np.uint64(7)) // np.uint64(11) % np.uint64(256))
        .astype(np.uint8)
        .reshape(height, width, 3)
    )
    return pixels


def main() -> None:
    """Write the file."""
    resized = []
    for width, height in SIZES:
        for interpolation in ("bilinear", "bicubic"):
            for mode in ("stretch", "crop"):
                spec = ImageSpec(64, 48, interpolation, mode)
                pixels = to_pixels(Image.fromarray(picture(width, height)), spec)
                digest = hashlib.sha256(pixels.tobytes()).hexdigest()
                resized.append(
                    {"width": width, "height": height, "interpolation": interpolation, "resize": mode, "sha256": digest}
                )
    reduced = []
    for width, height, by_x, by_y in [(640, 480, 2, 2), (37, 91, 4, 4), (101, 50, 3, 5), (9, 9, 8, 8), (64, 3, 1, 2)]:
        pixels = np.asarray(Image.fromarray(picture(width, height)).reduce((by_x, by_y)))
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        reduced.append({"width": width, "height": height, "by": [by_x, by_y], "sha256": digest})
    manifest = parse_manifest((PACKAGE / "manifest.json").read_bytes())
    assert manifest.text is not None
    tokenizer = CaptionTokenizer((PACKAGE / "tokenizer.json").read_bytes(), manifest.text)
    captions = []
    for text, times in (each if isinstance(each, tuple) else (each, 1) for each in CAPTIONS):
        ids, mask = tokenizer.encode([text * times])
        captions.append({"text": text, "times": times, "ids": ids[mask == 1].tolist()})
    predictor = Predictor.load(PACKAGE, precision="fp32")
    height, width = manifest.image.height, manifest.image.width
    rows = [(None, "a cat on a sofa"), (picture(width, height), None), (picture(width, height), "a cat on a sofa")]
    predictions = []
    for image, caption in rows:
        found = predictor.predict(image, caption)
        probabilities = [round(found.probabilities[label.name], 6) for label in manifest.labels]
        predictions.append({"picture": image is not None, "caption": caption, "probabilities": probabilities})
    content = {"resized": resized, "reduced": reduced, "captions": captions, "predictions": predictions}
    (HERE / "golden.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
