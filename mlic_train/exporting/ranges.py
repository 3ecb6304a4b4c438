"""The ranges of a graph's values on training rows, which float16 and int8 graphs are fitted to."""

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from mlic_runtime.base.override import override
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, PIXELS
from mlic_train.batches.dataset import Examples, batch_loader, evaluation_batches
from mlic_train.data import Record
from mlic_train.measure.collect import graph_inputs, usable_records
from mlic_train.measure.predict import MODES, in_mode
from mlic_train.runs.checkpoint import TrainedModel

Inputs = dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.int64]]
"""A batch: {name of the graph's input: array}"""

_BATCH_SIZE = 16
_SEED = 0


@dataclass(frozen=True)
class Ranges:
    """The values of a graph's tensors on real rows.

    Attributes:
        data: the smallest and the largest value of every float32 tensor, as the quantizer takes them.
        means: {tensor that a convolution reads: the mean of each of its channels (C)}, over rows with a picture.
    """

    data: TensorsData
    means: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def largest(self) -> Mapping[str, float]:
        """Return {tensor: its largest absolute value}."""
        return {
            name: max(abs(float(bound.item())) for bound in spec.range_value) for name, spec in self.data.data.items()
        }


def measure_ranges(graph: bytes, batches: Sequence[Inputs]) -> Ranges:
    """Run a float32 graph and record the ranges of its tensors; `batches` need every kind of row that it will get."""
    with tempfile.TemporaryDirectory() as folder:  # ONNX Runtime's calibrator works on files
        source = Path(folder, "model.onnx")
        source.write_bytes(graph)
        calibrator = create_calibrator(source, augmented_model_path=str(Path(folder, "augmented.onnx")))
        calibrator.collect_data(_Reader(batches))
        return Ranges(calibrator.compute_data(), _measure_means(graph, batches))


def _measure_means(graph: bytes, batches: Sequence[Inputs]) -> dict[str, npt.NDArray[np.float32]]:
    model = onnx.load_from_string(graph)
    tensors = sorted({node.input[0] for node in model.graph.node if node.op_type == "Conv"})
    outputs = [f"{tensor}/mean" for tensor in tensors]
    for tensor, output in zip(tensors, outputs, strict=True):
        model.graph.node.append(helper.make_node("ReduceMean", [tensor], [output], axes=[0, 2, 3], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    pictures = [batch for batch in batches if batch[PIXELS].any()]
    if not pictures or not tensors:
        return {}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [len(batch[PIXELS]) for batch in pictures]
    measured = [session.run(outputs, batch) for batch in pictures]
    return {
        tensor: np.average([means[index] for means in measured], axis=0, weights=rows)
        for index, tensor in enumerate(tensors)
    }


def draw_rows(trained: TrainedModel, records: Sequence[Record], count: int) -> list[Record]:
    """Return `count` records in random order, always the same ones; those with pictures come first."""
    usable = usable_records(records, trained.config.model)
    random.Random(_SEED).shuffle(usable)
    return sorted(usable, key=lambda record: record.image is None)[:count]


def make_inputs(trained: TrainedModel, records: Sequence[Record], modes: Sequence[str] = MODES) -> list[Inputs]:
    """Return the records in batches, once in each mode; a model that reads no captions has only the mode "both"."""
    config = trained.config.model
    examples = Examples(records, config.num_labels, config.image_spec)
    names = (PIXELS, INPUT_IDS, ATTENTION_MASK)
    possible = [mode for mode in modes if config.reads_captions or mode == "both"]
    batches: list[Inputs] = []
    for batch in batch_loader(examples, trained.caption_tokenizer, evaluation_batches(len(examples), _BATCH_SIZE)):
        for mode in possible:
            tensors = graph_inputs(in_mode(batch, mode), config.image_size)
            batches.append({name: tensor.numpy() for name, tensor in zip(names, tensors, strict=False)})
    return batches


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no type information
    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches = iter(batches)

    @override
    def get_next(self) -> Inputs | None:
        return next(self._batches, None)
