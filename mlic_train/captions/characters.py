"""The tokenizer of `origin_hybrid`: one token per letter, from which the graph makes the trigrams."""

from string import ascii_lowercase

from .tokenizer import PAD_TOKEN

BREAK_TOKEN = " "
NUM_LETTERS = len(ascii_lowercase)
FIRST_LETTER = 2  # the id of "a"; [PAD] is 0 and the break between words 1
VOCAB_SIZE = FIRST_LETTER + NUM_LETTERS


def character_tokenizer() -> bytes:
    """Return the bytes of a tokenizer.json that needs no training.

    Captions are lower-cased. Each of a to z is a token; any run of other characters (spaces, digits, punctuation,
    "ä") is one break. The origin's 17,576 = 26 ** 3 trigrams consist of letters only and lie within a word; the break
    keeps two words from making trigrams together. A caption without any letter has no tokens: it is no caption.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    letters = {letter: FIRST_LETTER + index for index, letter in enumerate(ascii_lowercase)}
    vocabulary = {PAD_TOKEN: 0, BREAK_TOKEN: 1, **letters}
    # After the normalizer no character is unknown, but the library requires a token for unknown ones.
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=BREAK_TOKEN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex("[^a-z]+"), BREAK_TOKEN), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[a-z ]"), behavior="isolated")
    return tokenizer.to_str().encode("utf-8")
