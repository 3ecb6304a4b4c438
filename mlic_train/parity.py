"""Does the exported graph say what the PyTorch model says, at every shape?"""

import numpy as np
import torch
from torch import Tensor

from mlic_runtime.manifest import ParitySpec
from mlic_runtime.postprocess import decide, sigmoid
from mlic_runtime.session import GraphSession

from .checkpoint import Trained
from .errors import ExportError
from .models import Cnn, Model

ATOL = 1e-4  # in logits
RTOL = 1e-4
# (B, T): one row, one token, odd ones, the traced shape, longer and larger than traced.
SHAPES = ((1, 1), (2, 5), (7, 1), (3, 17), (5, 31), (16, 8))
_SEED = 0


def example_inputs(model: Model, rows: int, tokens: int, seed: int = _SEED) -> tuple[Tensor, ...]:
    """Random inputs of the contract: `pixels` uint8 (B, H, W, 3) and, if read, ids and mask int64 (B, T).

    Rows differ in length; of three or more rows one has no caption and one, where the model can do without,
    no picture.
    """
    generator = torch.Generator().manual_seed(seed)
    side = model.image_size
    pixels = torch.randint(0, 256, (rows, side, side, 3), generator=generator, dtype=torch.uint8)
    if isinstance(model, Cnn):
        return (pixels,)
    vocabulary = model.vocab_size
    ids = torch.randint(1, vocabulary, (rows, tokens), generator=generator)
    lengths = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    lengths[0] = tokens
    if rows >= 3:
        lengths[1] = 0
        pixels[2] = 0
    mask = (torch.arange(tokens)[None, :] < lengths).long()
    return pixels, ids * mask, mask


def check_parity(trained: Trained, session: GraphSession) -> ParitySpec:
    """Compare a graph in ONNX Runtime with the model in PyTorch over SHAPES.

    Raises:
        ExportError: a value differs by more than ATOL + RTOL * |logit|, or a decision differs; the message names
            the shape.
        PackageError: the graph fails at one of the shapes.
    """
    thresholds = np.asarray(trained.state.thresholds)
    largest, rows, equal = 0.0, 0, []
    for index, (batch, tokens) in enumerate(SHAPES):
        inputs = example_inputs(trained.model, batch, min(tokens, trained.config.model.max_length), seed=index)
        with torch.inference_mode():
            expected = trained.model(*inputs).numpy()
        found = session.run(*(tensor.numpy() for tensor in inputs))
        if found.shape != expected.shape:
            raise ExportError(f"parity failed at B={batch}, T={tokens}: shape {found.shape}, expected {expected.shape}")
        difference = np.abs(found - expected)
        if (difference > ATOL + RTOL * np.abs(expected)).any():
            raise ExportError(
                f"parity failed at B={batch}, T={tokens}: logits differ by {difference.max():.3g}, "
                f"at most {ATOL:g} + {RTOL:g} * |logit| is allowed; nothing was written"
            )
        equal.append(decide(sigmoid(found), thresholds) == decide(sigmoid(expected), thresholds))
        largest, rows = max(largest, float(difference.max())), rows + batch
    share = float(np.concatenate(equal).mean())
    if share < 1.0:
        raise ExportError(f"parity failed: {1 - share:.2%} of the label decisions differ; nothing was written")
    return ParitySpec(len(SHAPES), rows, largest, ATOL, RTOL, share)
