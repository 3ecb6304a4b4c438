"""What is fuzzed: functions that take any bytes, and raise where the product does what it must not.

A target lets pass the one kind of error that its input may cause, and checks what was accepted. Nothing here needs
atheris, so that the tests run the targets as well.
"""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import ImageError, ManifestError, PackageError
from mlic_runtime.package.graph_safety import check_graph
from mlic_runtime.package.manifest import ImageSpec, TextSpec, dump_manifest, parse_manifest
from mlic_runtime.package.model_package import load_package
from mlic_runtime.picture.decode import read_pixels

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
TINY_PICTURE = ROOT / "tests" / "data" / "tiny_picture"

_MAX_PIXELS = 1_000_000  # small, so that a run of the fuzzer is not one picture after the other of 100 megapixels
_TINY_TEXT = TextSpec(max_length=6, vocab_size=7)
_CAPTIONS = ("red", "Green, blue!  bright", "a" * 300, "ﷺ" * 50, "\U0001f600 e\u0301 \u0130")


class Target(NamedTuple):
    """One thing to fuzz: what runs, what a fuzzer starts from, and whether mutating it as JSON makes sense."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    is_json: bool = False


def picture(data: bytes) -> None:
    """The bytes of a picture file."""
    for spec in (ImageSpec(6, 8), ImageSpec(8, 6, "bicubic", "crop")):
        try:
            pixels = read_pixels(data, spec, max_pixels=_MAX_PIXELS)
        except ImageError as error:
            _one_line(error)
        else:
            assert pixels.shape == (spec.height, spec.width, 3), pixels.shape
            assert pixels.dtype == np.uint8, pixels.dtype


def caption(data: bytes) -> None:
    """A caption, with the tokenizer of the released model; surrogates included."""
    tokenizer = _released_tokenizer()
    text = data.decode("utf-16-le", "surrogatepass") if len(data) % 2 == 0 else data.decode("utf-8", "replace")
    _check_tokens(tokenizer, [text])


def manifest(data: bytes) -> None:
    """manifest.json: what is accepted is written and read again without a change."""
    try:
        found = parse_manifest(data)
    except ManifestError as error:
        _one_line(error)
    else:
        assert parse_manifest(dump_manifest(found)) == found


def tokenizer(data: bytes) -> None:
    """tokenizer.json, and captions through what is accepted."""
    try:
        found = CaptionTokenizer(data, _TINY_TEXT)
        _check_tokens(found, list(_CAPTIONS))
    except PackageError as error:
        _one_line(error)


def archive(data: bytes) -> None:
    """A `.mlic` file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "fuzzed.mlic")
        file.write_bytes(data)
        try:
            load_package(file).verify()
        except PackageError as error:
            _one_line(error)


def graph(data: bytes) -> None:
    """The bytes of an ONNX graph, as far as they are read before ONNX Runtime."""
    try:
        check_graph(data, "model.onnx")
    except PackageError as error:
        _one_line(error)


def _check_tokens(tokenizer: CaptionTokenizer, captions: list[str | None]) -> None:
    spec = tokenizer.spec
    ids, mask = tokenizer.encode(captions)
    assert ids.shape == mask.shape, (ids.shape, mask.shape)
    assert 1 <= ids.shape[1] <= spec.max_length, ids.shape
    assert ((ids >= 0) & (ids < spec.vocab_size)).all(), ids
    assert np.isin(mask, (0, 1)).all(), mask
    again, _ = tokenizer.encode(captions)
    assert (ids == again).all(), "the same captions gave other tokens"


def _one_line(error: Exception) -> None:
    """Every message is one line for the user."""
    text = str(error)
    assert text, "an error without a message"
    assert "\n" not in text, text


_RELEASED: list[CaptionTokenizer] = []


def _released_tokenizer() -> CaptionTokenizer:
    """Made once."""
    if not _RELEASED:
        content = (ROOT / "exported" / "hybrid" / "tokenizer.json").read_bytes()
        _RELEASED.append(CaptionTokenizer(content, TextSpec(max_length=64, vocab_size=8000)))
    return _RELEASED[0]


def _pictures() -> list[bytes]:
    colours = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    image = Image.fromarray(colours)
    found = []
    for mode, format_, options in (
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("I;16", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("L", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("P", "GIF", {}),
        ("RGB", "BMP", {}),
        ("RGB", "WEBP", {}),
        ("RGB", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "PPM", {}),
    ):
        stream = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        kept = {"exif": exif} if format_ in ("JPEG", "PNG", "WEBP") else {}
        image.convert("L" if mode == "I;16" else mode).convert(mode).save(stream, format_, **options, **kept)
        found.append(stream.getvalue())
    return found


def _captions() -> list[bytes]:
    texts = (*_CAPTIONS, "", "A dog, and 2 cats on a motorcycle.", "\ud800", "\0", "\u3000", "ß" * 3, "\uff11\uff12")
    return [text.encode("utf-16-le", "surrogatepass") for text in texts]


def _manifests() -> list[bytes]:
    return [(ROOT / folder / "manifest.json").read_bytes() for folder in ("tests/data/tiny", "exported/hybrid")]


def _tokenizers() -> list[bytes]:
    """Of every model and of most components, as the library writes them."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    words = {"[PAD]": 0, "[UNK]": 1, "red": 2, "##d": 3, "r": 4, "e": 5, "d": 6}
    byte_level = Tokenizer(models.BPE({"r": 0, "e": 1, "d": 2, "re": 3}, [("r", "e")]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.post_processor = processors.RobertaProcessing(("r", 0), ("e", 1))
    piece = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    piece.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("``", '"'), normalizers.Strip()])
    piece.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()])
    piece.post_processor = processors.TemplateProcessing("[PAD] $A [UNK]", special_tokens=[("[PAD]", 0), ("[UNK]", 1)])
    piece.add_special_tokens([AddedToken("[PAD]"), AddedToken("[UNK]")])
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("red", -2.0), ("e", -3.0)], 0, False))
    unigram.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    made = [tokenizer.to_str().encode() for tokenizer in (byte_level, piece, unigram)]
    return [(TINY / "tokenizer.json").read_bytes(), *made]


def _archives() -> list[bytes]:
    """By `zipfile`, stored, and deflated, which is refused; the small package, so that more bytes are headers."""
    import zipfile

    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for path in sorted(TINY_PICTURE.iterdir()):
                info = zipfile.ZipInfo(path.name)
                info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, path.read_bytes(), method)
        found.append(stream.getvalue())
    return found


def _graphs() -> list[bytes]:
    return [(folder / "model.fp32.onnx").read_bytes() for folder in (TINY, TINY_PICTURE)]


TARGETS = {
    "archive": Target(archive, _archives),
    "caption": Target(caption, _captions),
    "graph": Target(graph, _graphs),
    "manifest": Target(manifest, _manifests, is_json=True),
    "picture": Target(picture, _pictures),
    "tokenizer": Target(tokenizer, _tokenizers, is_json=True),
}
