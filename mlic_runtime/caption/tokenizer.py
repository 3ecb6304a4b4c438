"""Caption preprocessing, once for training and serving: both call `CaptionTokenizer`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlic_runtime.base.arrays import Tokens
from mlic_runtime.errors import CaptionError, PackageError
from mlic_runtime.limits import MAX_CAPTION_CHARACTERS
from mlic_runtime.package.manifest import TOKENIZER_NAME, TextSpec

from .tokenizer_safety import library_error, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding


class CaptionTokenizer:
    """The step from captions to token ids, by the package's tokenizer.json and `TextSpec`. Thread-safe.

    The manifest decides about truncation and padding; what tokenizer.json says of them is ignored.

    Args:
        tokenizer_json: the content of tokenizer.json (the format of the `tokenizers` library).
        spec: length limit, vocabulary size and padding id.

    Raises:
        PackageError: not a tokenizer, or one that `tokenizer_safety` refuses, that has ids outside `spec.vocab_size`,
            or that adds more special tokens than `spec.max_length` allows.
    """

    def __init__(self, tokenizer_json: bytes, spec: TextSpec) -> None:
        self.spec = spec
        self._tokenizer = load_tokenizer(tokenizer_json, spec.vocab_size)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if special > spec.max_length:
            raise PackageError(
                f"{TOKENIZER_NAME} adds {special} special tokens, but text.max_length is {spec.max_length}"
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length, stride=0, strategy="longest_first", direction="right")

    def encode(self, captions: Sequence[str | None]) -> tuple[Tokens, Tokens]:
        """Tokenise captions, padded on the right to the longest of them.

        A caption that is None, blank, or gives only special tokens is "no caption": an all-zero mask row. A caption
        that is too long is cut at its end. Lone surrogates become U+FFFD and NUL a space.

        Args:
            captions: B captions.

        Returns:
            `input_ids` int64 (B, T) in [0, vocab_size) and `attention_mask` int64 (B, T) of 0 and 1, with
            1 <= T <= max_length.

        Raises:
            CaptionError: a caption is neither a text nor None.
            PackageError: the tokenizer failed on a caption.
        """
        rows = [[] if (encoding := self._encode_one(caption)) is None else encoding.ids for caption in captions]
        length = max((len(row) for row in rows), default=1) or 1
        input_ids = np.full((len(rows), length), self.spec.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(rows), length), dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        return input_ids, attention_mask

    def spans(self, caption: str | None) -> list[tuple[int, int] | None]:
        """Return where the word of each token of `encode` stands in the caption, (start, end) in characters.

        The tokenizer's file says what a word is. Tokens of one word have the same span; special tokens have None.

        Raises:
            CaptionError: the caption is neither a text nor None.
            PackageError: the tokenizer failed on it.
        """
        encoding = self._encode_one(caption)
        if encoding is None:
            return []
        # Some tokenizers do not cut a text into words; then each token is one.
        keys = [
            None if special else (position if word is None else -1 - word)
            for position, (word, special) in enumerate(
                zip(encoding.word_ids, encoding.special_tokens_mask, strict=True)
            )
        ]
        ends: dict[int, tuple[int, int]] = {}
        for key, (start, end) in zip(keys, encoding.offsets, strict=True):
            if key is not None:
                first, last = ends.get(key, (start, end))
                ends[key] = (min(first, start), max(last, end))
        return [None if key is None else ends[key] for key in keys]

    def _encode_one(self, caption: str | None) -> "Encoding | None":
        """Return the encoding of a caption; None where there is none to encode."""
        if caption is None:
            return None
        if not isinstance(caption, str):
            raise CaptionError(f"a caption must be a text (str) or None, found {type(caption).__name__}")
        text = caption[:MAX_CAPTION_CHARACTERS].replace("\0", " ")
        # Through UTF-16, two surrogates that belong together become their character; a lone one cannot be UTF-8.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if not text.strip():
            return None
        # One by one: a batch call would start a thread pool, which costs more than it gains for a few captions.
        try:
            encoding = self._tokenizer.encode(text)
        except BaseException as error:  # such as an unknown word, if the vocabulary has no token for them
            raise library_error(error, f"failed on the caption {text[:40]!r}") from error
        return None if all(encoding.special_tokens_mask) else encoding
