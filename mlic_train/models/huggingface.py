"""Caption encoders of Hugging Face transformers, which replace `mlic_train.models.caption.LstmEncoder`.

Nothing here runs code of a repository, and only `load_text_encoder` may open a connection: a run folder holds the
architecture in config.json and the weights in its checkpoint.
"""

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mlic_runtime.base.override import override
from mlic_runtime.base.text import error_line
from mlic_runtime.package.manifest import TOKENIZER_NAME
from mlic_train.errors import ConfigError

# Bidirectional encoders whose graph was compared with PyTorch at shapes that were not traced (tests/train). Others
# are left out on purpose: the states of ConvBERT and Nystroemformer, for example, change with the padding of a row.
ENCODERS = ("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
_POSITIONS_AFTER_PAD = ("camembert", "mpnet", "roberta", "xlm-roberta")  # their first token has position pad_id + 1
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z", re.ASCII)
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_FILES = ["config.json", TOKENIZER_NAME, *_SAFETENSORS, "model-*.safetensors"]
# Keys of config.json on its origin, its storage or a classifier: the encoder is not built from them.
_NOT_ARCHITECTURE = (
    *("_name_or_path", "architectures", "transformers_version", "transformers_weights", "auto_map", "dtype"),
    *("torch_dtype", "quantization_config", "id2label", "label2id", "problem_type"),
)


class HuggingFaceEncoder(nn.Module):
    """An encoder of transformers, projected: input_ids int64 (B, T), attention_mask int64 (B, T) -> (B, T, D).

    As with the LSTM, the result at a token does not depend on the padding of its row. States at padded positions are
    finite but meaningless; the caller masks them.

    Args:
        text_config: the architecture, the content of a config.json with a `model_type` of ENCODERS.
        width: D.
        dropout: probability in [0, 1) before the projection; the encoder itself has its own.

    Raises:
        ConfigError: transformers is missing, or `text_config` is not such an architecture.
    """

    def __init__(self, text_config: Mapping[str, Any], width: int, dropout: float) -> None:
        super().__init__()
        _check_architecture(text_config, "text_config")
        transformers = _transformers()
        try:
            config = transformers.AutoConfig.for_model(**_architecture(text_config))
            # Eager attention consists of matrix products and a softmax, which the exporter knows at every opset.
            encoder = transformers.AutoModel.from_config(config, attn_implementation="eager", trust_remote_code=False)
        except Exception as error:  # the library raises many unrelated types
            raise ConfigError(f"text_config does not describe an encoder: {error_line(error)}") from None
        encoder.pooler = None  # it is not used, and would enlarge the checkpoint
        self.encoder = encoder
        # Padded positions get the encoder's own padding token, because RoBERTa and similar models compute position
        # numbers from it. The runtime may pad with another id.
        self.pad_id = int(config.pad_token_id or 0)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(int(config.hidden_size), width)

    @property
    def embedding(self) -> nn.Embedding:
        """The table of the tokens."""
        return self.encoder.get_input_embeddings()  # type: ignore[no-any-return]

    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        ids = input_ids.masked_fill(attention_mask == 0, self.pad_id)
        # In a row without a caption every position is visible, because the softmax over none may not be finite.
        empty = attention_mask.sum(dim=1, keepdim=True) == 0
        visible = torch.maximum(attention_mask, empty.to(attention_mask.dtype))
        states = self.encoder(input_ids=ids, attention_mask=visible).last_hidden_state
        return self.project(self.dropout(states))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LoadedTextEncoder:
    """The parts of a pretrained encoder.

    Attributes:
        config: the architecture as JSON-ready data (`ModelConfig.text_config`).
        state: the float32 weights under their names in `HuggingFaceEncoder`, without the projection's.
        embedding: the token table of these weights (V, E).
        tokenizer_json: the file that the runtime's `CaptionTokenizer` reads.
        max_length: the largest T that the encoder takes.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    embedding: Tensor
    tokenizer_json: bytes
    max_length: int


def load_text_encoder(path_or_id: str) -> LoadedTextEncoder:
    """Read a pretrained encoder and its tokenizer.

    Args:
        path_or_id: a folder with config.json, tokenizer.json and weights, or the id of a repository on the Hugging Face
            hub, which is fetched (or taken from the hub's cache). Weights are safetensors; a pytorch_model.bin is
            read with PyTorch's restricted unpickler, which runs no code.

    Raises:
        ConfigError: transformers is missing; or the folder or repository is missing, is not one of ENCODERS, has no
            tokenizer.json, or has weights that cannot be read or do not fill the architecture.
    """
    transformers = _transformers()
    folder = _find_folder(path_or_id)
    config_file = folder / "config.json"
    try:
        written = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"text encoder {path_or_id}: {config_file} cannot be read: {error_line(error)}") from None
    _check_architecture(written, f"text encoder {path_or_id}")
    if not any((folder / name).is_file() for name in (*_SAFETENSORS, *_PICKLED)):
        raise ConfigError(f"text encoder {path_or_id}: {folder} has neither {_SAFETENSORS[0]} nor {_PICKLED[0]}")
    tokenizer_json, largest = _read_tokenizer(folder / TOKENIZER_NAME, path_or_id)
    with _quiet(transformers):
        encoder = _load_weights(transformers, folder, path_or_id)
    config, embedding = encoder.config, encoder.get_input_embeddings().weight.detach()
    if largest >= len(embedding):
        raise ConfigError(
            f"text encoder {path_or_id}: its tokenizer has ids up to {largest}, its weights only {len(embedding)} "
            "tokens; give a folder in which the two belong together"
        )
    positions = int(config.max_position_embeddings)
    if config.model_type in _POSITIONS_AFTER_PAD:
        positions -= int(config.pad_token_id) + 1
    return LoadedTextEncoder(
        config=_architecture(json.loads(config.to_json_string(use_diff=False))),
        state={f"encoder.{name}": tensor.detach() for name, tensor in encoder.state_dict().items()},
        embedding=embedding,
        tokenizer_json=tokenizer_json,
        max_length=positions,
    )


def _find_folder(path_or_id: str) -> Path:
    """Return the folder of a pretrained encoder; fetch it from the hub if `path_or_id` is no folder."""
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    needed = "give a folder with config.json, tokenizer.json and model.safetensors, or the id of a hub repository"
    if folder.exists():
        raise ConfigError(f"text encoder {path_or_id} is a file; {needed}")
    if not _HUB_ID.match(path_or_id):
        raise ConfigError(f"text encoder {path_or_id}: no such folder, and not a repository's id; {needed}")
    from huggingface_hub import snapshot_download

    try:
        fetched = Path(snapshot_download(path_or_id, allow_patterns=_HUB_FILES))
        if not any((fetched / name).is_file() for name in _SAFETENSORS):
            fetched = Path(snapshot_download(path_or_id, allow_patterns=[*_HUB_FILES, "pytorch_model*.bin*"]))
    except Exception as error:  # the hub's client raises many unrelated types
        reason = error_line(error)[:200]
        raise ConfigError(
            f"text encoder {path_or_id}: no such folder, and the hub does not provide it ({reason}); {needed}"
        ) from None
    return fetched


def _check_architecture(config: object, where: str) -> None:
    """Refuse all but an encoder of ENCODERS, before the library reads the configuration."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where} must be a JSON object, found {type(config).__name__}")
    kind = config.get("model_type")
    if kind not in ENCODERS:
        own_code = "; it brings code of its own, which is never run" if config.get("auto_map") else ""
        raise ConfigError(f"{where} has the architecture {kind!r}{own_code}; supported: {', '.join(ENCODERS)}")
    for key in ("is_decoder", "is_encoder_decoder", "add_cross_attention"):
        if config.get(key):
            raise ConfigError(f"{where} is a decoder ({key} is set in its config.json); give an encoder")


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}


