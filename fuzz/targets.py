"""The targets of fuzzing: functions that take any bytes, and raise if the runtime behaves wrongly.

A target allows the one kind of error that its input may cause, and checks what was accepted. Nothing here needs
atheris, so that the tests can run the targets, too.
"""

import functools
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

_MAX_PIXELS = 1_000_000  # small, so that the fuzzer does not spend its time on huge pictures
_TINY_TEXT = TextSpec(max_length=6, vocab_size=7)
_CAPTIONS = ("red", "Green, blue!  bright", "a" * 300, "ﷺ" * 50, "\U0001f600 e\u0301 \u0130")


class Target(NamedTuple):
    """A function to fuzz, the inputs that the fuzzer starts from, and whether they are JSON."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    is_json: bool = False


def picture(data: bytes) -> None:
    """Check the bytes of a picture file."""
    for spec in (ImageSpec(6, 8), ImageSpec(8, 6, "bicubic", "crop")):
        try:
            pixels = read_pixels(data, spec, max_pixels=_MAX_PIXELS)
        except ImageError as error:
            _one_line(error)
        else:
            assert pixels.shape == (spec.height, spec.width, 3), pixels.shape
            assert pixels.dtype == np.uint8, pixels.dtype


def caption(data: bytes) -> None:
    """Check a caption with the tokenizer of the released model; it may have lone surrogates."""
    tokenizer = _released_tokenizer()
    text = data.decode("utf-16-le", "surrogatepass") if len(data) % 2 == 0 else data.decode("utf-8", "replace")
    _check_tokens(tokenizer, [text])


def manifest(data: bytes) -> None:
    """Check manifest.json: written and read again, an accepted one is unchanged."""
    try:
        accepted = parse_manifest(data)
    except ManifestError as error:
        _one_line(error)
    else:
        assert parse_manifest(dump_manifest(accepted)) == accepted


def tokenizer(data: bytes) -> None:
    """Check tokenizer.json, and captions with an accepted tokenizer."""
    try:
        accepted = CaptionTokenizer(data, _TINY_TEXT)
        _check_tokens(accepted, list(_CAPTIONS))
    except PackageError as error:
        _one_line(error)


def archive(data: bytes) -> None:
    """Check a `.mlic` file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "fuzzed.mlic")
        file.write_bytes(data)
        try:
            load_package(file).verify()
        except PackageError as error:
            _one_line(error)


def graph(data: bytes) -> None:
    """Check the bytes of an ONNX graph, as far as the runtime reads them before ONNX Runtime does."""
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
    """Check that the message of an error is one line."""
    text = str(error)
    assert text, "an error without a message"
    assert "\n" not in text, text


@functools.cache
def _released_tokenizer() -> CaptionTokenizer:
    content = (ROOT / "exported" / "hybrid" / "tokenizer.json").read_bytes()
    return CaptionTokenizer(content, TextSpec(max_length=64, vocab_size=8000))


def _pictures() -> list[bytes]:
    colours = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    image = Image.fromarray(colours)
    files = []
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
        exif[0x0112] = 6  # rotated
        kept = {"exif": exif} if format_ in ("JPEG", "PNG", "WEBP") else {}
        image.convert("L" if mode == "I;16" else mode).convert(mode).save(stream, format_, **options, **kept)
        files.append(stream.getvalue())
    return files


def _captions() -> list[bytes]:
    texts = (*_CAPTIONS, "", "A dog, and 2 cats on a motorcycle.", "\ud800", "\0", "\u3000", "ß" * 3, "\uff11\uff12")
    return [text.encode("utf-16-le", "surrogatepass") for text in texts]


def _manifests() -> list[bytes]:
    return [(ROOT / folder / "manifest.json").read_bytes() for folder in ("tests/data/tiny", "exported/hybrid")]


def _tokenizers() -> list[bytes]:
    """Return tokenizers with every model and most components, as the library writes them."""
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
    """Return archives by `zipfile`, stored and deflated; of a small package, so that most bytes are headers."""
    import zipfile

    archives = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for path in sorted(TINY_PICTURE.iterdir()):
                info = zipfile.ZipInfo(path.name)
                info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, path.read_bytes(), method)
        archives.append(stream.getvalue())
    return archives


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
