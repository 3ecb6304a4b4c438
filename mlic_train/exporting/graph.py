"""Export a model as an ONNX graph: traced, simplified, with standard operators only."""

import io
import warnings

import onnx
import onnxslim
import torch

from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, LOGITS, PIXELS
from mlic_train.models import Model

from .parity import example_inputs

OPSET = 17  # the first with LayerNormalization; ONNX Runtime Web and mobile read it


def export_graph(model: Model, max_length: int) -> bytes:
    """Return the ONNX graph of the contract as bytes: B and T dynamic, standard operators, weights inside.

    The TorchScript exporter is used on purpose: with an LSTM and attention in one graph its result passes the parity
    check at every shape, while that of torch.export is specialised on the traced shape (pytorch#191855).

    Equal weights give equal bytes, in every process.
    """
    inputs = example_inputs(model, rows=2, tokens=min(5, max_length))
    names = [PIXELS, INPUT_IDS, ATTENTION_MASK][: len(inputs)]
    axes = {PIXELS: {0: "B"}, INPUT_IDS: {0: "B", 1: "T"}, ATTENTION_MASK: {0: "B", 1: "T"}, LOGITS: {0: "B"}}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # It warns that it is not the default, and that LSTMs may fail at other batches, which parity checks.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            inputs,
            buffer,  # type: ignore[arg-type] # a stream is accepted here, only the annotation says otherwise
            input_names=names,
            output_names=[LOGITS],
            dynamic_axes={name: axes[name] for name in (*names, LOGITS)},
            opset_version=OPSET,
            dynamo=False,
        )
    return simplify(buffer.getvalue())


def simplify(graph: bytes) -> bytes:
    """Fold constants and remove nodes without effect.

    ONNX Runtime does most of this when it loads a graph, but nothing that needs symbolic shapes: the padding of a timm
    backbone is computed from the shape of a tensor with dynamic B, though only its fixed H and W are used. The axis L
    of `logits`, which the exporter leaves dynamic, becomes fixed.
    """
    simplified: onnx.ModelProto = onnxslim.slim(onnx.load_from_string(graph))
    data: bytes = simplified.SerializeToString(deterministic=True)
    return data