def _read_tokenizer(file: Path, where: str) -> tuple[bytes, int]:
    """Read a tokenizer.json; return its content and its largest token id.

    AutoTokenizer is not used: its result differs between versions of transformers, and where the file is missing it
    may silently return an empty tokenizer.
    """
    if not file.is_file():
        raise ConfigError(
            f"text encoder {where} has no {TOKENIZER_NAME} (a 'fast' tokenizer), which the runtime reads; "
            "write one with AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    content = file.read_bytes()
    try:
        vocabulary = Tokenizer.from_str(content.decode("utf-8")).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"text encoder {where}: {file} is not a tokenizer: {error_line(error)[:200]}") from None
    return content, max(vocabulary.values(), default=-1)


def _load_weights(transformers: Any, folder: Path, where: str) -> Any:
    """Load the encoder in float32, without a pooler and without the heads in the file."""
    try:
        encoder, report = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # the library raises many unrelated types
        raise ConfigError(f"text encoder {where}: its weights cannot be read: {error_line(error)[:200]}") from None
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name.split("."))
    if missing:
        raise ConfigError(f"text encoder {where}: its weights lack {len(missing)} tensors, {missing[0]} among them")
    encoder.pooler = None
    return encoder.float()


def _transformers() -> Any:
    """Import the library when it is needed: this takes seconds, and most models do not need it."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            f"a Hugging Face text encoder needs the package transformers, which cannot be imported ({error}); "
            "pip install transformers"
        ) from None


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Suppress the library's progress bar and its list of heads that were left out."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
