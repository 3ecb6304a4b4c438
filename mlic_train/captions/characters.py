"""The tokenizer of `origin_hybrid`: one token per letter, from which its graph makes the trigrams."""

from string import ascii_lowercase

from .tokenizer import PAD_TOKEN

BREAK_TOKEN = " "
NUM_LETTERS = len(ascii_lowercase)
FIRST_LETTER = 2  # the id of "a"; [PAD] is 0 and the break between words 1
VOCAB_SIZE = FIRST_LETTER + NUM_LETTERS


def character_tokenizer() -> bytes:
    """The bytes of a tokenizer.json that needs no training: the same for all captions.

    Captions are lower-cased. Each of a to z is a token; any run of other characters (spaces, digits, punctuation,
    "ä") is one break. 17,576 = 26 ** 3 has no room for anything but letters, so a trigram of the origin lies within a
    word, and a break, and not the removal of other characters, keeps two words from making trigrams together. A caption
    without any letter has no tokens: it is no caption.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    letters = {letter: FIRST_LETTER + index for index, letter in enumerate(ascii_lowercase)}
    vocabulary = {PAD_TOKEN: 0, BREAK_TOKEN: 1, **letters}
    # The normalizer leaves nothing that is unknown; the library wants a token for it all the same.
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=BREAK_TOKEN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex("[^a-z]+"), BREAK_TOKEN), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[a-z ]"), behavior="isolated")
    return tokenizer.to_str().encode("utf-8")
