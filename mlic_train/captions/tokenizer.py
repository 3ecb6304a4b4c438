from collections.abc import Iterable

from mlic_train.errors import DataError

PAD_TOKEN = "[PAD]"
UNKNOWN_TOKEN = "[UNK]"
_WORD_START = "▁"  # U+2581, which Metaspace puts before every word


def train_tokenizer(captions: Iterable[str], vocab_size: int = 8000, min_frequency: int = 2) -> bytes:
    """Train a lower-casing byte-pair encoding (Sennrich et al. 2016) on captions.

    Marks stay, because they tell words apart: vowel signs of Indic scripts and Thai, tones of Vietnamese, accents. Both
    ways to write a letter with its mark (Unicode's NFC and NFD) are one. The tokenizer's file says all this itself.

    Equal captions give equal bytes. (The library's WordPiece trainer does not: it numbers its "##" pieces in the order
    of a hash table, which differs between processes, so that two runs of one seed would give different models.)

    Args:
        captions: the training captions only: words of validation and test must stay unseen.
        vocab_size: upper bound of the vocabulary, [PAD] (always id 0) and [UNK] included.
        min_frequency: a piece must occur this often to be added.

    Returns:
        The bytes of tokenizer.json, which training, checkpoints and the runtime use.

    Raises:
        DataError: there are no captions.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    from mlic_runtime.caption.tokenizer_safety import INVISIBLE

    texts = [caption for caption in captions if caption.strip()]
    if not texts:
        raise DataError("no captions to train a tokenizer on: add captions, or train --model cnn, which reads none")
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN_TOKEN, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("\u200b", " "),  # between words of Thai and Khmer
            normalizers.Replace(Regex(INVISIBLE), ""),
            normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=True),
            normalizers.NFC(),
            normalizers.Replace("i\u0307", "i"),  # lower case of the Turkish capital with a dot
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[PAD_TOKEN, UNKNOWN_TOKEN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str().encode("utf-8")


def vocabulary_size(tokenizer_json: bytes) -> int:
    """Return the number of token ids of a tokenizer.json."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json.decode("utf-8")).get_vocab_size()


def token_texts(tokenizer_json: bytes) -> list[str]:
    """Return the text of every token id of `train_tokenizer`; a token that begins a word begins with a space."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_str(tokenizer_json.decode("utf-8")).get_vocab()
    return [token.replace(_WORD_START, " ") for token in sorted(vocabulary, key=vocabulary.__getitem__)]
