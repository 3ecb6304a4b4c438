"""Make golden.json: what Pillow and the `tokenizers` library give, for the tests of the JavaScript module.

    python web/tests/golden.py

Pixels are made by a formula in both languages, so the file holds digests only.
"""

import base64
import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mlic_runtime import Predictor
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import ManifestError
from mlic_runtime.package.manifest import ImageSpec, TextSpec, parse_manifest
from mlic_runtime.picture.decode import to_pixels
from mlic_train.captions.characters import character_tokenizer
from mlic_train.captions.tokenizer import train_tokenizer

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "exported" / "hybrid"
SIZES = [(640, 480), (256, 256), (91, 37), (300, 451), (1024, 700), (1, 1), (2000, 3), (1600, 8)]
CAPTIONS: list[str | tuple[str, int]] = [  # text, or (text, how often)
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
    "\x85",
    "\ufeff",
    "\x1c\x1f\xa0\u3000",
    "a\x85cat\ufeffdog\x1cbus\ufe0f \U000e0065",
    "\u0130stanbul i\u0307 Ti\u1ebfng Vi\u1ec7t \u0e01\u0e32\u0e41\u0e1f\u200b\u0e14\u0e33",
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


def encode(tokenizer: CaptionTokenizer, text: str) -> list[int]:
    """Return the ids of one caption."""
    ids, mask = tokenizer.encode([text])
    found: list[int] = ids[mask == 1].tolist()
    return found


def tokenizer_files() -> dict[str, str]:
    """Return a small tokenizer.json of each kind: what mlic-train writes, and what encoders of Hugging Face have."""
    texts = ["a cat and a dog on a red bus", "two dogs, a cat's bus", "ti\u1ebfng vi\u1ec7t caf\xe9"] * 5
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "##s", "on", "bus", ".", ",", "'", "two", "word"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    wordpiece = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer()
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    wordpiece.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    return {
        "of mlic-train": train_tokenizer(texts, 90).decode(),
        "of letters": character_tokenizer().decode(),
        "of BERT": wordpiece.to_str(),
    }


def manifest_changes() -> list[dict[str, Any]]:
    """Return changes of the released manifest, {keys, value} or {keys} to delete, and if the runtime takes them."""
    graph = {"sha256": "0" * 64, "bytes": 1, "precision": "int8"}
    first: list[str | int] = ["labels", 0]
    values: list[tuple[list[str | int], list[Any]]] = [
        (["schema_version"], [2, "1", True, None]),
        (["name"], ["", "a b", "\xe4", "a" * 100, "a" * 101, 5, "a\n"]),
        (["version"], ["", "1.0\n", "v1", None]),
        (["labels"], [[], {}, None, [{"name": "a", "threshold": 0}], [{"name": "a", "threshold": 0.5}] * 2]),
        ([*first, "name"], ["", " ", "a\tb", "a\u200b", "a\xa0b", "a b", " a", "\xe4\U0001f600", 1]),
        ([*first, "threshold"], [0, 1, 1.1, -0.1, "0.5", None, True]),
        ([*first, "colour"], ["red"]),
        (["image"], [None, []]),
        (["image", "height"], [0, 1, 4096, 4097, 1.5, "256", True]),
        (["image", "interpolation"], ["bicubic", "nearest", None]),
        (["image", "resize"], ["crop", "pad"]),
        (["image", "mean"], [0]),
        (["text"], [None, []]),
        (["text", "max_length"], [0, 1, 8192, 8193]),
        (["text", "vocab_size"], [0, 2**24, 2**24 + 1]),
        (["text", "pad_id"], [-1, 1, 10**6]),
        (["text", "lower"], [True]),
        (["files", "../x"], [graph]),
        (["files", "second.onnx"], [graph, {**graph, "precision": "int4"}, {**graph, "precision": None}]),
        (["files", "README.md"], [graph, {**graph, "precision": None}, {"sha256": "0" * 64, "bytes": 1}, []]),
        (["files", "tokenizer.json", "sha256"], ["0" * 63, "A" * 64, "0" * 64 + "\n", None]),
        (["files", "tokenizer.json", "bytes"], [-1, 2**25, 2**25 + 1, 1.5, True]),
        (["files", "tokenizer.json", "url"], ["https://example.org"]),
        (["files"], [{}, [], {"manifest.json": graph}]),
        (
            ["evidence"],
            [None, {}, {"height": 8, "width": 8}, {"height": 0, "width": 8}, {"height": 8, "width": 8, "x": 1}],
        ),
        (["comment"], ["?"]),
    ]
    keys: list[list[str | int]] = [
        ["schema_version"],
        ["name"],
        ["text"],
        ["metrics"],
        ["parity"],
        ["provenance"],
        ["latency"],
        ["recommended"],
    ]
    keys += [
        ["image", "resize"],
        ["text", "pad_id"],
        ["files", "tokenizer.json", "precision"],
        ["files", "tokenizer.json"],
    ]
    keys += [[*first, "threshold"]]
    changes: list[dict[str, Any]] = [{"keys": place, "value": value} for place, each in values for value in each]
    deletions: list[dict[str, Any]] = [{"keys": place} for place in keys]
    for change in [*changes, *deletions]:
        data = json.loads((PACKAGE / "manifest.json").read_bytes())
        *path, last = change["keys"]
        holder = data
        for key in path:
            holder = holder[key]
        if "value" in change:
            holder[last] = change["value"]
        else:
            holder.pop(last, None)
        try:
            parse_manifest(json.dumps(data))
        except ManifestError:
            change["taken"] = False
        else:
            change["taken"] = True
        if change not in changes:
            changes.append(change)
    return changes


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
    turned = []
    for orientation in range(1, 9):
        turned_image = Image.fromarray(picture(7, 5))
        exif = Image.Exif()
        exif[0x0112] = orientation
        files = {}
        for format_ in ("JPEG", "WEBP", "PNG"):
            stream = BytesIO()
            turned_image.resize((1, 1)).save(stream, format_, exif=exif)
            files[format_] = base64.b64encode(stream.getvalue()).decode()
        turned_image.info["exif"] = exif.tobytes()
        upright = ImageOps.exif_transpose(turned_image)
        digest = hashlib.sha256(upright.tobytes()).hexdigest()
        turned.append({"orientation": orientation, "width": upright.width, "sha256": digest, "files": files})
    tokenizers = []
    for name, json_text in tokenizer_files().items():
        size = len(json.loads(json_text)["model"]["vocab"])
        tokenizer = CaptionTokenizer(json_text.encode(), TextSpec(12, size))
        texts = [each[0] * each[1] if isinstance(each, tuple) else each for each in CAPTIONS]
        ids = [encode(tokenizer, text) for text in texts]
        tokenizers.append({"name": name, "json": json.loads(json_text), "ids": ids})
    manifest = parse_manifest((PACKAGE / "manifest.json").read_bytes())
    assert manifest.text is not None
    tokenizer = CaptionTokenizer((PACKAGE / "tokenizer.json").read_bytes(), manifest.text)
    captions = []
    for text, times in (each if isinstance(each, tuple) else (each, 1) for each in CAPTIONS):
        captions.append({"text": text, "times": times, "ids": encode(tokenizer, text * times)})
    predictor = Predictor.load(PACKAGE, precision="fp32")
    height, width = manifest.image.height, manifest.image.width
    rows = [(None, "a cat on a sofa"), (picture(width, height), None), (picture(width, height), "a cat on a sofa")]
    predictions = []
    for image, caption in rows:
        found = predictor.predict(image, caption)
        probabilities = [round(found.probabilities[label.name], 6) for label in manifest.labels]
        predictions.append({"picture": image is not None, "caption": caption, "probabilities": probabilities})
    content: dict[str, list[Any]] = {
        "resized": resized,
        "reduced": reduced,
        "turned": turned,
        "manifests": manifest_changes(),
        "captions": captions,
    }
    content |= {"tokenizers": tokenizers, "predictions": predictions}
    lists = [f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for key, rows in content.items()]
    (HERE / "golden.json").write_text("{\n" + ",\n".join(lists) + "\n}\n", encoding="ascii")


if __name__ == "__main__":
    main()
