"""Export a model as an ONNX graph: traced, simplified, with standard operators only."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import onnx
import onnxslim
import torch

from mlic_runtime.graph.session import (
    ATTENTION_MASK,
    CAPTION_EVIDENCE,
    INPUT_IDS,
    LOGITS,
    PICTURE_EVIDENCE,
    PIXELS,
)
from mlic_train.models import Model

from .inputs import example_inputs

OPSET = 17  # the first with LayerNormalization; ONNX Runtime Web and mobile read it


def export_graph(model: Model, max_length: int, evidence: bool = False) -> bytes:
    """Return the ONNX graph of the contract as bytes: B and T dynamic, standard operators, weights inside.

    The TorchScript exporter is used on purpose: with an LSTM and attention in one graph its result passes the parity
    check at every shape, while that of torch.export is specialised on the traced shape (pytorch#191855).

    Equal weights give equal bytes, in every process.

    Args:
        model: the model.
        max_length: the most tokens that it reads.
        evidence: add the outputs `picture_evidence` (B, L, h, w) and `caption_evidence` (B, L, T). `logits` stays
            what it is, to the last bit, and costs the same where the others are not fetched.
    """
    inputs = example_inputs(model, rows=2, tokens=min(5, max_length))
    names = model.inputs
    outputs = [LOGITS]
    if evidence:
        outputs += [PICTURE_EVIDENCE, CAPTION_EVIDENCE] if INPUT_IDS in names else [PICTURE_EVIDENCE]
    batch, caption = {0: "B"}, {0: "B", 1: "T"}
    axes = {PIXELS: batch, INPUT_IDS: caption, ATTENTION_MASK: caption, LOGITS: batch, PICTURE_EVIDENCE: batch}
    axes[CAPTION_EVIDENCE] = {0: "B", 2: "T"}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode(), _explaining(model) if evidence else nullcontext():
        # It warns that it is not the default, and that LSTMs may fail at other batches, which parity checks.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            inputs,
            buffer,  # type: ignore[arg-type] # a stream is accepted here, only the annotation says otherwise
            input_names=list(names),
            output_names=outputs,
            dynamic_axes={name: axes[name] for name in (*names, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    return simplify(buffer.getvalue())


@contextmanager
def _explaining(model: Model) -> Iterator[None]:
    """Let `forward`, which the exporter calls, return what `explain` does.

    A module around the model would do the same, but it would add its name to those of all nodes.
    """

    def forward(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(each for each in model.explain(*inputs) if each is not None)

    model.forward = forward  # type: ignore[method-assign, assignment] # only until the graph is traced
    try:
        yield
    finally:
        del model.forward


def simplify(graph: bytes) -> bytes:
    """Fold constants and remove nodes without effect.

    ONNX Runtime does most of this when it loads a graph, but nothing that needs symbolic shapes: the padding of a timm
    backbone is computed from the shape of a tensor with dynamic B, though only its fixed H and W are used. The axis L
    of `logits`, which the exporter leaves dynamic, becomes fixed.
    """
    simplified: onnx.ModelProto = onnxslim.slim(onnx.load_from_string(graph))
    data: bytes = simplified.SerializeToString(deterministic=True)
    return data
