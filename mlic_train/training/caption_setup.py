"""The tokenizer of a new run, and the caption weights that do not start at random."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from mlic_train.captions.characters import VOCAB_SIZE, character_tokenizer
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import LSTM, ORIGIN_HYBRID, OWN_TEXT_ENCODERS, ModelConfig
from mlic_train.data import Record
from mlic_train.errors import ConfigError
from mlic_train.models.huggingface import load_text_encoder
from mlic_train.runs.folder import read_run_config, read_tokenizer

from .embedding import PACKAGE, PACKAGE_NAME, initial_embedding, packaged_encoder


@dataclass(frozen=True)
class CaptionSetup:
    """The tokenizer and the first caption weights of a run.

    Attributes:
        config: the model's configuration; its vocabulary is the tokenizer's.
        tokenizer: tokenizer.json; None for a model that reads no captions.
        weights: the weights of `model.caption` that do not start at random.
        facts: their origin, for the run's provenance.
    """

    config: ModelConfig
    tokenizer: bytes | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def set_up_captions(config: ModelConfig, records: Sequence[Record], embedding: str | None) -> CaptionSetup:
    """Make the tokenizer and the first caption weights of a new run.

    A tokenizer of our own is trained on the captions of `records`, the training rows. `embedding` is an encoder's name
    (see `initial_embedding`), or None for token embeddings that start at random.

    Raises:
        ConfigError: the model does not use such an encoder or embedding, or the encoder cannot be used.
    """
    if not config.reads_captions or config.name == ORIGIN_HYBRID:
        unused = "--text-encoder" if config.text_encoder != LSTM else "--embedding" if embedding is not None else None
        if unused is not None:
            reads = "letters" if config.reads_captions else "no captions"
            raise ConfigError(f"{config.name} reads {reads}; leave {unused} out, or choose --model hybrid")
    if not config.reads_captions:
        return CaptionSetup(config)
    if config.name == ORIGIN_HYBRID:
        return CaptionSetup(dataclasses.replace(config, vocab_size=VOCAB_SIZE), character_tokenizer())
    if config.text_encoder not in OWN_TEXT_ENCODERS:
        if embedding is not None:
            raise ConfigError("--text-encoder has token embeddings of its own: leave --embedding out")
        return _pretrained_captions(config)
    captions = (caption for record in records for caption in record.captions)
    tokenizer = train_tokenizer(captions, config.vocab_size)
    # Few captions give fewer pieces than requested; unused rows would only make the model larger.
    config = dataclasses.replace(config, vocab_size=vocabulary_size(tokenizer))
    if embedding is None:
        return CaptionSetup(config, tokenizer)
    source = packaged_encoder() if embedding == PACKAGE else embedding
    weights = {"embedding.weight": initial_embedding(tokenizer, source, config.width)}
    facts = _text_facts("embedding", PACKAGE_NAME if embedding == PACKAGE else embedding)
    return CaptionSetup(config, tokenizer, weights, facts)


def take_over_captions(config: ModelConfig, folder: Path) -> CaptionSetup:
    """Take tokenizer and vocabulary of a finished run; its weights come with those of the whole model.

    Raises:
        CheckpointError: it is no run folder, or its tokenizer is missing.
    """
    theirs = read_run_config(folder).model
    config = dataclasses.replace(config, vocab_size=theirs.vocab_size, text_config=theirs.text_config)
    return CaptionSetup(config, read_tokenizer(folder, theirs))


def _pretrained_captions(config: ModelConfig) -> CaptionSetup:
    """Take tokenizer, vocabulary and weights from a Hugging Face encoder."""
    loaded = load_text_encoder(config.text_encoder)
    if config.max_length > loaded.max_length:
        raise ConfigError(
            f"text encoder {config.text_encoder} reads at most {loaded.max_length} tokens, max_length is "
            f"{config.max_length}; give --max-length {loaded.max_length} or less"
        )
    config = dataclasses.replace(config, vocab_size=len(loaded.embedding), text_config=loaded.config)
    facts = _text_facts("text_encoder", config.text_encoder)
    return CaptionSetup(config, loaded.tokenizer_json, loaded.state, facts)


def _text_facts(role: str, path_or_id: str) -> dict[str, str]:
    """Return the provenance: the encoder's name, but not its folder on this machine."""
    return {role: Path(path_or_id).resolve().name, "transformers": version("transformers")}
